"""What came of a scenario, for people and for programs."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReport:
    """phases, outcomes, answers, faults: counts by name. latency_s: of the walk from first connect to connected, by
    p50, p95, p99 and max; empty when no device got there."""

    name: str
    kind: str
    devices: int
    expect: tuple[str, ...]
    as_expected: int
    phases: dict[str, int]
    outcomes: dict[str, int]
    attempts: int
    answers: dict[str, int]
    latency_s: dict[str, float]
    faults: dict[str, int]

    @property
    def is_met(self) -> bool:
        return self.as_expected == self.devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """deadline_passed: some device was not done when the time was up."""

    seed: int
    elapsed_s: float
    deadline_passed: bool
    fleets: tuple[FleetReport, ...]

    @property
    def is_met(self) -> bool:
        """Every device of every fleet ended as expected."""
        return all(fleet.is_met for fleet in self.fleets)

    def outcomes(self) -> Counter[str]:
        return sum((Counter(fleet.outcomes) for fleet in self.fleets), Counter())

    def as_plain(self) -> dict[str, Any]:
        return {"expectations_met": self.is_met} | asdict(self)

    def print(self, console: Console) -> None:
        table = Table(title=f"{sum(fleet.devices for fleet in self.fleets)} devices in {self.elapsed_s:.1f} s")
        for name in ("fleet", "kind", "devices", "outcomes", "expected", "attempts", "answers", "p50/p95/p99/max s"):
            table.add_column(name, justify="right" if name in ("devices", "attempts") else "left")
        table.add_column("faults")
        for fleet in self.fleets:
            table.add_row(*_cells(fleet))
        console.print(table)


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """Nearest rank; empty without values."""
    ordered: Sequence[float] = sorted(values)
    if not ordered:
        return {}
    at = {f"p{p}": ordered[math.ceil(p / 100 * len(ordered)) - 1] for p in PERCENTILES}
    return {name: round(value, 3) for name, value in (at | {"max": ordered[-1]}).items()}


def _cells(fleet: FleetReport) -> list[str]:
    expected = f"{'yes' if fleet.is_met else 'NO'}: {fleet.as_expected} {' or '.join(fleet.expect)}"
    latency = " / ".join(f"{value:.2f}" for value in fleet.latency_s.values())
    return [
        fleet.name,
        fleet.kind,
        str(fleet.devices),
        _counts(fleet.outcomes),
        expected,
        str(fleet.attempts),
        _counts(fleet.answers),
        latency,
        _counts(fleet.faults),
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
