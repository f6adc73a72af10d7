"""What a running service tells those who watch it: metrics, health and readiness."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from broker.packets import V311
from provisioner.config import MetricsSettings
from provisioner.services import figures
from tests.support.canary import Search
from tests.support.device import Wire
from tests.support.in_process import InProcess
from tests.support.installation import ROOT, Installation, ServiceDied, run_cli
from tests.support.ports import free_ports
from tests.support.watching import Watch

FreshId = Callable[[], str]
WRONG = "Wrong-Pa55word-99"


class WatchedSite(Installation):
    """With the door for those who watch."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        (port,) = free_ports(1)
        super().__init__(folder, metrics={"port": port}, **settings)
        self.watch = Watch(port)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedSite]:
    made = WatchedSite(tmp_path_factory.mktemp("watched") / "installation", brokers=("north", "south"))
    with made.running():
        made.account("acme", "north")
        yield made


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[WatchedSite]:
    """To be broken; not started."""
    made = WatchedSite(tmp_path / "installation")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


def test_a_walk_is_counted(site: WatchedSite, fresh_id: FreshId) -> None:
    """A device that is provisioned, asks again and writes nonsense is one of each: status, latency, event, state."""
    counted = {
        status: site.watch.value("fleetgate_messages_total", dialect="json_v1", status=status)
        for status in ("provisioned", "already_provisioned", "malformed")
    }
    answers = site.watch.value("fleetgate_answer_seconds_count", dialect="json_v1")
    own = site.request(fresh_id())
    site.provision(own, broker="north")
    with site.device(own) as device:
        assert device.ask("m-2")["status"] == "already_provisioned"
        assert json.loads(device.ask_raw(b"{nonsense"))["status"] == "malformed"
    for status, before in counted.items():
        site.watch.await_value(
            lambda value, wanted=before + 1: value == wanted,
            "fleetgate_messages_total",
            dialect="json_v1",
            status=status,
        )
    site.watch.await_value(lambda value: value == answers + 3, "fleetgate_answer_seconds_count", dialect="json_v1")
    assert site.watch.value("fleetgate_answer_seconds_bucket", dialect="json_v1", le="+Inf") == answers + 3
    assert site.watch.value("fleetgate_events_total", action="provision.confirmed", outcome="ok") >= 1
    assert site.watch.value("fleetgate_store_seconds_count", verb="commit") > 3


def test_requests_by_state_and_effects_are_those_of_the_store(own_site: WatchedSite) -> None:
    """What is stored is counted, at most every some seconds."""
    with own_site.running():
        own_site.account()
        own_site.provision(own_site.request("gw1"))
        for number in (2, 3):
            own_site.request(f"gw{number}")
        own_site.ask("request.revoke", id="gw3")
        watch = own_site.watch
        assert watch.value("fleetgate_requests", state="confirmed") == 1
        assert watch.value("fleetgate_requests", state="pending") == 1
        assert watch.value("fleetgate_requests", state="revoked") == 1
        assert watch.value("fleetgate_effects_waiting") == 0
        own_site.request("gw4")
        assert watch.value("fleetgate_requests", state="pending") == 1, "counted once more within the time"


def test_failed_logins_and_lockouts_are_counted(site: WatchedSite, fresh_id: FreshId) -> None:
    """Every refused login counts, however the audit log sums them up, under its true reason; so does a lockout."""
    own, count = site.request(fresh_id()), 14
    name = "fleetgate_authentication_failures_total"
    before = {reason: site.watch.value(name, door="gate", reason=reason) for reason in ("password", "locked_out")}
    unknown = site.watch.value(name, door="gate", reason="unknown_user")
    lockouts = site.watch.value("fleetgate_lockouts_total", kind="login")
    for _ in range(count):
        with Wire(site.plain) as wire:
            assert wire.connect(own.client_id, own.username, WRONG) != 0
    with Wire(site.plain) as wire:
        assert wire.connect(own.client_id, "nobody-at-all", WRONG) != 0
    site.watch.await_value(lambda value: value == unknown + 1, name, door="gate", reason="unknown_user")
    site.watch.await_value(lambda value: value == before["password"] + 10, name, door="gate", reason="password")
    site.watch.await_value(lambda value: value == before["locked_out"] + 4, name, door="gate", reason="locked_out")
    site.watch.await_value(lambda value: value == lockouts + 1, "fleetgate_lockouts_total", kind="login")
    (row,) = site.await_audit("connect.locked_out", client_id=own.client_id)
    assert row["reason"] == "failures"


