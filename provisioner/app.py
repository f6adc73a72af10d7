"""The one place that builds: from settings to a running service, read from top to bottom in one go."""

import asyncio
import contextlib
import gc
import json
import logging
import signal
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.gate import Gate
from broker.limits import GateLimits
from broker.listener import Listener
from broker.proxies import Proxies
from broker.session_settings import SessionSettings
from broker.tls import TlsFiles
from provisioner.authority.local_ca import LocalAuthority
from provisioner.brokers import broker_urls, build_brokers, server_certificates
from provisioner.config import GateSettings, ListenerSettings, Settings
from provisioner.dialects.esf import Esf
from provisioner.dialects.json_v1 import JsonV1
from provisioner.doors.control import Control
from provisioner.fronts import AdminFront, ProvisionFront
from provisioner.link.probe import Door
from provisioner.link_front import LinkFront
from provisioner.link_settings import speaks
from provisioner.model.errors import InvalidInput, Problem
from provisioner.model.observer import NOBODY
from provisioner.model.ports import AccountBroker, Dialect
from provisioner.services.accounts import Accounts
from provisioner.services.clockwatch import watch_clock
from provisioner.services.confirmation import Confirmation
from provisioner.services.devices import Devices
from provisioner.services.effects import Effects
from provisioner.services.journal import AuditTrail
from provisioner.services.observing import EventLog, Observers, observed
from provisioner.services.platform import Platform
from provisioner.services.proving import Proving
from provisioner.services.provisioning import Provisioning
from provisioner.services.requests import Requests
from provisioner.services.stand_ins import StandIns
from provisioner.stores import open_store
from provisioner.vault.keyring import KeyRing
from provisioner.vault.passwords import Passwords
from provisioner.watching import metrics_of, watch_door

if TYPE_CHECKING:
    from provisioner.doors.watch import WatchDoor
    from provisioner.links import LinkPlan

log = logging.getLogger(__name__)

# An import travels in chunks and a listing in pages; both stay below these.
ADMIN_SESSION = SessionSettings(packet_bytes_max=4_194_304, unacknowledged_bytes_max=8_388_608)


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
    watch: "WatchDoor | None" = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _started_s: float = field(default_factory=time.monotonic)

    async def start(self) -> None:
        """Finish what a crash left, then open the doors."""
        if self.watch is not None:
            await self.watch.start()
            self._tasks.append(asyncio.create_task(self.watch.run(), name="watch"))
        for broker in self.platform.brokers.values():
            await broker.start(self.confirmation.seen)
        restored = await self.effects.restore()
        left = await self.effects.finish_left_over()
        if (logins := self.platform.link_logins) is not None:
            await logins.start()
            self._tasks.append(asyncio.create_task(logins.run(), name="logins"))
        log.info("restored %d account users, %d effects wait", restored, left)
        for name, work in (
            ("audit", self.platform.audit.run()),
            ("effects", self.effects.run()),
            ("confirmation", self.confirmation.run()),
            ("clock", watch_clock(self.platform)),
        ):
            self._tasks.append(asyncio.create_task(work, name=name))
        await self.gate.start()
        await self.admin_gate.start()
        self._tasks.append(asyncio.create_task(self.proving.run(), name="isolation"))
        _spare_the_collector()

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
        await self.platform.store.close()
        self.platform.passwords.close()

    def reload_tls(self) -> None:
        """See ``Gate.reload_tls``."""
        self.gate.reload_tls()
        if self.watch is not None:
            self.watch.read_certificates()

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
            "gate_ports": dict(self.gate.ports),
            "admin_port": self.admin_gate.ports.get("admin"),
            "metrics_port": self.watch.port if self.watch is not None else None,
            "connections": len(self.gate.connections()),
            **({"provision_link": self.gate.status()} if isinstance(self.gate, LinkFront) else {}),
        }


async def build(settings: Settings, base: Path, brokers: Mapping[str, AccountBroker] | None = None) -> Service:
    """Open everything that the settings name, relative to ``base``. Raises InvalidInput or Unavailable.

    brokers: account brokers in place of those of the settings, by name."""
    ring = KeyRing.read(base / settings.key_ring)
    authority = LocalAuthority.read(base / settings.authority.certificate, base / settings.authority.key)
    if brokers is None:
        brokers = build_brokers(settings, base, ring)
    known: tuple[Dialect, ...] = (JsonV1(), Esf(settings.esf))
    dialects = [each for each in known if speaks(settings.provision_link, each.name)]
    link = _link(settings, base, dialects)
    metrics = metrics_of(settings, dialects)
    observer = Observers(EventLog(), metrics or NOBODY)
    # Last, for it takes the lock on the files: what fails before leaves nothing open.
    store = await open_store(settings.store, base)
    platform = Platform(
        store=observed(store, observer),
        ring=ring,
        passwords=Passwords(ring),
        authority=authority,
        brokers=brokers,
        broker_urls=broker_urls(settings),
        dialects=dialects,
        policy=settings.policy,
        audit=AuditTrail(store, utc_now, time.monotonic, observer),
        now=utc_now,
        link_logins=link.logins(store) if link else None,
        observer=observer,
    )
    service = _assemble(settings, base, platform, link)
    entries = {"gate": service.gate, "admin": service.admin_gate}
    service.watch = watch_door(settings, base, platform, metrics, entries)
    return service


