"""The users of the contract under the names that mosquitto-files would rather have: ``<account>/<client id>``."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from provisioner.model.capabilities import Capabilities
from provisioner.model.ports import AccountBroker, BrokerUser, Gap, Sighting, heedless
from tests.contracts.account_broker_stage import LoopThread, closing_devices
from tests.contracts.mosquitto_stage import MosquittoStage
from tests.contracts.mqtt_device import Device
from tests.support.mosquitto import MosquittoServer


@dataclass
class NamedByHome:
    """An `AccountBroker` in front of another one: each user has its home's name there, and its own for the test."""

    behind: AccountBroker
    homes: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.behind.name

    def capabilities(self) -> Capabilities:
        return self.behind.capabilities()

    async def start(self, seen: Callable[[Sighting], None], gap: Callable[[Gap], None] = heedless) -> None:
        await self.behind.start(lambda sighting: seen(replace(sighting, username=self._own(sighting.username))))

    async def stop(self) -> None:
        await self.behind.stop()

    async def put_user(self, user: BrokerUser) -> None:
        home = self.capabilities().home_username(user.account, user.client_id)
        assert home is not None
        self.homes[user.username] = home
        await self.behind.put_user(replace(user, username=home))

    async def remove_user(self, account: str, username: str) -> None:
        await self.behind.remove_user(account, self.homes.get(username, username))

    async def kick(self, account: str, client_id: str) -> bool:
        return await self.behind.kick(account, client_id)

    async def users(self) -> Sequence[tuple[str, str]]:
        return [(account, self._own(username)) for account, username in await self.behind.users()]

    def _own(self, home: str) -> str:
        return next((own for own, each in self.homes.items() if each == home), home)


@dataclass
class HomeStage(MosquittoStage):
    homes: dict[str, str] = field(default_factory=dict)

    def device(self, client_id: str, username: str | None, password: str | None, **more: Any) -> Device:
        return super().device(client_id, self.homes.get(username or "", username), password, **more)


@contextmanager
def home_stage(settings: dict[str, object], base: Path) -> Iterator[HomeStage]:
    loop, sightings = LoopThread(), list[Sighting]()
    server = MosquittoServer(settings, base)
    try:
        with server:
            broker = NamedByHome(server.adapter())
            loop.run(broker.start(sightings.append))
            stage = HomeStage(broker, server.address, loop, sightings, server=server, homes=broker.homes)
            with closing_devices(stage):
                yield stage
            loop.run(broker.stop())
    finally:
        loop.close()