def test_a_locked_key_is_a_lockout(tmp_path: Path) -> None:
    """F-18: the wrong key too many is counted as a lockout of an activation key, once."""
    policy = {"key_failures_lock": 3, "key_failures_backoff": 3}
    site = WatchedSite(tmp_path / "installation", policy=policy)
    with site.running():
        site.account()
        with site.device(site.request("gw1", activation_key=True)) as device:
            for number in range(5):
                device.ask(f"m-{number}", activation_key="0" * 30)
        failures = {"action": "provision.key_failure", "outcome": "refused"}
        site.watch.await_value(lambda value: value == 2, "fleetgate_events_total", **failures)
        site.watch.await_value(lambda value: value == 1, "fleetgate_lockouts_total", kind="activation_key")


def test_open_connections_are_shown(site: WatchedSite, fresh_id: FreshId) -> None:
    """One that owes its CONNECT is a stranger, one that gave it is admitted."""
    own, name = site.request(fresh_id()), "fleetgate_connections"
    with Wire(site.plain):
        site.watch.await_value(lambda value: value == 1, name, door="gate", standing="stranger")
    with site.device(own):
        site.watch.await_value(lambda value: value == 1, name, door="gate", standing="admitted")
    site.watch.await_value(lambda value: value == 0, name, door="gate", standing="admitted")


def test_f_39_no_secret_and_no_device_is_in_a_metric(site: WatchedSite, fresh_id: FreshId) -> None:
    """F-39: after a walk and every kind of refusal neither a secret nor a client id, a username or an address is a
    label; there are as many series as before."""
    own = site.request(fresh_id(), activation_key=True)
    site.provision(own, broker="north")  # so that every series that a walk makes is there
    with Wire(site.plain, V311) as wire:
        wire.connect(own.client_id, "somebody-else", WRONG)
    site.watch.await_value(bool, "fleetgate_authentication_failures_total", door="gate", reason="unknown_user")
    series = set(site.watch.samples())
    search = Search()
    for number in range(20):
        other = site.request(fresh_id(), activation_key=True)
        site.provision(other, broker="north")
        with Wire(site.plain, V311) as wire:
            wire.connect(other.client_id, f"canary-user-{number}", WRONG)
        search.plant(f"password {number}", other.password)
        search.plant(f"key {number}", other.activation_key or "")
    site.await_audit("connect.refused", username="canary-user-19")
    text = site.watch.text()
    assert not search.in_text("metrics", text)
    for word in (own.client_id, other.client_id, other.username, "canary-user", WRONG, "127.0.0.1"):
        assert word not in text
    assert set(site.watch.samples()) == series


def test_health_and_readiness_of_a_healthy_service(site: WatchedSite) -> None:
    """Both are green, and readiness names what it looked at."""
    status, body = site.watch.ask("/healthz")
    assert (status, json.loads(body)["alive"]) == (200, True)
    status, said = site.watch.readiness()
    assert (status, said["ready"], said["red"]) == (200, True, {})
    assert set(said["green"]) == {"store", "gate", "account broker north", "account broker south"}
    assert site.watch.value("fleetgate_ready", part="store") == 1
    assert site.watch.value("fleetgate_account_broker_usable", broker="north") == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics/../admins.json", 404),
        ("POST", "/metrics", 405),
        ("GET", "/metrics?x=1", 200),
    ],
)
def test_there_is_nothing_else_at_this_door(site: WatchedSite, method: str, path: str, status: int) -> None:
    """Three pages that can be read."""
    assert site.watch.ask(path, method)[0] == status


def test_f_42_readiness_is_red_while_the_store_cannot_commit(own_site: WatchedSite) -> None:
    """F-42: a full disk makes the service unready, in words, while it lives on; green again by itself."""
    with own_site.running():
        own_site.account()
        own = own_site.request("gw1")
        assert own_site.process is not None
        process = psutil.Process(own_site.process.pid)
        before = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (64, before[1]))
        try:
            said = own_site.watch.await_readiness(503)
            assert not said["ready"]
            assert said["red"].keys() == {"store"}
            assert "gate" in said["green"]
            assert own_site.watch.value("fleetgate_ready", part="store") == 0
            assert own_site.watch.ask("/healthz")[0] == 200
            with own_site.device(own) as device:
                assert device.ask()["status"] == "busy"
            assert own_site.watch.value("fleetgate_store_failures_total", verb="commit") > 0
        finally:
            process.rlimit(psutil.RLIMIT_FSIZE, before)
        assert own_site.watch.await_readiness(200)["red"] == {}
        assert own_site.watch.value("fleetgate_ready", part="store") == 1
        own_site.provision(own)


