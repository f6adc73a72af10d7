"""F-42: the service on a store of each kind that stops taking writes: devices wait, nothing is torn, all goes on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg.sql as sql
import pytest

from provisioner.doors.control_client import Refused
from tests.support.bad_disk import FLUSHES, FULL, READ_ONLY, BadDisk
from tests.support.installation import Installation
from tests.support.ports import free_ports
from tests.support.stores import StoreSite, empty_site
from tests.support.watching import Watch

Make = Callable[..., Installation]
CASES = [("tinydb", FLUSHES), ("sqlite", FLUSHES), ("sqlite", FULL), ("sqlite", READ_ONLY), ("postgresql", READ_ONLY)]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps the store from being written to, from ``begin`` to ``end``. environment: the service's."""

    environment: Mapping[str, str]
    begin: Callable[[], None]
    end: Callable[[], None]


def on_disk(folder: Path, fault: str) -> Trouble:
    disk = BadDisk(folder)
    return Trouble(disk.environment, lambda: disk.fail(fault), disk.recover)


def on_server(store: StoreSite, request: pytest.FixtureRequest) -> Trouble:
    """The database takes no writes any more, as when its server was made a standby."""
    server, database = request.getfixturevalue("postgres"), store.settings["database"]

    def set_to(value: bool) -> None:
        statement = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
        server.administer(statement.format(sql.Identifier(database), sql.Literal(value)))
        server.cut_connections(database)

    return Trouble({}, lambda: set_to(True), lambda: set_to(False))


@pytest.mark.parametrize(("kind", "fault"), CASES)
def test_f_42_devices_wait_while_the_store_takes_no_writes(
    make_installation: Make, request: pytest.FixtureRequest, tmp_path: Path, kind: str, fault: str
) -> None:
    """F-42: a device is told ``busy`` and an administrator that it is unavailable, readiness is red; afterwards the
    same question is answered, with one user, and nothing of what was refused is there, not even after kill -9."""
    (port,) = free_ports(1)
    store = empty_site(kind, tmp_path / "store", request)
    installation = make_installation(store=store.settings, metrics={"host": "127.0.0.1", "port": port})
    trouble = on_disk(tmp_path, fault) if kind != "postgresql" else on_server(store, request)
    watch, wanted = Watch(port), {"account": "acme", "client_id": "late", "username": "user-late"}
    with installation.running(**trouble.environment):
        installation.account()
        credentials = installation.request(activation_key=True)
        watch.await_readiness(200)
        trouble.begin()
        with installation.device(credentials) as device:
            for _ in range(2):
                answer = device.ask("m-1")
                assert answer.keys() == {"request_id", "status", "server_time", "retry_after_s"}
                assert answer["status"] == "busy"
            with pytest.raises(Refused) as refused:
                installation.ask("request.create", fields=wanted)
            assert refused.value.kind == "unavailable"
            assert watch.await_readiness(503)
            trouble.end()
            watch.await_readiness(200)
            answer = until_answered(device)
            device.acknowledge("m-1")
        with installation.account_wire(answer):
            installation.await_state(credentials.client_id, "confirmed")
        installation.kill()
    with installation.running(**trouble.environment):
        assert installation.users_of(credentials.client_id) == [answer["username"]]
        assert [each["client_id"] for each in installation.listed("request.page")] == [credentials.client_id]
        assert len(installation.audit("provision.granted")) == 1
        assert installation.ask("fsck") == {"findings": []}


def until_answered(device: Any) -> Mapping[str, Any]:
    """The answer to the question that was asked before, which may be busy for a moment still."""
    for _ in range(100):
        answer: Mapping[str, Any] = device.ask("m-1")
        if answer["status"] != "busy":
            assert answer["status"] == "provisioned"
            return answer
    raise AssertionError("busy, though the store takes writes again")
