"""Whether devices can be provisioned now, part by part."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from provisioner.model.errors import Unavailable
from provisioner.services.platform import Platform

STORE_S_MAX = 2.0
STORE, GATE = "store", "gate"


@runtime_checkable
class Reached(Protocol):
    """What an account broker can say beside its port when it is another process that may be away."""

    @property
    def is_up(self) -> bool:
        """Whether it is reached just now; a verb may fail all the same."""


@dataclass(frozen=True, slots=True)
class Part:
    """``fault``: what is wrong with it, in words; None: nothing."""

    name: str
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Readiness:
    """``core``: without any of these nobody is provisioned. ``brokers``: each serves its own accounts alone."""

    core: tuple[Part, ...]
    brokers: tuple[Part, ...]

    @property
    def ready(self) -> bool:
        """One account broker that is away shuts out its own devices; only when all are away there is nothing to do."""
        usable = not self.brokers or any(part.fault is None for part in self.brokers)
        return usable and all(part.fault is None for part in self.core)

    @property
    def red(self) -> dict[str, str]:
        """Name -> what is wrong."""
        return {part.name: part.fault for part in (*self.core, *self.brokers) if part.fault is not None}


async def look(platform: Platform, gate_fault: Callable[[], str | None]) -> Readiness:
    """Tries the store for real; nothing else is made to work."""
    store = Part(STORE, await _store_fault(platform))
    brokers = tuple(Part(f"account broker {name}", _broker_fault(platform, name)) for name in sorted(platform.brokers))
    return Readiness((store, Part(GATE, gate_fault())), brokers)


async def _store_fault(platform: Platform) -> str | None:
    try:
        async with asyncio.timeout(STORE_S_MAX):
            await platform.store.health()
    except Unavailable as error:
        return str(error)
    except TimeoutError:
        return f"does not answer within {STORE_S_MAX:g} s"
    return None


def _broker_fault(platform: Platform, name: str) -> str | None:
    if (why := platform.refused.get(name)) is not None:
        return f"is not used: {why}"
    broker = platform.brokers[name]
    return "is not reached" if isinstance(broker, Reached) and not broker.is_up else None