def test_an_account_broker_that_is_not_used_is_named(inside: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one of two is out, the service is ready and says which one is red; where all are, it is not ready."""
    (port,) = free_ports(1)
    text = inside.config.read_text().replace("port: 'off'", f"port: {port}")
    inside.config.write_text(text)
    brokers = {"embedded": inside.embedded("embedded"), "second": inside.embedded("embedded")}
    monkeypatch.setattr(brokers["second"], "start", _nothing)
    service = inside.serve(monkeypatch, brokers)
    watch = Watch(port)
    service.platform.refused["embedded"] = "leaks"
    status, said = watch.readiness()
    assert (status, said["red"]) == (200, {"account broker embedded": "is not used: leaks"})
    service.platform.refused["second"] = "leaks"
    assert watch.readiness()[0] == 503
    assert watch.value("fleetgate_account_broker_usable", broker="second") == 0
    service.platform.refused.clear()
    assert watch.readiness()[0] == 200


async def _nothing(*_: object) -> None:
    pass


def test_an_account_broker_that_is_not_reached_is_red(inside: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that can tell whether it is reached is asked."""
    (port,) = free_ports(1)
    inside.config.write_text(inside.config.read_text().replace("port: 'off'", f"port: {port}"))
    broker = inside.embedded("embedded")
    broker.is_up = False  # type: ignore[attr-defined]  # as those have that are processes of their own
    inside.serve(monkeypatch, {"embedded": broker})
    assert Watch(port).readiness() == (
        503,
        {"ready": False, "red": {"account broker embedded": "is not reached"}, "green": ["store", "gate"]},
    )


def test_certificates_are_shown_by_the_days_they_have_left(own_site: WatchedSite) -> None:
    """A device's by a bucket, after the next count; the authority's and the gate's by their end, anew after SIGHUP."""
    with own_site.running():
        own_site.account(certificates="server-key")
        own_site.provision(own_site.request("gw1"))
        (device,) = own_site.listed("device.page")
    assert device["certificate_ends_at"] is not None
    with own_site.running():
        watch, name = own_site.watch, "fleetgate_certificate_end_timestamp_seconds"
        watch.await_value(lambda value: value == 1, "fleetgate_device_certificates", within_days=figures.LONGER)
        ends = watch.value(name, certificate="gate")
        assert ends > time.time() + 300 * 86_400
        assert watch.value(name, certificate="authority") > ends
        for file in ("tls/server.pem", "tls/server.key"):
            (own_site.folder / file).write_bytes((_other_site(own_site.folder) / file).read_bytes())
        assert own_site.process is not None
        own_site.process.send_signal(signal.SIGHUP)
        watch.await_value(lambda value: value != ends, name, certificate="gate")


def _other_site(folder: Path) -> Path:
    other = folder.parent / "other"
    if not other.exists():
        time.sleep(1.1)  # certificates end at a whole second
        run_cli("init", str(other))
    return other


def test_a_port_that_is_taken_is_told(site: WatchedSite, own_site: WatchedSite) -> None:
    """The service says which address it cannot have, and does not start half."""
    text = own_site.config.read_text().replace(f"port: {own_site.watch.port}", f"port: {site.watch.port}")
    own_site.config.write_text(text)
    with pytest.raises(ServiceDied, match=rf"metrics cannot be offered on 127\.0\.0\.1:{site.watch.port}"):
        own_site.start()


def test_the_port_is_in_the_status(site: WatchedSite) -> None:
    """So that a free port that was asked for is found."""
    assert site.ask("status")["metrics_port"] == site.watch.port


BUILD_ONLY = """
import asyncio, sys
from pathlib import Path
from provisioner import app, config

async def build():
    service = await app.build(config.read(Path(sys.argv[1])), Path(sys.argv[1]).parent)
    await service.platform.store.close()
    service.platform.passwords.close()

asyncio.run(build())
print(*(name for name in sys.modules if name.split(".")[0] == "prometheus_client" or name.endswith(".watch")))
"""


@pytest.mark.parametrize("port", ["off", "0"])
def test_p_10_nothing_of_metrics_is_loaded_where_they_are_off(tmp_path: Path, port: str) -> None:
    """A service without metrics has not even imported what they are made with."""
    run_cli("init", str(tmp_path))
    config = tmp_path / "fleetgate.yaml"
    config.write_text(config.read_text().replace("port: 9464", f"port: {port}"))
    done = subprocess.run(
        [sys.executable, "-c", BUILD_ONLY, str(config)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert bool(done.stdout.split()) is (port != "off")


@pytest.mark.parametrize(("port", "expected"), [(9464, 9466), ("off", None), (False, None), (0, 0)])
def test_each_worker_has_a_port_of_its_own(port: object, expected: int | None) -> None:
    """One after the other from the one that is set; off and a free port stay what they are."""
    settings = MetricsSettings.model_validate({"port": port})
    assert settings.of_worker(3).port == expected
