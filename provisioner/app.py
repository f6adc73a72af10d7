"""The one place that builds: from settings to a running service, read from top to bottom in one go."""

import asyncio
import contextlib
import gc
import logging
import signal
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.gate import Gate
from provisioner.authority.local_ca import LocalAuthority
from provisioner.brokers import broker_urls, build_brokers, server_certificates, start_broker
from provisioner.config import Settings
from provisioner.dialects.esf import Esf, EsfSettings
from provisioner.dialects.json_v1 import JsonV1
from provisioner.doors.control import Control
from provisioner.doors.installation import read_admins
from provisioner.fronts import AdminFront, ProvisionFront
from provisioner.gate_setup import admin_gate, device_gate, doors, public_ports
from provisioner.link_front import LinkFront
from provisioner.link_settings import speaks
from provisioner.many_gates import Sole, attend, following_of, gates_on, sole_brokers
from provisioner.model.errors import Unavailable
from provisioner.model.observer import NOBODY
from provisioner.model.ports import AccountBroker, Dialect, Shared
from provisioner.own_certificate import OwnCertificate
from provisioner.services.accounts import Accounts
from provisioner.services.clockwatch import watch_clock
from provisioner.services.confirmation import Confirmation
from provisioner.services.devices import Devices
from provisioner.services.effects import Effects
from provisioner.services.epochwatch import watch_epoch
from provisioner.services.following import Following
from provisioner.services.gaps import Gaps
from provisioner.services.journal import AuditTrail
from provisioner.services.observing import EventLog, Observers, observed
from provisioner.services.platform import Platform
from provisioner.services.proving import Proving
from provisioner.services.provisioning import Provisioning
from provisioner.services.requests import Requests
from provisioner.services.stand_ins import StandIns
from provisioner.store_places import open_usable
from provisioner.vault.keyring import KeyRing
from provisioner.vault.passwords import Passwords
from provisioner.watching import metrics_of, watch_door

if TYPE_CHECKING:
    from provisioner.doors.watch import WatchDoor
    from provisioner.links import LinkPlan

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The server's clock."""
    return datetime.now(UTC)


