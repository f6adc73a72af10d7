"""Simulated fleets over real sockets: mosquitto as both brokers, a scripted platform, real faults."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from device_sim.cli import cli
from device_sim.fleet import Fleet
from device_sim.report import Report
from device_sim.scenario import parse
from tests.contracts.mqtt_device import until
from tests.support.ports import free_ports
from tests.walk.mosquitto_site import FACTORY, FACTORY_PASSWORD, Body, Site, running_site

FAST = {"reply_s": 2.0, "backoff_base_s": 0.05, "backoff_cap_s": 0.3, "connect_s": 5.0, "connack_s": 5.0}


@pytest.fixture(scope="module")
def the_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def site(the_site: Site) -> Site:
    the_site.reset()
    return the_site


def fleet(**settings: Any) -> dict[str, Any]:
    return {
        "client_id": "meter-{n}",
        "username": FACTORY,
        "password": FACTORY_PASSWORD,
        "timeouts": FAST,
        **settings,
    }


def run(site: Site, *fleets: dict[str, Any], **settings: Any) -> tuple[Report, Fleet]:
    plan = {"gate": site.plain, "tls": {"ca": str(site.folder / "ca.pem")}, "deadline_s": 30, "seed": 7}
    made = Fleet(parse({**plan, **settings, "fleets": fleets}))
    return asyncio.run(made.run()), made


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.parametrize("listener", ["plain", "tls", "ws"])
def test_ec36_a_fleet_walks_through(site: Site, listener: str, protocol: str) -> None:
    """EC-36: over every transport and protocol each device ends connected, in the order of the walk."""
    report, made = run(site, fleet(count=8, protocol=protocol), gate=getattr(site, listener))
    assert (report.is_met, report.deadline_passed) == (True, False)
    assert Counter(who for who, _ in site.asked) == Counter({f"meter-{n}": 1 for n in range(1, 9)})
    assert until(lambda: sorted(site.first) == sorted(f"meter-{n}" for n in range(1, 9)))
    assert {body["result"] for _, body in site.acks} == {"applied"}
    (part,) = report.fleets
    assert (part.answers, part.phases, part.attempts) == ({"provisioned": 8}, {"connected": 8}, 8)
    for runner in made.runners[0]:
        assert [log.event for log in runner.record.events] == [
            "CONNECT(gate)", "REQ", "RES", "ACK", "DISCONNECT", "CONNECT(account)", "FIRST", "CONNECTED",
        ]  # fmt: skip


def test_the_host_name_is_verified(site: Site) -> None:
    """A gate whose certificate is for another name is as good as absent, whatever the authority."""
    by_address = site.tls.replace("localhost", "127.0.0.1")
    report, _ = run(site, fleet(expect="unreachable"), gate=by_address)
    assert report.is_met
    assert site.asked == []


@pytest.mark.parametrize("status", ["refused", "not_yet_active", "expired", "already_provisioned", "waiting"])
def test_intruders_are_scripted_by_what_they_expect(site: Site, status: str) -> None:
    """A fleet that expects a refusal ends with it; one that expects to be connected has then failed."""
    site.script = lambda who, body, n: {"status": status, "retry_after_s": 60}
    report, _ = run(site, fleet(count=3, expect=status), fleet(client_id="other", expect="connected"), deadline_s=3)
    assert [(part.is_met, part.outcomes) for part in report.fleets] == [(True, {status: 3}), (False, {status: 1})]
    assert not report.is_met


def test_a_wrong_password_is_refused_at_the_door(site: Site) -> None:
    """login_refused is told apart from a gate that cannot be reached."""
    stranger = fleet(password="Wrong-password-1", expect="login_refused")
    report, _ = run(
        site, stranger, fleet(client_id="lost", gate=f"mqtt://127.0.0.1:{free_ports(1)[0]}", expect="unreachable")
    )
    assert report.is_met


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("lost_answer", {"count": 1}),
        ("lost_answer", {"count": 2, "how": "cut"}),
        ("duplicate", {"probability": 1.0}),
        ("cut", {"count": 2, "at_byte": 9}),
        ("cut", {"count": 2}),
        ("slow_reader", {"pause_s": 0.05}),
        ("skewed_clock", {}),
    ],
)
@pytest.mark.parametrize("listener", ["plain", "tls"])
def test_f28_faults_delay_but_do_not_stop(site: Site, listener: str, name: str, fault: Body) -> None:
    """F-26, F-28: every device gets through every fault, each with one request id, and the faults did happen."""
    report, _ = run(site, fleet(count=4, faults={name: fault}), gate=getattr(site, listener))
    (part,) = report.fleets
    assert part.is_met, part
    # A cut at a random byte may lie behind the last one that is sent.
    assert part.faults.get(name, 0) >= 4 or fault == {"count": 2}
    assert len({(who, body["request_id"]) for who, body in site.asked}) == 4
    if name == "skewed_clock":
        assert all(body["device"]["clock"].startswith("1970-01-01T00:00") for _, body in site.asked)
    if name == "duplicate":
        assert until(lambda: len(site.asked) == 8)


def test_f28_a_second_run_resumes(site: Site, tmp_path: Path) -> None:
    """Devices that were connected go straight to their account broker; one that was refused asks with its old id."""
    site.script = lambda who, body, n: {"status": "busy"} if who == "meter-1" else site.provision(who, body, n)
    run(site, fleet(count=3), state_dir=str(tmp_path), deadline_s=4)
    files = sorted((tmp_path / "json-1").iterdir())
    assert [(each.name, each.stat().st_mode & 0o777) for each in files] == [
        (f"meter-{n}.json", 0o600) for n in (1, 2, 3)
    ]
    before = {body["request_id"] for who, body in site.asked if who == "meter-1"}
    site.reset()
    report, _ = run(site, fleet(count=3), state_dir=str(tmp_path))
    assert report.is_met
    assert [(who, {body["request_id"]}) for who, body in site.asked] == [("meter-1", before)]


def test_f13_silence_is_no_success(site: Site) -> None:
    """F-13: the gate acknowledges everything and answers nothing: the device asks again until somebody answers."""
    site.script = lambda who, body, n: None if n < 3 else site.provision(who, body, n)
    report, _ = run(site, fleet(timeouts={**FAST, "reply_s": 0.2}))
    assert report.is_met
    assert [body["request_id"] for _, body in site.asked] == [site.asked[0][1]["request_id"]] * 3


def test_f30_the_account_broker_comes_late(site: Site) -> None:
    """F-30: a device whose account broker is away falls back to the gate when told so, with the same request id."""
    gone = f"mqtt://127.0.0.1:{free_ports(1)[0]}"
    site.script = lambda who, body, n: site.provision(who, body, n) | ({"broker_url": gone} if n == 1 else {})
    report, _ = run(site, fleet(timeouts={**FAST, "fall_back_after": 2}))
    assert report.is_met
    assert len(site.asked) == 2


def test_a_few_slots_serve_many_devices(site: Site) -> None:
    """in_flight_max bounds who is on the walk, not who gets there; all stay connected to the end."""
    report, _ = run(site, fleet(count=120, arrival={"pattern": "poisson", "over_s": 0.5}), in_flight_max=10)
    assert (report.is_met, report.fleets[0].phases) == (True, {"connected": 120})


def test_a_scenario_by_command(site: Site, tmp_path: Path) -> None:
    """A scenario file with a password file beside it: a table on stdout, the report in a file, status 0."""
    (tmp_path / "password.txt").write_text(FACTORY_PASSWORD + "\n")
    (tmp_path / "fleet.yaml").write_text(
        f"""
