"""Pictures of the figures, as SVG: rate, tail latency and what growth costs, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pygal

from tests.bench.figure import Figure

RATES = {"plain": "Whole walks, plain, 50 in flight", "tls": "Whole walks over TLS, 50 in flight"}


def draw(figures: Sequence[Figure], raw: Mapping[str, Any], folder: Path) -> None:
    """Those for which there are numbers."""
    for name, title in RATES.items():
        if name in raw:
            _bars(f"{title}: devices/s", {side: _rate(rounds) for side, rounds in raw[name].items()}, folder / name)
    if "plain" in raw:
        tails = {side: median(1000 * each["load"]["p99_s"] for each in rounds) for side, rounds in raw["plain"].items()}
        _bars("p99 of a whole walk, plain, 50 in flight: ms", tails, folder / "latency")
    growth = {name.removeprefix("growth, "): of for name, of in raw.items() if name.startswith("growth, ")}
    if growth:
        shown = {f"{store}, {stored:,}": _rate(of[stored]) for store, of in growth.items() for stored in of}
        _bars("devices/s with that many requests stored", shown, folder / "growth")
    adapters = {each.what: each.value for each in figures if each.id == "ADAPTER" and "confirmed" not in each.what}
    if adapters:
        _bars("Whole walks that end on each account broker: devices/s", adapters, folder / "adapters")


def _rate(rounds: Sequence[Mapping[str, Any]]) -> float:
    return median(each["load"]["provisioned"] / each["load"]["seconds"] for each in rounds)


def _bars(title: str, values: Mapping[str, float], path: Path) -> None:
    chart = pygal.HorizontalBar(
        title=title, show_legend=False, print_values=True, js=(), height=90 + 60 * len(values), margin=20
    )
    chart.value_formatter = lambda value: f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
    chart.x_labels = list(reversed(values))
    chart.add("", list(reversed(values.values())))
    chart.render_to_file(str(path.with_suffix(".svg")))