@dataclass(slots=True)
class Service:
    """A running installation. ``ports``: listener name -> port, for those who asked for a free one."""

    settings: Settings
    platform: Platform
    gate: Gate | LinkFront
    admin_gate: Gate
    effects: Effects
    confirmation: Confirmation
    proving: Proving
    certificate: OwnCertificate
    watch: "WatchDoor | None" = None
    following: Following | None = None
    sole: Sole | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _started_s: float = field(default_factory=time.monotonic)
    _gaps: Gaps = field(init=False)

    def __post_init__(self) -> None:
        confirmation = self.confirmation
        self._gaps = Gaps(self.platform, confirmation.seen, lambda: confirmation.waiting)

    async def start(self) -> None:
        """Finish what a crash left, then open the doors."""
        if self.watch is not None:
            await self.watch.start()
            self._tasks.append(asyncio.create_task(self.watch.run(), name="watch"))
        if self.sole is not None:
            await self.sole.take()
        if self.following is not None:
            await self.following.start()
        await self._start_brokers()
        if (logins := self.platform.link_logins) is not None:
            await logins.start()
            self._tasks.append(asyncio.create_task(logins.run(), name="logins"))
        for name, work in (
            *self._among_gates(),
            ("audit", self.platform.audit.run()),
            ("effects", self.effects.run()),
            ("confirmation", self.confirmation.run()),
            ("gaps", self._gaps.run()),
            ("clock", watch_clock(self.platform)),
            ("epoch", watch_epoch(self.platform)),
        ):
            self._tasks.append(asyncio.create_task(work, name=name))
        await self.gate.start()
        await self.admin_gate.start()
        self._tasks.append(asyncio.create_task(self.proving.run(), name="isolation"))
        _spare_the_collector()

    async def _start_brokers(self) -> None:
        """Those that have their users of us begin when they have all of them: who comes a moment earlier is not
        refused, but finds nobody there and tries again."""
        brokers = self.platform.brokers.values()
        for broker in brokers:
            if broker.capabilities().keeps_users:
                await start_broker(broker, self.settings, self._gaps.seen, self._gaps.begin)
        restored = await self.effects.restore()
        for broker in brokers:
            if not broker.capabilities().keeps_users:
                await start_broker(broker, self.settings, self._gaps.seen, self._gaps.begin)
        left = await self.effects.finish_left_over()
        log.info("restored %d account users, %d effects wait", restored, left)

    def _among_gates(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        if self.platform.gates is not None:
            yield "gates", self.platform.gates.run()
        if self.following is not None:
            yield "following", self.following.run()
        if self.sole is not None:
            yield "sole", self.sole.keep()

    async def stop(self) -> None:
        """Let answers that are being delivered finish, then close everything."""
        await asyncio.gather(self.gate.drain(self.settings.gate.drain_s), self.admin_gate.drain(1.0))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.effects.settle()
        await self.platform.audit.flush(close_windows=True)
        if self.watch is not None:
            await self.watch.stop()
        for broker in self.platform.brokers.values():
            await broker.stop()
        if self.sole is not None:
            await self.sole.let_go()
        await self.platform.store.close()
        self.platform.passwords.close()

    def reload_tls(self) -> None:
        """New connections to every server of ours see the renewed certificate; see ``OwnCertificate.renew``."""
        looks = () if self.watch is None else (self.watch.read_certificates,)
        self.certificate.renew(self.gate.reload_tls, self.admin_gate.reload_tls, *looks)

    @property
    def entries(self) -> Mapping[str, Gate | LinkFront]:
        return {"gate": self.gate, "admin": self.admin_gate}

    def failed(self) -> BaseException | None:
        """What ended a background task that should never end, if anything did."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                return task.exception() or RuntimeError(f"task {task.get_name()} ended")
        return None

    def status(self) -> Mapping[str, Any]:
        """What ``fleetgate status`` shows beside the store's own figures."""
        return {
            "uptime_s": round(time.monotonic() - self._started_s),
            "gate_ports": public_ports(self.gate.ports),
            "admin_port": self.admin_gate.ports.get("admin"),
            "metrics_port": self.watch.port if self.watch is not None else None,
            "connections": len(self.gate.connections()),
            **({"gates": self.platform.gates.living()} if self.platform.gates is not None else {}),
            **({"provision_link": self.gate.status()} if isinstance(self.gate, LinkFront) else {}),
        }


async def build(settings: Settings, base: Path, brokers: Mapping[str, AccountBroker] | None = None) -> Service:
    """Open all that the settings name, relative to ``base``. Raises InvalidInput or Unavailable, with nothing open.

    brokers: account brokers in place of those of the settings, by name."""
    ring = KeyRing.read(base / settings.key_ring)
    authority = LocalAuthority.read(base / settings.authority.certificate, base / settings.authority.key)
    certificate = OwnCertificate(settings, base)
    if brokers is None:
        brokers = build_brokers(settings, base, ring, certificate)
    dialects = _dialects(settings)
    link = _link(settings, base, dialects)
    metrics = metrics_of(settings, dialects)
    observer = Observers(EventLog(), metrics or NOBODY)
    # Late, for it takes the lock on the files.
    store, epoch = await open_usable(settings.store, base)
    passwords = Passwords(ring)
    async with contextlib.AsyncExitStack() as opened:
        opened.push_async_callback(store.close)
        opened.callback(passwords.close)
        platform = Platform(
            store=observed(store, observer),
            ring=ring,
            passwords=passwords,
            authority=authority,
            brokers=brokers,
            broker_urls=broker_urls(settings),
            dialects=dialects,
            policy=settings.policy,
            audit=AuditTrail(store, utc_now, time.monotonic, observer),
            now=utc_now,
            gates=None if link else gates_on(store),
            link_logins=link.logins(store) if link else None,
            observer=observer,
            epoch=epoch.number,
        )
        service = _assemble(settings, base, platform, link, certificate)
        service.sole = sole_brokers(settings, base, store) if isinstance(store, Shared) else None
        service.watch = watch_door(settings, base, platform, metrics, service.entries)
        opened.pop_all()  # what was opened is the service's to close
        return service


def _assemble(
    settings: Settings, base: Path, platform: Platform, link: "LinkPlan | None", certificate: OwnCertificate
) -> Service:
    effects = Effects(platform)
    provisioning = Provisioning(platform, effects)
    stand_ins = StandIns()
    confirmation, following = Confirmation(platform, effects), None
    gate: Gate | LinkFront
    if link:
        gate = link.front(platform, provisioning, stand_ins)
    else:
        front = ProvisionFront(platform, provisioning, stand_ins)
        gate = device_gate(settings, base, front)
        if platform.gates is not None:
            attend(platform.gates, gate, front)
            following = following_of(platform, platform.gates, effects, gate, confirmation)
    cut = gate.kick if following is None else following.cut
    proving = Proving(
        platform,
        stand_ins,
        gate_doors=lambda trusted: doors(settings.gate, gate.ports, trusted),
        trusted=lambda: (platform.authority.pem, *server_certificates(settings, base)),
        control_prefix=settings.esf.control_prefix,
        usable_again=effects.catch_up,
        at_start=settings.selftest_at_start,
        instead=link.instead_of_gate(platform, stand_ins) if link else None,
    )
    service_status: dict[str, Service] = {}
    control = Control(
        platform=platform,
        accounts=Accounts(platform, effects, cut, reserved=_reserved(settings.esf)),
        requests=Requests(platform, effects, cut),
        devices=Devices(platform, effects, cut),
        status=lambda: service_status["service"].status(),
        proving=proving,
    )
    desk = _desk(settings, base, platform, control)
    service = Service(settings, platform, gate, desk, effects, confirmation, proving, certificate, following=following)
    service_status["service"] = service
    return service


def _desk(settings: Settings, base: Path, platform: Platform, control: Control) -> Gate:
    admins = read_admins(base / settings.admin.credentials)
    return admin_gate(settings, base, AdminFront(platform, control, admins, platform.ring))


def _reserved(esf: EsfSettings) -> frozenset[str]:
    return frozenset((esf.provision_account, esf.control_prefix.strip("$")))


def _dialects(settings: Settings) -> list[Dialect]:
    known: tuple[Dialect, ...] = (JsonV1(), Esf(settings.esf))
    return [each for each in known if speaks(settings.provision_link, each.name)]


def _link(settings: Settings, base: Path, dialects: Sequence[Dialect]) -> "LinkPlan | None":
    """None: our own gate, and nothing of a link is even loaded."""
    if settings.provision_link.kind == "gate":
        return None
    from provisioner.links import plan_link

    return plan_link(settings, base, dialects)


def _spare_the_collector() -> None:
    """What was loaded by now stays; looking through it again and again costs a tenth of a device's CPU time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


async def _start(service: Service) -> None:
    """Raises Unavailable when a port is taken or an address is not this host's."""
    try:
        await service.start()
    except OSError as error:
        raise Unavailable(error.strerror or type(error).__name__) from None


async def serve(
    settings: Settings, base: Path, *, ready: Any = None, alive: Any = None, parent: int | None = None
) -> None:
    """Run until SIGTERM or SIGINT. SIGHUP takes renewed TLS files. ready: called once the doors are open.

    alive: called every second after that, as long as nothing failed.
    parent: a descriptor that can be read from when the parent is gone; then it ends as well."""
    service = await build(settings, base)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if parent is not None:
        loop.add_reader(parent, stop.set)
    loop.add_signal_handler(signal.SIGHUP, service.reload_tls)
    try:
        await _start(service)
        if ready is not None:
            ready(service)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1.0)
            if (error := service.failed()) is not None:
                raise error
            if alive is not None:
                alive()
    finally:
        await service.stop()
