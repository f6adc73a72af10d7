"""Builds the gate that the settings describe: listeners, limits, and the doors by which this host reaches them."""

import ssl
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from broker.access import Application
from broker.gate import Gate
from broker.limits import GateLimits
from broker.listener import Listener
from broker.proxies import Proxies
from broker.session_settings import SessionSettings
from broker.tls import TlsFiles
from provisioner.config import GateSettings, ListenerSettings, Settings
from provisioner.link.probe import Door
from provisioner.model.errors import InvalidInput, Problem

# An import travels in chunks and a listing in pages; both stay below these.
ADMIN_SESSION = SessionSettings(packet_bytes_max=4_194_304, unacknowledged_bytes_max=8_388_608)
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
_OWN = "own:"  # in front of the name of a listener: this worker's alone


def device_gate(settings: Settings, base: Path, front: Application) -> Gate:
    """Not started. Raises InvalidInput for limits that are none."""
    listeners = _listeners(base, settings.gate)
    return Gate(front, listeners, limits_of(settings.gate.limits))


def admin_gate(settings: Settings, base: Path, front: Application) -> Gate:
    """Not started. Each worker has it: whichever is asked acts for all."""
    files = _files(base, settings.gate) if settings.admin.tls else None
    host, port, shared = settings.admin.host, settings.admin.port, settings.gate.workers > 1
    listener = Listener(name="admin", host=host, port=port, tls=files, shared_port=shared)
    return Gate(front, [listener], GateLimits(session=ADMIN_SESSION))


def public_ports(ports: Mapping[str, int]) -> dict[str, int]:
    """The listeners of the settings, by name."""
    return {name: port for name, port in ports.items() if not name.startswith(_OWN)}


def doors(settings: GateSettings, ports: Mapping[str, int], trusted: ssl.SSLContext) -> dict[str, Door]:
    """Where this host reaches the listeners of this very process, by name: none while it does not listen, and none
    that takes proxies alone and this host for no proxy."""
    found: dict[str, Door] = {}
    for each in settings.listeners:
        name, tls, path = _name(each), trusted if each.tls else None, "/mqtt" if each.kind == "websocket" else None
        host = _ANYWHERE.get(each.host, each.host)
        if (own := ports.get(_OWN + name)) is not None:
            found[name] = Door(host="127.0.0.1", port=own, tls=tls, path=path)
        elif name in ports and (not each.proxy_protocol or Proxies(each.trusted_proxies).trusts(host)):
            found[name] = Door(host=host, port=ports[name], tls=tls, path=path, proxied=each.proxy_protocol)
    return found


def _listeners(base: Path, settings: GateSettings) -> list[Listener]:
    """Where workers share a port nobody can choose whom he reaches, so that each has a second one to test itself."""
    files, made = _files(base, settings), []
    for each in settings.listeners:
        tls, websocket = files if each.tls else None, each.kind == "websocket"
        proxies = each.trusted_proxies if each.proxy_protocol else None
        shared = settings.workers > 1
        made.append(
            Listener(
                name=_name(each),
                host=each.host,
                port=each.port,
                tls=tls,
                websocket=websocket,
                shared_port=shared,
                proxies=proxies,
            )
        )
        if shared:
            made.append(Listener(name=_OWN + _name(each), tls=tls, websocket=websocket))
    return made


def _name(settings: ListenerSettings) -> str:
    return settings.name or f"{settings.kind}{'s' if settings.tls else ''}-{settings.port}"


def _files(base: Path, settings: GateSettings) -> TlsFiles:
    return TlsFiles(base / settings.tls.certificate, base / settings.tls.key)


def limits_of(given: Mapping[str, float]) -> GateLimits:
    """Those of the gate and those of one session stand in one table; no name is in both. Raises InvalidInput."""
    of_session = {f.name: f.type for f in fields(SessionSettings) if f.type is not bool}
    known = {f.name: f.type for f in fields(GateLimits) if f.name != "session"} | of_session
    unknown = given.keys() - known.keys()
    if unknown:
        name = sorted(unknown)[0]
        raise InvalidInput(
            [Problem(f"gate.limits.{name}", f"is not a limit; known are {', '.join(sorted(known))}", "a name")]
        )
    broken = [name for name, value in given.items() if known[name] is int and not float(value).is_integer()]
    if broken:
        raise InvalidInput(Problem(f"gate.limits.{name}", "must be a whole number", "another one") for name in broken)
    whole: dict[str, Any] = {name: int(value) if known[name] is int else value for name, value in given.items()}
    session = {name: whole.pop(name) for name in given if name in of_session}
    try:
        return GateLimits(session=SessionSettings(**session), **whole)
    except ValueError as error:
        raise InvalidInput([Problem("gate.limits", str(error), "a number outside")]) from None
