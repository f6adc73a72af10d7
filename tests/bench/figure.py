"""What a measurement says: one figure against its bar, and the rounds that it was made from."""

from dataclasses import dataclass

from tests.bench.load import LoadResult


@dataclass(frozen=True, slots=True)
class Figure:
    """One line. at_least: the bar is the least that is good (True) or the most (False); None: there is no bar."""

    id: str
    what: str
    value: float
    bar: float | None = None
    at_least: bool = True
    unit: str = "ratio"

    @property
    def is_met(self) -> bool:
        if self.bar is None:
            return True
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def __str__(self) -> str:
        told = f"{self.id} {self.what} {self.unit}={self.value:.3g}"
        return told if self.bar is None else f"{told} bar={self.bar:g} {'ok' if self.is_met else 'missed'}"


@dataclass(frozen=True, slots=True)
class Round:
    """One side of a comparison. gate_cpu_s: of the gate's process alone, for all devices together."""

    load: LoadResult
    gate_cpu_s: float

    @property
    def cpu_ms_per_device(self) -> float:
        return 1000 * self.gate_cpu_s / self.load.devices
