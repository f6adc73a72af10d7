"""`gate.workers` on a real PostgreSQL: one installation, several gates on the same ports (D12)."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from provisioner.config import Settings
from tests.support.device import JsonDevice
from tests.support.installation import Installation, ServiceDied
from tests.support.many_gates import on_postgres
from tests.support.ports import free_ports
from tests.support.postgres import PostgresServer

WORKERS = 2
DEADLINE_S = 15.0


def asking(**changes: Any) -> dict[str, Any]:
    """Settings of an account broker that would ask, if it were there."""
    callback, port = free_ports(2)
    own = {"name": "rabbit", "kind": "http-callback", "product": "rabbitmq", "url_host": "127.0.0.1", "tls": False}
    return own | {"port": port, "callback_port": callback} | changes


@pytest.fixture
def site(tmp_path: Path, postgres: PostgresServer) -> Iterator[Installation]:
    made = on_postgres(tmp_path / "site", postgres, account_brokers=[asking()], gate={"workers": WORKERS})
    with made.running():
        until(lambda: len(living(made)) == WORKERS, "both workers are there")
        made.account("acme", "rabbit")
        yield made


def until(condition: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until_s, f"did not happen in time: {what}"
        time.sleep(0.02)


def living(site: Installation) -> list[str]:
    return [gate["name"] for gate in site.ask("status")["gates"]]


def workers(site: Installation) -> list[int]:
    assert site.process is not None
    return [child.pid for child in psutil.Process(site.process.pid).children()]


def test_d12_the_parent_says_for_its_workers_that_they_live(tmp_path: Path, postgres: PostgresServer) -> None:
    """systemd hears it alone: READY once there is a worker whose doors are open, then a sign about every second."""
    made = on_postgres(tmp_path / "site", postgres, account_brokers=[asking()], gate={"workers": WORKERS})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(DEADLINE_S)
        with made.running(NOTIFY_SOCKET=channel.getsockname()):
            assert made.process is not None
            heard = [channel.recvmsg(100, socket.CMSG_SPACE(12)) for _ in range(4)]
            assert [each[0] for each in heard] == [b"READY=1", *[b"WATCHDOG=1"] * 3]
            assert {int.from_bytes(each[1][0][2][:4], sys.byteorder) for each in heard} == {made.process.pid}


def test_f_27_workers_serve_the_same_ports_and_one_may_die(site: Installation) -> None:
    """EC-37: devices come in at one port whichever worker takes them; a killed worker costs its connections alone and
    is there again; an administrator's verb reaches the device wherever it is; SIGTERM ends all."""
    for number in range(8):
        with JsonDevice(site.plain, site.request(f"dev-{number}")) as device:
            assert device.ask()["status"] == "provisioned"
    victim, *others = workers(site)
    assert len(others) == WORKERS - 1
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(workers(site)) == WORKERS and victim not in workers(site), "it is started again")
    until(lambda: len(living(site)) == WORKERS, "it is known to the other one")
    waiting = [JsonDevice(site.plain, site.request(f"late-{number}")) for number in range(8)]
    for device in waiting:
        site.ask("request.revoke", id=device.credentials.client_id)
    for device in waiting:
        with device:
            assert device.wire.is_cut(2.0)
    before = workers(site)
    assert site.stop() == 0
    assert not [pid for pid in before if psutil.pid_exists(pid)]


def test_the_selftest_looks_at_the_worker_that_was_asked(site: Installation) -> None:
    """Nobody can choose which worker a port leads to: each has doors of its own, which are no ports of the service."""
    with site.client() as one:
        one.ask("selftest", patience_s=60)
        status = one.ask("status")
    held = {name: each["result"] for name, each in status["isolation"].items() if name.startswith("gate ")}
    assert held == {"gate plain": "holds", "gate secure": "holds", "gate ws": "holds"}
    assert set(status["gate_ports"]) == {"plain", "secure", "ws"}


def test_d12_an_account_broker_for_one_process_is_used_by_one_gate(tmp_path: Path, postgres: PostgresServer) -> None:
    """A second gate on the same store does not start with it, and says why; it does once the first one is gone."""
    embedded = {"name": "embedded", "kind": "embedded", "port": free_ports(1)[0]}
    first = on_postgres(tmp_path / "first", postgres, account_brokers=[embedded])
    second = on_postgres(tmp_path / "second", postgres, account_brokers=[embedded])
    second.config.write_text(_with_store_of(first, second))
    (second.folder / "store.secret").write_bytes((first.folder / "store.secret").read_bytes())
    with first.running():
        with pytest.raises(ServiceDied, match=r"account_brokers\.embedded: is used by another gate on this store"):
            second.start()
        first.kill()
        first.start()


def _with_store_of(first: Installation, second: Installation) -> str:
    values = yaml.safe_load(second.config.read_text())
    values["store"] = yaml.safe_load(first.config.read_text())["store"]
    return str(yaml.safe_dump(values))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        (
            {"account_brokers": [{"name": "near", "kind": "embedded"}]},
            "account broker near of kind embedded serves one",
        ),
        ({"admin": {"port": 0}}, "none may be 0"),
        ({"gate": {"workers": 2, "listeners": [{"port": 0}]}}, "none may be 0"),
    ],
)
def test_d12_workers_are_told_what_they_cannot_share(changes: dict[str, Any], rule: str) -> None:
    """Free ports and account brokers of one process are refused with the field and the rule."""
    values = {"gate": {"workers": 2}, "store": {"kind": "postgresql"}, "account_brokers": [asking()]}
    Settings.model_validate(values)
    with pytest.raises(ValueError, match=f"gate.workers: .*{rule}"):
        Settings.model_validate(values | changes)
