"""``make bench``: the figures, each as a ratio to its floor in the same run, one line a figure.

``python -m tests.bench.run [--only P1,P4] [--stores tinydb,sqlite] [--pairs N]`` prints lines such as
``P1 tinydb ratio=0.52 bar=0.4 ok`` and writes the raw numbers to ``bench-results/latest.json``, and pictures of them
beside it. All sides take turns, each in a process of its own, and a figure is the median over the turns.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from tests.bench.adapters import adapters, p9
from tests.bench.crowds import p5, p6, storm
from tests.bench.figure import Figure
from tests.bench.growth import p7, p8
from tests.bench.pictures import draw
from tests.bench.rates import p1, p2, p3
from tests.bench.site import STORES, Bench, Site
from tests.bench.slow_disk import slow_disk

RESULTS = Path("bench-results/latest.json")


def p10(bench: Bench) -> Iterator[Figure]:
    """P10: how long the command line takes to say what it can."""
    took = []
    for _ in range(7):
        started_s = time.perf_counter()
        subprocess.run([sys.executable, "-m", "provisioner.doors.cli", "--help"], capture_output=True, check=True)
        took.append(time.perf_counter() - started_s)
    bench.raw["help_s"] = took
    yield Figure("P10", "fleetgate --help", statistics.median(took), 0.2, False, "s")


MEASURES: dict[str, Callable[[Bench], Iterable[Figure]]] = {
    "P1": p1,
    "P2": p2,
    "P3": p3,
    "P4": p1,
    "P5": p5,
    "STORM": storm,
    "P6": p6,
    "P7": p7,
    "P8": p8,
    "FLUSH": slow_disk,
    "P9": p9,
    "P10": p10,
    "ADAPTERS": adapters,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(MEASURES), help="measures, separated by commas")
    parser.add_argument("--stores", default=",".join(STORES), help="separated by commas")
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    wanted = [each.strip().upper() for each in arguments.only.split(",")]
    stores = arguments.stores.split(",")
    unknown = [*(each for each in wanted if each not in MEASURES), *(each for each in stores if each not in STORES)]
    if unknown:
        parser.error(f"unknown {', '.join(unknown)}; there are {', '.join((*MEASURES, *STORES))}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    figures: list[Figure] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleetgate-bench-")))
        bench = Bench(Site(folder, stack), arguments.pairs, stores)
        for measure in dict.fromkeys(MEASURES[each] for each in wanted):
            for figure in measure(bench):
                print(figure, flush=True)
                figures.append(figure)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"figures": [asdict(each) for each in figures], "raw": bench.raw}, indent=1))
    draw(figures, bench.raw, RESULTS.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
