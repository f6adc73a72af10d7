"""The administrators' door over a real store in a folder, with an account broker that only remembers."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioner.authority.local_ca import LocalAuthority
from provisioner.dialects.json_v1 import JsonV1
from provisioner.doors.control import Control
from provisioner.model.capabilities import Capabilities
from provisioner.model.errors import Unavailable
from provisioner.model.messages import Answer, ProvisionMessage, Status
from provisioner.model.policy import Policy
from provisioner.model.ports import BrokerUser, Gap, Sighting, heedless
from provisioner.model.request import ProvisionRequest
from provisioner.model.secret import Secret
from provisioner.services.accounts import Accounts
from provisioner.services.confirmation import Confirmation
from provisioner.services.devices import Devices
from provisioner.services.effects import Effects
from provisioner.services.journal import AuditTrail
from provisioner.services.platform import Platform
from provisioner.services.provisioning import Asker, Provisioning
from provisioner.services.requests import Requests
from provisioner.store.tinydb_store import TinyDbStore
from provisioner.vault.keyring import KeyRing, new_ring_text
from provisioner.vault.passwords import Passwords

ADMIN = "admin:ada"
BROKER = "local"
PROVISION_ACCOUNT = "provision"


class RememberingBroker:
    """An account broker without a server. reachable: set it to False, and every verb raises Unavailable."""

    def __init__(self) -> None:
        self.reachable = True
        self.known: dict[tuple[str, str], BrokerUser] = {}
        self.kicked: list[tuple[str, str]] = []

    @property
    def name(self) -> str:
        return BROKER

    def capabilities(self) -> Capabilities:
        return Capabilities(kicks=True, reports_sightings=True, refuses_subscribe=True, mqtt5=True)

    async def start(self, seen: Callable[[Sighting], None], gap: Callable[[Gap], None] = heedless) -> None:
        self._check()

    async def stop(self) -> None:
        self.known.clear()

    async def put_user(self, user: BrokerUser) -> None:
        self._check()
        self.known[user.account, user.username] = user

    async def remove_user(self, account: str, username: str) -> None:
        self._check()
        self.known.pop((account, username), None)

    async def kick(self, account: str, client_id: str) -> bool:
        self._check()
        self.kicked.append((account, client_id))
        return any(user.account == account and user.client_id == client_id for user in self.known.values())

    async def users(self) -> Sequence[tuple[str, str]]:
        self._check()
        return sorted(self.known)

    def _check(self) -> None:
        if not self.reachable:
            raise Unavailable("the account broker is away")


class NotDone(Exception):
    """The door answered with an error: ``error`` is it."""

    def __init__(self, error: dict[str, Any]) -> None:
        self.error = error
        super().__init__(f"{error['kind']}: {error['message']}")


@dataclass(slots=True)
class Desk:
    """cuts: requests whose connection at the gate was to be closed."""

    control: Control
    platform: Platform
    broker: RememberingBroker
    effects: Effects
    cuts: list[str] = field(default_factory=list)

    async def ask(self, verb: str, **params: Any) -> Any:
        """The verb's result; NotDone carries the error."""
        answer = json.loads(
            await self.control.answer(ADMIN, json.dumps({"id": "1", "verb": verb, "params": params}).encode())
        )
        assert answer["id"] == "1"
        if not answer["ok"]:
            raise NotDone(answer["error"])
        return answer["result"]

    async def account(self, name: str = "acme") -> None:
        await self.ask("account.create", fields={"name": name, "broker": BROKER})

    async def request(self, client_id: str = "gw1", **fields: Any) -> dict[str, Any]:
        wanted = {"account": "acme", "client_id": client_id, "username": f"user-{client_id}", **fields}
        made = await self.ask("request.create", fields=wanted)
        assert isinstance(made, dict)
        return made

    async def grant(self, made: dict[str, Any], serial_number: str = "S") -> Answer:
        """The device of that request asks at the gate, and is provisioned."""
        key = made["secrets"].get("activation_key")
        message = ProvisionMessage(
            message_id="m-1",
            dialect="json-v1",
            activation_key=Secret(key) if key else None,
            device={"serial_number": serial_number},
        )
        asker = Asker(made["id"], made["client_id"], made["username"], "192.0.2.1", contended=False)
        answer = await Provisioning(self.platform, self.effects).handle(asker, message)
        assert answer is not None
        assert answer.status is Status.PROVISIONED
        await self.effects.settle()
        return answer

    async def confirm(self, answer: Answer) -> None:
        """That device is seen at its account broker."""
        given = answer.delivery
        assert given is not None
        sighting = Sighting(
            account=given.account, username=given.username, client_id=given.client_id, address="192.0.2.1"
        )
        await Confirmation(self.platform, self.effects).note([sighting])


def utc_now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def open_desk(
    folder: Path,
    now: Callable[[], datetime] = utc_now,
    status: Callable[[], Mapping[str, Any]] = lambda: {"uptime_s": 7},
    requests_max: int = 100,
) -> AsyncIterator[Desk]:
    """A platform that has nothing in it yet."""
    ring_file = folder / "ring.json"
    ring_file.write_text(new_ring_text())
    ring_file.chmod(0o600)
    ring = KeyRing.read(ring_file)
    store = await TinyDbStore.open(folder / "data", requests_max=requests_max)
    broker, passwords = RememberingBroker(), Passwords(ring)
    platform = Platform(
        store=store,
        ring=ring,
        passwords=passwords,
        authority=LocalAuthority.create("test authority", utc_now()),
        brokers={BROKER: broker},
        broker_urls={BROKER: "mqtts://broker.example:8883"},
        dialects=(JsonV1(),),
        policy=Policy(),
        audit=AuditTrail(store, now, lambda: 0.0),
        now=now,
    )
    effects = Effects(platform)
    cuts: list[str] = []
    control = Control(
        platform=platform,
        accounts=Accounts(platform, effects, cuts.append, reserved=frozenset((PROVISION_ACCOUNT, "EDC"))),
        requests=Requests(platform, effects, cuts.append),
        devices=Devices(platform, effects, cuts.append),
        status=status,
    )
    try:
        yield Desk(control, platform, broker, effects, cuts)
    finally:
        await effects.settle()
        await store.close()
        passwords.close()


def at_desk(test: Callable[[Desk], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    """Run an asynchronous test on a desk of its own, with an account."""

    def run(tmp_path: Path) -> None:
        async def opened() -> None:
            async with open_desk(tmp_path) as desk:
                await desk.account()
                await test(desk)

        asyncio.run(opened())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def refused(asking: Coroutine[Any, Any, Any]) -> dict[str, Any]:
    """The error that the door answered with."""
    with pytest.raises(NotDone) as caught:
        await asking
    return caught.value.error


async def stored(desk: Desk) -> tuple[int, int]:
    """How many requests there are, and how long the audit log is."""
    rows = await desk.platform.store.audit_page(limit=1, newest_first=True)
    return await desk.platform.store.count(ProvisionRequest), rows[0].seq if rows else 0


async def every(desk: Desk, verb: str, **params: Any) -> list[dict[str, Any]]:
    """All items of a listing, page after page."""
    items, after = [], None
    while True:
        page = await desk.ask(verb, after=after, **params)
        items += page["items"]
        if (after := page["after"]) is None:
            return items