gate: {site.tls}
tls: {{ca: {site.folder / "ca.pem"}}}
fleets:
  - {{name: meters, count: 5, client_id: "m-{{n}}", username: {FACTORY}, password_file: password.txt, stay_s: 0}}
"""
    )
    arguments = ["run", str(tmp_path / "fleet.yaml"), "--json", str(tmp_path / "report.json"), "--deadline", "20"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "5 connected" in result.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["expectations_met"], report["fleets"][0]["outcomes"]) == (True, {"connected": 5})


def invoke(site: Site, *arguments: str) -> Result:
    (site.folder / "password.txt").write_text(FACTORY_PASSWORD + "\n")
    login = ["--username", FACTORY, "--password-file", str(site.folder / "password.txt")]
    return CliRunner().invoke(cli, ["one", *login, *arguments])


def test_one_device_by_command(site: Site) -> None:
    """EC-38: one device from command line options; the report is JSON and no secret is printed."""
    ca = str(site.folder / "ca.pem")
    result = invoke(site, "--gate", site.tls, "--ca", ca, "--client-id", "m{1}", "--protocol", "5", "--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["fleets"][0]["outcomes"] == {"connected": 1}
    assert "Factory-pass" not in result.output
    assert "Account-pass" not in result.output
    assert until(lambda: site.first.count("m{1}") == 1)


def test_exit_status_tells_the_reason(site: Site) -> None:
    """1: not as expected. 8: nothing there. 6: invalid input."""
    site.script = lambda who, body, n: {"status": "expired"}
    assert invoke(site, "--gate", site.plain, "--client-id", "m-1").exit_code == 1
    nobody = f"mqtt://127.0.0.1:{free_ports(1)[0]}"
    assert invoke(site, "--gate", nobody, "--client-id", "m-1", "--deadline", "1").exit_code == 8
    assert invoke(site, "--gate", "http://x", "--client-id", "m-1").exit_code == 6
