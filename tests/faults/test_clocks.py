"""Clocks that jump, clocks of 1970 and times that people write: windows follow the server's clock alone."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from provisioner.doors.control_client import Refused
from tests.support.device import Credentials, Wire
from tests.support.fleet import fleet_of, run_fleet
from tests.support.installation import Installation

FreshId = Callable[[], str]
LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
HOUR_S = 3_600
CONNECT_DEADLINE_S = 2.0
KEY_BACKOFF_S = 1


@dataclass(slots=True)
class Clock:
    """The wall clock of a running service, as far off the true one as the file says; its monotonic one is true."""

    file: Path

    def set(self, offset_s: int) -> None:
        self.file.write_text(f"{offset_s:+d}")

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@dataclass(frozen=True, slots=True)
class Site:
    installation: Installation
    clock: Clock

    def now(self) -> datetime:
        """What the service believes."""
        return datetime.fromisoformat(self.installation.ask("status")["time"])

    def request(self, client_id: str, **fields: Any) -> Credentials:
        """Whose window has long been open: one that began just now would not be open an hour ago."""
        return self.installation.request(client_id, activates_on=long_ago(), **fields)


def long_ago() -> str:
    return (datetime.now(UTC) - timedelta(hours=3)).isoformat()


@pytest.fixture(scope="module")
def the_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("clocks")
    limits = {"connect_deadline_s": CONNECT_DEADLINE_S}
    policy = {"key_backoff_s": KEY_BACKOFF_S, "key_failures_backoff": 2}
    installation = Installation(folder / "installation", gate={"limits": limits}, policy=policy)
    clock = Clock(folder / "clock")
    clock.set(0)
    with installation.running(**clock.environment()):
        installation.account()
        installation.account("certified", certificates="server-key")
        yield Site(installation, clock)


@pytest.fixture
def site(the_site: Site) -> Iterator[Site]:
    yield the_site
    the_site.clock.set(0)


def ask(site: Site, credentials: Credentials) -> Mapping[str, Any]:
    with site.installation.device(credentials) as device:
        answer = device.ask()
    told = datetime.fromisoformat(answer["server_time"])
    assert abs(told - site.now()) < timedelta(seconds=5), "every answer carries the server's time"
    return answer


def test_f_32_windows_follow_the_servers_clock(site: Site, fresh_id: FreshId) -> None:
    """F-32: set forth and back by an hour and more, the clock opens and closes a window; refusals tell the time."""
    now = datetime.now(UTC)
    window = {"activates_on": now + timedelta(minutes=30), "expires_on": now + timedelta(minutes=90)}
    fields = {name: at.isoformat() for name, at in window.items()}
    early, ready, late = (site.installation.request(fresh_id(), **fields) for _ in range(3))
    answer = ask(site, early)
    assert answer["status"] == "not_yet_active"
    assert 0 < answer["retry_after_s"] <= 30 * 60
    site.clock.set(HOUR_S)
    assert ask(site, ready)["status"] == "provisioned"
    site.clock.set(2 * HOUR_S)
    assert ask(site, late)["status"] == "expired"
    site.clock.set(-HOUR_S)
    assert ask(site, early)["status"] == "not_yet_active"
    site.clock.set(HOUR_S)
    assert site.installation.provision(early)["status"] == "provisioned"


def test_f_32_a_jump_is_noted(site: Site) -> None:
    """F-32: each jump is one audit row with its size, and one line in the log."""
    known = len(jumps_noted(site, 0))  # those of tests before this one
    for offset_s in (HOUR_S, -HOUR_S):
        site.clock.set(offset_s)
        jumps = jumps_noted(site, offset_s)
    assert jumps[known:] == [pytest.approx(HOUR_S, abs=1), pytest.approx(-2 * HOUR_S, abs=1)]
    assert f"the server's clock jumped by {jumps[-1]:+.1f} s" in site.installation.log.read_text()


def jumps_noted(site: Site, offset_s: int) -> list[float]:
    """How far the clock moved each time, once the service has seen it as far off as it is: it looks now and then."""
    until_s = time.monotonic() + 20
    while True:
        jumps = [row["details"]["moved_s"] for row in site.installation.audit("clock.jumped")]
        if sum(jumps) == pytest.approx(offset_s, abs=10):
            return jumps
        assert time.monotonic() < until_s, jumps
        time.sleep(0.1)


@pytest.mark.parametrize("offset_s", [HOUR_S, -HOUR_S])
def test_f_32_delays_do_not_follow_the_wall_clock(site: Site, fresh_id: FreshId, offset_s: int) -> None:
    """F-32: an hour's jump neither ends a connection's time to connect early nor makes it last for an hour."""
    installation = site.installation
    with installation.device(site.request(fresh_id())) as device, Wire(installation.plain) as slow:
        started_s = time.monotonic()
        slow.socket.sendall(b"\x10")
        site.clock.set(offset_s)
        assert not slow.is_cut(CONNECT_DEADLINE_S / 2)
        assert slow.is_cut(CONNECT_DEADLINE_S * 3)
        assert CONNECT_DEADLINE_S * 0.9 < time.monotonic() - started_s < CONNECT_DEADLINE_S * 2
        assert device.ask()["status"] == "provisioned"


def test_f_32_a_clock_that_is_set_back_locks_nobody_out(site: Site, fresh_id: FreshId) -> None:
    """F-32: the pause after wrong activation keys is as long as it is, also when the clock is set back meanwhile."""
    site.clock.set(HOUR_S)
    credentials = site.request(fresh_id(), activation_key=True)
    with site.installation.device(credentials) as device:
        for n in range(2):
            assert device.ask(f"m-{n}", activation_key="WRONG-KEY")["status"] == "refused"
        assert device.ask("m-3")["status"] == "busy"
        site.clock.set(0)
        until_s = time.monotonic() + 5
        while (answer := device.ask("m-4"))["status"] != "provisioned":
            assert answer["status"] == "busy"
            assert time.monotonic() < until_s
            time.sleep(0.1)


def test_f_32_certificates_are_dated_back(site: Site, fresh_id: FreshId) -> None:
    """F-32: a certificate is valid from five minutes before the server's now, whatever that is."""
    site.clock.set(HOUR_S)
    credentials = site.installation.request(fresh_id(), account="certified")
    answer = ask(site, credentials)
    valid_from = x509.load_pem_x509_certificate(answer["certificate"].encode()).not_valid_before_utc
    assert abs(site.now() - timedelta(minutes=5) - valid_from) < timedelta(seconds=5)


