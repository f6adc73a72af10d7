"""What came of a scenario, for people and for programs."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
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
        """One row a fleet; the faults that were injected have a column when there were any."""
        has_faults = any(fleet.faults for fleet in self.fleets)
        late = ", DEADLINE PASSED" if self.deadline_passed else ""
        table = Table(title=f"{self.elapsed_s:.1f} s, seed {self.seed}{late}", box=SIMPLE_HEAD, pad_edge=False)
        for name in ("fleet", "outcomes", "answers", "p50 s", "max s", "met"):
            table.add_column(name, justify="right" if name.endswith(" s") else "left", overflow="fold")
        if has_faults:
            table.add_column("faults")
        for fleet in self.fleets:
            table.add_row(*map(escape, _cells(fleet)), *([escape(_counts(fleet.faults))] if has_faults else []))
        console.print(table)


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """Nearest rank; empty without values."""
    ordered: Sequence[float] = sorted(values)
    if not ordered:
        return {}
    at = {f"p{p}": ordered[math.ceil(p / 100 * len(ordered)) - 1] for p in PERCENTILES}
    return {name: round(value, 3) for name, value in (at | {"max": ordered[-1]}).items()}


def _cells(fleet: FleetReport) -> tuple[str, ...]:
    wanted = "" if fleet.is_met else f", expected {' or '.join(fleet.expect)}"
    latency = [f"{fleet.latency_s[name]:.2f}" if fleet.latency_s else "" for name in ("p50", "max")]
    verdict = f"{fleet.as_expected}/{fleet.devices}{wanted}"
    return fleet.name, _counts(fleet.outcomes), _counts(fleet.answers), *latency, verdict


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
