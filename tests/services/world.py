"""A platform in one process: the default store on a directory, an account broker in memory, a clock that is set."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from provisioner.authority.local_ca import LocalAuthority
from provisioner.dialects.json_v1 import JsonV1
from provisioner.model.account import Account
from provisioner.model.audit import AuditEvent
from provisioner.model.capabilities import Capabilities
from provisioner.model.coupling import may_connect
from provisioner.model.device import Device
from provisioner.model.effect import Effect
from provisioner.model.errors import Conflict, Unavailable
from provisioner.model.messages import Answer, Delivery, ProvisionMessage, Status
from provisioner.model.policy import Policy
from provisioner.model.ports import BrokerUser, Gap, Noun, Sighting, Unit, heedless
from provisioner.model.request import ProvisionRequest
from provisioner.model.secret import Secret
from provisioner.model.user import AccountUser, ProvisionUser, account_user_id
from provisioner.services.accounts import Accounts
from provisioner.services.confirmation import Confirmation
from provisioner.services.devices import Devices
from provisioner.services.effects import Effects
from provisioner.services.journal import AuditTrail
from provisioner.services.platform import USER_PURPOSE, Platform
from provisioner.services.provisioning import Asker, Provisioning
from provisioner.services.request_making import Made
from provisioner.services.requests import Requests
from provisioner.store.tinydb_store import TinyDbStore
from provisioner.vault.keyring import KeyRing
from provisioner.vault.passwords import Passwords

ADA = "admin:ada"
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
AUTHORITY = LocalAuthority.create("Acme provisioning", NOON)
RING = KeyRing({"k1": b"\x01" * 32})
NOUNS: tuple[type[Noun], ...] = (Account, ProvisionUser, ProvisionRequest, Device, AccountUser, Effect)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now, self.monotonic_s = NOON, 0.0

    def move(self, span: timedelta) -> None:
        self.now += span
        self.monotonic_s += span.total_seconds()


class WatchedStore(TinyDbStore):
    """The default store, that shows what was committed and can be got in the way of."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.units: list[Unit] = []
        self.before_commit: Callable[[Unit], Awaitable[None]] | None = None

    async def commit(self, unit: Unit) -> int:
        if self.before_commit is not None:
            await self.before_commit(unit)
        seq = await super().commit(unit)
        self.units.append(unit)
        return seq


class MemoryBroker:
    """An account broker as the port wants it, that lets devices in by what it was told. Can be made unavailable."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.known: dict[str, BrokerUser] = {}
        self.live: dict[tuple[str, str], str] = {}  # (account, client id) -> username
        self.available = True
        self.conflicts = False
        self.client_ids_shared = False
        self.puts = 0
        self.before_put: Callable[[], Awaitable[None]] | None = None
        self._seen: Callable[[Sighting], None] = lambda _: None

    def capabilities(self) -> Capabilities:
        return Capabilities(
            kicks=True,
            reports_sightings=True,
            refuses_subscribe=True,
            mqtt5=True,
            client_ids_shared=self.client_ids_shared,
        )

    async def start(self, seen: Callable[[Sighting], None], gap: Callable[[Gap], None] = heedless) -> None:
        self._seen = seen

    async def stop(self) -> None:
        self.live.clear()

    async def put_user(self, user: BrokerUser) -> None:
        if self.before_put is not None:
            await self.before_put()
        self._check_available()
        if self.conflicts:
            raise Conflict("somebody else is there")
        self.puts += 1
        id = account_user_id(user.account, user.username)
        before = self.known.get(id)
        if user.password is None and before is not None:
            user = replace(user, password=before.password)
        self.known[id] = user
        if not user.enabled:
            self._cut(user.account, user.username)

    async def remove_user(self, account: str, username: str) -> None:
        self._check_available()
        self.known.pop(account_user_id(account, username), None)
        self._cut(account, username)

    async def kick(self, account: str, client_id: str) -> bool:
        self._check_available()
        return self.live.pop((account, client_id), None) is not None

    async def users(self) -> Sequence[tuple[str, str]]:
        self._check_available()
        return [(user.account, user.username) for user in self.known.values()]

    def connect(self, delivery: Delivery, client_id: str | None = None) -> bool:
        """What a device does with its delivery: whether the broker lets it in, and is seen doing so."""
        client_id = client_id or delivery.client_id
        id = account_user_id(delivery.account, delivery.username)
        user = self.known.get(id)
        if user is None or not user.enabled or not RING.verify(user.verifier, delivery.password, USER_PURPOSE, id):
            return False
        mates = [other for other in self.known.values() if other.account == user.account]
        owner = next((other for other in mates if other.client_id == client_id), None)
        if may_connect(user, client_id, owner) is not None:
            return False
        self.live[user.account, client_id] = user.username
        self._seen(Sighting(account=user.account, username=user.username, client_id=client_id, address="192.0.2.7"))
        return True

    def _cut(self, account: str, username: str) -> None:
        self.live = {key: user for key, user in self.live.items() if (key[0], user) != (account, username)}

    def _check_available(self) -> None:
        if not self.available:
            raise Unavailable(f"account broker {self.name} is away")


@dataclass(frozen=True, kw_only=True)
class World:
    """The services over one platform, and shortcuts for what tests do with them."""

    directory: Path
    clock: Clock
    store: WatchedStore
    platform: Platform
    broker: MemoryBroker
    other_broker: MemoryBroker
    effects: Effects
    provisioning: Provisioning
    confirmation: Confirmation
    accounts: Accounts
    requests: Requests
    devices: Devices
    cut: list[str]

    async def account(self, name: str = "acme", **fields: Any) -> Account:
        return await self.accounts.create(ADA, {"name": name, "broker": "local", **fields})

    async def request(self, client_id: str = "gw1", **fields: Any) -> Made:
        """A request of account acme with a provision user of its own, unless told otherwise."""
        raw = {"account": "acme", "client_id": client_id, "username": f"user-{client_id}", **fields}
        return await self.requests.create(ADA, raw)

    async def ask(
        self,
        made: Made,
        message_id: str = "m1",
        *,
        key: Secret | str | None = None,
        csr: str | None = None,
        device: Mapping[str, object] | None = None,
        by_birth: bool = False,
        contended: bool = False,
    ) -> Answer | None:
        """What the platform answers to one provision message of the request's device."""
        request = made.request
        message = ProvisionMessage(
            message_id=message_id,
            dialect="json_v1",
            activation_key=Secret(key) if isinstance(key, str) else key,
            csr=csr,
            device=device or {},
            by_birth=by_birth,
        )
        asker = Asker(request.id, request.client_id, request.username, "192.0.2.7", contended)
        return await self.provisioning.handle(asker, message)

    async def status(self, made: Made, message_id: str = "m1", **asked: Any) -> Status:
        answer = await self.ask(made, message_id, **asked)
        assert answer is not None
        return answer.status

    async def granted(self, made: Made, message_id: str = "m1", **asked: Any) -> Delivery:
        """The delivery of an ask that must be granted."""
        answer = await self.ask(made, message_id, **asked)
        assert answer is not None
        assert answer.delivery is not None, answer
        return answer.delivery

    async def confirmed(self, made: Made, message_id: str = "m1", **asked: Any) -> Delivery:
        """Provisioned, and seen on the account broker."""
        delivery = await self.granted(made, message_id, **asked)
        await self.seen(delivery)
        return delivery

    async def seen(self, delivery: Delivery, **changes: Any) -> None:
        sighting = Sighting(
            account=delivery.account,
            username=delivery.username,
            client_id=delivery.client_id,
            address="192.0.2.7",
        )
        await self.confirmation.note([replace(sighting, **changes)])

    async def stored(self, made: Made) -> ProvisionRequest:
        return await self.requests.show(made.request.id)

    async def device(self, client_id: str = "gw1") -> Device:
        return await self.devices.find(client_id)

    async def counts(self) -> dict[str, int]:
        """How many records of each kind there are, and how many audit rows."""
        counts = {noun.kind: await self.store.count(noun) for noun in NOUNS}
        return counts | {"audit": len(await self.audit())}

    async def audit(self, action: str | None = None) -> list[AuditEvent]:
        """The audit log so far, what still waits included."""
        await self.platform.audit.flush(close_windows=True)
        rows: list[AuditEvent] = []
        while page := await self.store.audit_page(after=rows[-1].seq if rows else 0, limit=1000):
            rows += page
        return [row for row in rows if action in (None, row.action)]

    async def reasons(self, action: str = "provision.refused") -> list[str | None]:
        return [row.reason for row in await self.audit(action)]


