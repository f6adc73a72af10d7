"""An account broker with its server, and the devices that a test brings before it."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from provisioner.model.ports import AccountBroker, BrokerUser, Gap, Sighting
from provisioner.model.secret import Secret
from tests.contracts.mqtt_device import Device

CUT_S: Final = 2.0  # F-08
REFUSED: Final = frozenset({"Not authorized", "Bad user name or password", "closed"})
T = TypeVar("T")


def digest(password: str) -> str:
    """Stands in for the vault, whose digests no broker looks into."""
    return f"digest-of-{password[::-1]}"


def verify(verifier: str | None, secret: Secret, user_id: str) -> bool:
    return verifier == digest(secret.reveal())


class LoopThread:
    """An event loop of its own thread, for servers that tests drive from outside."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop or asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=20)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@dataclass
class Stage:
    """A running broker, the loop it runs on, and everybody who connects to it."""

    broker: AccountBroker
    address: tuple[str, int]
    loop: LoopThread
    sightings: list[Sighting]
    ca_file: Path | None = None
    devices: list[Device] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def put(self, user: BrokerUser) -> BrokerUser:
        self.loop.run(self.broker.put_user(user))
        return user

    def device(self, client_id: str, username: str | None, password: str | None, **more: Any) -> Device:
        device = Device(self.address, client_id, username, password, ca_file=self.ca_file, **more)
        self.devices.append(device)
        return device

    def of(self, user: BrokerUser, client_id: str | None = None, **more: Any) -> Device:
        assert user.password is not None
        return self.device(client_id or user.client_id, user.username, user.password.reveal(), **more)

    def seen(self, client_id: str) -> list[bool]:
        return [sighting.connected for sighting in self.sightings if sighting.client_id == client_id]


@contextmanager
def closing_devices(stage: Stage) -> Iterator[Stage]:
    try:
        yield stage
    finally:
        for device in stage.devices:
            device.close()


def user(number: int, **changes: Any) -> BrokerUser:
    """User number n of account acme, made for client id ``gw<n>``."""
    password = f"Pass-word-{number}"
    made = BrokerUser(
        account="acme",
        username=f"user-{number}",
        client_id=f"gw{number}",
        verifier=digest(password),
        password=Secret(password),
    )
    return replace(made, **changes)