@pytest.mark.parametrize("kind", ["json", "esf", "kura"])
@pytest.mark.parametrize("offset_s", [None, HOUR_S, -HOUR_S])
def test_f_32_the_devices_clock_decides_nothing(
    shared_installation: Installation, fresh_id: FreshId, kind: str, offset_s: int | None
) -> None:
    """F-32: a device that believes in 1970, or is an hour off, passes a window that is a minute wide on either side."""
    now = datetime.now(UTC)
    minute = timedelta(minutes=1)
    credentials = shared_installation.request(
        fresh_id(), activates_on=(now - minute).isoformat(), expires_on=(now + minute).isoformat()
    )
    skew = {} if offset_s is None else {"offset_s": offset_s}
    report, _ = run_fleet(shared_installation, fleet_of(credentials, kind=kind, faults={"skewed_clock": skew}))
    assert report.is_met, report.outcomes()
    assert report.fleets[0].faults == {"skewed_clock": 1}


def test_f_32_started_with_a_clock_behind_its_own_records(
    make_installation: Callable[..., Installation], tmp_path: Path
) -> None:
    """F-32: killed and started again an hour earlier than it was, the service goes on; rows keep their order."""
    installation, clock = make_installation(), Clock(tmp_path / "clock")
    clock.set(0)
    with installation.running(**clock.environment()):
        installation.account()
        granted = installation.request("before", activates_on=long_ago())
        with installation.device(granted) as device:
            first = device.ask_raw(device.payload())
        installation.kill()
        clock.set(-HOUR_S)
        installation.start(**clock.environment())
        with installation.device(granted) as device:
            assert device.ask_raw(device.payload()) == first
        assert installation.provision(installation.request("after"))["status"] == "provisioned"
        assert installation.ask("fsck") == {"findings": []}
        seqs = [row["seq"] for row in installation.audit()]
        assert seqs == sorted(set(seqs))


