"""The merged device configuration: what the administrator added, what the gate generates, and five
parameters that the gate always wins (EC-27 to EC-29, F-47).

A configuration maps component pids to properties: ``{"pid": {"property": value}}``.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import digits
from typing import Any

TRANSPORT_PID = "org.eclipse.kura.core.data.transport.mqtt.MqttDataTransport"
DATA_SERVICE_PID = "org.eclipse.kura.data.DataService"
CLOUD_SERVICE_PID = "org.eclipse.kura.cloud.CloudService"

# As they stand on the wire; "clientId" of the vendor's list is "client-id" there (reference/esf.md 2.3).
ALWAYS_GENERATED = ("broker-url", "topic.context.account-name", "client-id", "username", "password")
DEPTH_MAX = 32
NODES_MAX = 10_000


def _fold(name: str) -> str:
    """Compatibility-normalised, case-folded and without invisible characters."""
    if name.isascii():
        return name.lower()
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in folded if unicodedata.category(c) != "Cf")


def _squeeze(name: str) -> str:
    """One form for all spellings of a name: folded, letters and digits only."""
    return "".join(filter(str.isalnum, _fold(name)))


_GENERATED_SQUEEZED = frozenset(_squeeze(name) for name in ALWAYS_GENERATED)
_TRANSPORT_SQUEEZED = "mqttdatatransport"
# A further cloud connection is a pid with a suffix, "MqttDataTransport-2"; that is no part of a parameter's name.
_FURTHER_TRANSPORT = re.compile(f"{_TRANSPORT_SQUEEZED}-[a-z0-9]+")
# Levels that only hold what a component has, as in Kura's own JSON.
_HOLDER = re.compile("(?<![a-z0-9])(?:properties|parameters)(?![a-z0-9])")
_NAME_KEYS = frozenset(("name", "id", "key", "property", "parameter"))
_SQUEEZED_MAX = max(map(len, _GENERATED_SQUEEZED))
_TOO_LONG = "/"  # no part of anything that is squeezed


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the names from the top down to some level read as, squeezed: from the last transport on, or from the top.

    plain: as they stand. further: as if a further connection's suffix were no part of them. Of what has become longer
    than a parameter's name only so much is kept as a transport's name may begin in, so that long names cost no more."""

    plain: str = ""
    further: str = ""

    def below(self, name: str) -> "_Reading":
        """One level down."""
        bare = _HOLDER.sub("", _fold(name))
        plain, further = _squeeze(bare), _squeeze(_FURTHER_TRANSPORT.sub(_TRANSPORT_SQUEEZED, bare))
        return _Reading(_ending(self.plain + plain), _ending(self.further + further))

    @property
    def is_generated(self) -> bool:
        """Whether this is a spelling of one of the five."""
        return any(each.removeprefix(_TRANSPORT_SQUEEZED) in _GENERATED_SQUEEZED for each in (self.plain, self.further))


def _ending(squeezed: str) -> str:
    _, transport, rest = squeezed.rpartition(_TRANSPORT_SQUEEZED)
    rest = rest.lstrip(digits) if transport else rest
    if len(rest) <= _SQUEEZED_MAX:
        return transport + rest
    return _TOO_LONG + rest[1 - len(_TRANSPORT_SQUEEZED) :]


def generated(broker_url: str, account: str, client_id: str, username: str, password: object) -> dict[str, Any]:
    """The configuration that every device is given. ``password`` is passed through unseen."""
    return {
        TRANSPORT_PID: {
            "broker-url": broker_url,
            "topic.context.account-name": account,
            "client-id": client_id,
            "username": username,
            "password": password,
        },
        # Default false: the gateway would not come back by itself after a reboot.
        DATA_SERVICE_PID: {"connect.auto-on-startup": True},
        CLOUD_SERVICE_PID: {"topic.control-prefix": "$EDC", "enable.default.subscriptions": True},
    }


def merge(additional: Mapping[str, Any], generated_part: Mapping[str, Any]) -> dict[str, Any]:
    """Additional configuration over the generated defaults; the five parameters are the generated ones.

    Maps merge, lists replace, null is kept (EC-28). Neither argument is changed.
    """
    cleaned, _ = strip_generated(additional)
    return _deep(_deep(generated_part, cleaned), {TRANSPORT_PID: generated_part[TRANSPORT_PID]})


def overridden(additional: Mapping[str, Any]) -> list[str]:
    """Paths in ``additional`` that will be dropped because the gate generates them; for the preview."""
    return strip_generated(additional)[1]


def strip_generated(additional: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """``additional`` without any spelling of the five parameters, and the paths that were dropped.

    A path is a spelling of one when, below a component whose name is the MQTT transport's in any case or
    nesting, or outside of any component, the rest of the path reads as the parameter's name.
    """
    dropped: list[str] = []
    cleaned = _clean_map(additional, (), _Reading(), dropped)
    return cleaned, dropped


def check(additional: object) -> Iterator[str]:
    """Broken rules of an additional configuration: an object of objects, bounded in depth and size."""
    if not isinstance(additional, Mapping):
        yield "must be an object of components"
        return
    if not all(isinstance(pid, str) and pid and isinstance(part, Mapping) for pid, part in additional.items()):
        yield "must map each component's pid to an object of properties"
    yield from _check_bounds(additional)


def _check_bounds(additional: Mapping[Any, Any]) -> Iterator[str]:
    level: list[Any] = [additional]
    nodes = 0
    for _ in range(DEPTH_MAX):
        nodes += len(level)
        if nodes > NODES_MAX:
            yield f"must hold at most {NODES_MAX:,} values"
            return
        if not all(map(_can_be_kept, level)):
            yield "must hold only names that are text, and whole numbers of at most 64 bits"
            return
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    yield f"must be at most {DEPTH_MAX} levels deep"


def _can_be_kept(node: Any) -> bool:
    if isinstance(node, Mapping):
        return all(isinstance(name, str) for name in node)
    return not isinstance(node, int) or -(2**63) <= node < 2**63


def _children(node: Any) -> Sequence[Any]:
    if isinstance(node, Mapping):
        return list(node.values())
    return node if isinstance(node, list) else ()


def _deep(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _deep(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _clean_map(node: Mapping[str, Any], path: tuple[str, ...], reading: _Reading, dropped: list[str]) -> dict[str, Any]:
    kept = {}
    for key, value in node.items():
        here, read = (*path, str(key)), reading.below(str(key))
        if read.is_generated:
            dropped.append("/".join(here))
        else:
            kept[key] = _clean(value, here, read, dropped)
    return kept


def _clean(value: Any, path: tuple[str, ...], reading: _Reading, dropped: list[str]) -> Any:
    if isinstance(value, Mapping):
        return _clean_map(value, path, reading, dropped)
    if not isinstance(value, list):
        return value
    kept = []
    for item in value:
        spelled = next((name for name in _names_in(item) if reading.below(name).is_generated), None)
        if spelled is not None:
            dropped.append("/".join((*path, spelled)))
        else:
            kept.append(_clean(item, path, reading, dropped))
    return kept


def _names_in(item: Any) -> Iterator[str]:
    """A list of ``{"name": ..., "value": ...}`` is one more way to spell properties."""
    if isinstance(item, Mapping):
        yield from (name for key, name in item.items() if _squeeze(str(key)) in _NAME_KEYS and isinstance(name, str))