def _assemble(settings: Settings, base: Path, platform: Platform, link: "LinkPlan | None") -> Service:
    effects = Effects(platform)
    provisioning = Provisioning(platform, effects)
    stand_ins = StandIns()
    gate: Gate | LinkFront
    if link:
        gate = link.front(platform, provisioning)
    else:
        gate = _gate(settings, base, ProvisionFront(platform, provisioning, stand_ins))
    proving = Proving(
        platform,
        stand_ins,
        gate_doors=lambda trusted: _doors(settings.gate, gate.ports, trusted),
        trusted=lambda: (platform.authority.pem, *server_certificates(settings, base)),
        control_prefix=settings.esf.control_prefix,
        usable_again=effects.catch_up,
        at_start=settings.selftest_at_start,
    )
    reserved = frozenset((settings.esf.provision_account, settings.esf.control_prefix.strip("$")))
    service_status: dict[str, Service] = {}
    control = Control(
        platform=platform,
        accounts=Accounts(platform, effects, gate.kick, reserved=reserved),
        requests=Requests(platform, effects, gate.kick),
        devices=Devices(platform, effects, gate.kick),
        status=lambda: service_status["service"].status(),
        proving=proving,
    )
    admins = json.loads((base / settings.admin.credentials).read_text("utf-8"))
    admin_gate = Gate(
        AdminFront(platform, control, admins, platform.ring),
        [_admin_listener(base, settings)],
        GateLimits(session=ADMIN_SESSION),
    )
    service = Service(settings, platform, gate, admin_gate, effects, Confirmation(platform, effects), proving)
    service_status["service"] = service
    return service


def _link(settings: Settings, base: Path, dialects: Sequence[Dialect]) -> "LinkPlan | None":
    """None: our own gate, and nothing of a link is even loaded."""
    if settings.provision_link.kind == "gate":
        return None
    from provisioner.links import plan_link

    return plan_link(settings, base, dialects)


def _gate(settings: Settings, base: Path, front: ProvisionFront) -> Gate:
    return Gate(front, _listeners(base, settings.gate), _limits(settings.gate.limits))


def _doors(settings: GateSettings, ports: Mapping[str, int], trusted: ssl.SSLContext) -> dict[str, Door]:
    """Where the gate's listeners are reached from this host, by name: none while it does not listen, and none that
    takes proxies alone and this host for no proxy."""
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
    return {
        name: Door(
            host=anywhere.get(each.host, each.host),
            port=ports[name],
            tls=trusted if each.tls else None,
            path="/mqtt" if each.kind == "websocket" else None,
            proxied=each.proxy_protocol,
        )
        for each in settings.listeners
        if (name := _listener_name(each)) in ports and _takes_us(each, anywhere.get(each.host, each.host))
    }


def _takes_us(listener: ListenerSettings, host: str) -> bool:
    """Whether a connection of this host to itself may bring a PROXY header, where one is needed."""
    return not listener.proxy_protocol or Proxies(listener.trusted_proxies).trusts(host)


def _listener_name(settings: ListenerSettings) -> str:
    return settings.name or f"{settings.kind}{'s' if settings.tls else ''}-{settings.port}"


def _spare_the_collector() -> None:
    """What was loaded by now stays; looking through it again and again costs a tenth of a device's CPU time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def _listeners(base: Path, settings: GateSettings) -> list[Listener]:
    files = _files(base, settings)
    return [
        Listener(
            name=_listener_name(each),
            host=each.host,
            port=each.port,
            tls=files if each.tls else None,
            websocket=each.kind == "websocket",
            proxies=each.trusted_proxies if each.proxy_protocol else None,
        )
        for each in settings.listeners
    ]


def _admin_listener(base: Path, settings: Settings) -> Listener:
    files = _files(base, settings.gate) if settings.admin.tls else None
    return Listener(name="admin", host=settings.admin.host, port=settings.admin.port, tls=files)


def _files(base: Path, settings: GateSettings) -> TlsFiles:
    return TlsFiles(base / settings.tls.certificate, base / settings.tls.key)


def _limits(given: Mapping[str, float]) -> GateLimits:
    """Those of the gate and those of one session stand in one table; no name is in both."""
    of_session = {f.name: f.type for f in fields(SessionSettings) if f.type is not bool}
    known = {f.name: f.type for f in fields(GateLimits) if f.name != "session"} | of_session
    unknown = given.keys() - known.keys()
    if unknown:
        name = sorted(unknown)[0]
        raise InvalidInput(
            [Problem(f"gate.limits.{name}", f"is not a limit; known are {', '.join(sorted(known))}", "a name")]
        )
    whole: dict[str, Any] = {name: int(value) if known[name] is int else value for name, value in given.items()}
    session = {name: whole.pop(name) for name in given if name in of_session}
    try:
        return GateLimits(session=SessionSettings(**session), **whole)
    except ValueError as error:
        raise InvalidInput([Problem("gate.limits", str(error), "a number outside")]) from None


async def serve(settings: Settings, base: Path, *, ready: Any = None) -> None:
    """Run until SIGTERM or SIGINT. SIGHUP takes renewed TLS files. ready: called once the doors are open."""
    service = await build(settings, base)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, service.reload_tls)
    try:
        await service.start()
        if ready is not None:
            ready(service)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1.0)
            if (error := service.failed()) is not None:
                raise error
    finally:
        await service.stop()