REFUSED = (
    "2030-03-31T02:30:00",
    "2030-06-01",
    "2030-01-01T00:00:00[Europe/Rome]",
    "2030-01-01T00:00:00 CET",
    "2030-12-31T23:59:60Z",
    "2030-02-30T00:00:00Z",
    "2030-01-01T24:00:00Z",
    "2030-01-01T00:00:00+25:00",
    "2030-01-01T00:00:00+0100",
    "10000-01-01T00:00:00Z",
    "9999-12-31T23:59:59-12:00",
    "0001-01-01T00:00:00+14:00",
    "20300101T000000Z",
    "\uff12\uff10\uff13\uff10-01-01T00:00:00Z",
    "tomorrow",
    1_893_456_000,
)
TAKEN = {
    "2030-03-31T02:30:00+01:00": "2030-03-31T01:30:00+00:00",  # no such time on clocks in Rome, but one instant
    "2030-10-27T02:30:00+02:00": "2030-10-27T00:30:00+00:00",  # there twice in Rome; the offset says which
    "2030-10-27T02:30:00+01:00": "2030-10-27T01:30:00+00:00",
    "2030-01-01t00:00:00z": "2030-01-01T00:00:00+00:00",
    "9999-12-31T23:59:59Z": "9999-12-31T23:59:59+00:00",
}


@pytest.mark.parametrize("text", REFUSED)
@pytest.mark.parametrize("field", ["activates_on", "expires_on"])
def test_f_33_only_a_time_with_an_offset_is_a_time(
    shared_installation: Installation, fresh_id: FreshId, field: str, text: object
) -> None:
    """F-33: everything else is invalid input that names the field, at the administrators' door; nothing is stored."""
    client_id = fresh_id()
    with pytest.raises(Refused) as caught:
        shared_installation.request(client_id, **{field: text})
    assert caught.value.kind == "invalid_input"
    assert [problem.field for problem in caught.value.problems] == [field]
    with pytest.raises(Refused, match="no request"):
        shared_installation.state(client_id)


@pytest.mark.parametrize(("text", "instant"), TAKEN.items())
def test_f_33_a_time_with_an_offset_is_one_instant(
    shared_installation: Installation, fresh_id: FreshId, text: str, instant: str
) -> None:
    """F-33: summer time and the year 9999 are what their offset makes of them, and are asked about without a fault."""
    client_id = fresh_id()
    shared_installation.request(client_id, expires_on=text)
    assert shared_installation.ask("request.show", id=client_id)["expires_on"] == instant
    assert shared_installation.ask("request.explain", id=client_id, at=text)["at"] == text


@pytest.mark.parametrize("text", ["2030-03-31T02:30:00", "2030-12-31T23:59:60Z", "9999-12-31T23:59:59-12:00"])
def test_f_33_the_command_line_refuses_it_too(shared_installation: Installation, fresh_id: FreshId, text: str) -> None:
    """F-33: exit status 6 and the name of the field, for a new request and for a question about another time."""
    client_id = fresh_id()
    names = ("--account", "acme", "--client-id", client_id, "--username", f"user-{client_id}")
    made = shared_installation.cli("request", "create", *names, "--expires-on", text, status=6)
    assert "expires_on" in made.stderr
    shared_installation.request(client_id)
    asked = shared_installation.cli("request", "explain", client_id, "--at", text, status=6)
    assert "must be an RFC 3339 time with an offset" in asked.stderr
