"""What can go wrong on a device's line, drawn from a seeded source: which faults, how often, and when."""

from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal

CUT_BYTE_MAX = 400  # of a cut without a fixed place: within CONNECT, SUBSCRIBE and the question


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """Strikes at each opportunity with this probability, at most `count` times per device (None: no limit)."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    probability: float = 1.0
    count: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError("probability must be from 0 to 1")
        if self.count is not None and self.count < 1:
            raise ValueError("count must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class LostAnswer(Chance):
    """The answer never reaches the device. drop: it is acknowledged and forgotten. cut: the socket dies with it."""

    how: Literal["drop", "cut"] = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut(Chance):
    """The connection to the gate breaks when this many bytes were sent (MQTT bytes, before TLS); None: anywhere."""

    at_byte: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SkewedClock(Chance):
    """The device reports a time that is this far off; None: its clock began at 1970 when it was powered on."""

    offset_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowReader(Chance):
    """On this connection the device reads one packet, then nothing for `pause_s`."""

    pause_s: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSettings:
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    lost_answer: LostAnswer | None = None
    duplicate: Chance | None = None
    cut: Cut | None = None
    skewed_clock: SkewedClock | None = None
    slow_reader: SlowReader | None = None


class Faults:
    """The faults of one device over all its connections. `injected` counts what really happened, by name."""

    def __init__(self, settings: FaultSettings, random: Random) -> None:
        self.injected: Counter[str] = Counter()
        self._settings = settings
        self._random = random
        self._drawn: Counter[str] = Counter()

    def lost_answer(self) -> Literal["drop", "cut"] | None:
        """For a message that has just come from the gate."""
        fault = self._settings.lost_answer
        return fault.how if fault and self._strikes("lost_answer", fault) else None

    def duplicate(self) -> bool:
        """For a question that has just been sent."""
        return self._strikes("duplicate", self._settings.duplicate)

    def cut_at_byte(self) -> int | None:
        """For a new connection to the gate. Whoever cuts it says so by `happened`."""
        fault = self._settings.cut
        if fault is None or not self._draw("cut", fault):
            return None
        return fault.at_byte if fault.at_byte is not None else self._random.randint(1, CUT_BYTE_MAX)

    def pause_s(self) -> float:
        """For a new connection: how long to rest after each packet, 0 as a rule."""
        fault = self._settings.slow_reader
        return fault.pause_s if fault and self._strikes("slow_reader", fault) else 0.0

    def clock_offset_s(self, now_s: float, true_offset_s: float) -> float:
        """What to add to now_s to get the device's own idea of the seconds since 1970."""
        fault = self._settings.skewed_clock
        if fault is None or not self._strikes("skewed_clock", fault):
            return true_offset_s
        return -now_s if fault.offset_s is None else true_offset_s + fault.offset_s

    def happened(self, name: str) -> None:
        self.injected[name] += 1

    def _strikes(self, name: str, fault: Chance | None) -> bool:
        if fault is None or not self._draw(name, fault):
            return False
        self.happened(name)
        return True

    def _draw(self, name: str, fault: Chance) -> bool:
        if fault.count is not None and self._drawn[name] >= fault.count:
            return False
        if self._random.random() >= fault.probability:
            return False
        self._drawn[name] += 1
        return True