async def opened(directory: Path, policy: Policy | None = None, *, epoch: int = 1) -> World:
    """A world on the store in ``directory``; with brokers that know nothing yet, as after a start."""
    clock, cut = Clock(), list[str]()
    store = await WatchedStore.open(directory)
    brokers = {name: MemoryBroker(name) for name in ("local", "other")}
    platform = Platform(
        store=store,
        ring=RING,
        passwords=Passwords(RING),
        authority=AUTHORITY,
        brokers=brokers,
        broker_urls={name: f"mqtts://{name}.example:8883" for name in brokers},
        dialects=(JsonV1(),),
        policy=policy or Policy(),
        audit=AuditTrail(store, lambda: clock.now, lambda: clock.monotonic_s),
        now=lambda: clock.now,
        epoch=epoch,
    )
    effects = Effects(platform)
    world = World(
        directory=directory,
        clock=clock,
        store=store,
        platform=platform,
        broker=brokers["local"],
        other_broker=brokers["other"],
        effects=effects,
        provisioning=Provisioning(platform, effects),
        confirmation=Confirmation(platform, effects),
        accounts=Accounts(platform, effects, cut.append, reserved=frozenset(("provision", "EDC"))),
        requests=Requests(platform, effects, cut.append),
        devices=Devices(platform, effects, cut.append),
        cut=cut,
    )
    for broker in brokers.values():
        await broker.start(world.confirmation.seen)
    return world


async def closed(world: World) -> None:
    await world.effects.settle()
    await world.store.close()
    world.platform.passwords.close()


def in_world(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test with a fresh world, its first argument, in which account acme exists.

    A keyword ``policy`` among its parameters is the policy of the world."""

    @functools.wraps(test)
    def run(tmp_path: Path, **params: Any) -> None:
        async def scenario() -> None:
            world = await opened(tmp_path / "store", params.get("policy"))
            try:
                await world.account()
                await test(world, **params)
            finally:
                await closed(world)

        asyncio.run(scenario())

    signature = inspect.signature(test)
    others = [parameter for name, parameter in signature.parameters.items() if name != "world"]
    tmp_path = inspect.Parameter("tmp_path", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = signature.replace(parameters=[tmp_path, *others])  # type: ignore[attr-defined]  # as pytest reads
    return run


def a_csr(key: ec.EllipticCurvePrivateKey | None = None) -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
