"""The rows F-23 to F-31 once for each of many seeds: `make soak`.

A test belongs to the soak when it bears the id of a row and draws from the fixture ``seed``; what draws nothing says
the same every time. What is done once more on other stores (``*_on_stores.py``) is left to `make test`: twenty
seeds of it would take hours. The lines go to stdout, what pytest says to stderr, the verdicts to
``bench-results/soak.json``. To see a failure again, give its seed to pytest: ``python -m pytest --seed 7 TEST``.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.features_report import ROOT, Selection, run

ROWS = tuple(f"F-{number}" for number in range(23, 32))
RESULTS = ROOT / "bench-results/soak.json"
SEEDS, SEED_MAX = 20, 99_999
LIMIT_MIN = 60.0
WORKERS = 3
LEAVE_S = 30.0  # for a run that is told to end: it stops its servers and writes its report
GOOD = ("pass", "skip")
REPEATED_ELSEWHERE = "_on_stores.py"

Outcomes = Mapping[str, str]
"""How each test of a run ended: its id to passed, failed or skipped. What did not come to its end is not there."""


class Drawn(Selection):
    """The tests that the soak repeats."""

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self._draws(item)]
        super().pytest_collection_modifyitems(config, items)

    @staticmethod
    def _draws(item: pytest.Item) -> bool:
        is_short = item.get_closest_marker("soak") is None and not item.path.name.endswith(REPEATED_ELSEWHERE)
        return is_short and "seed" in getattr(item, "fixturenames", ())


@dataclass
class Matrix:
    """The verdict on each row for each seed: pass, fail, skip, or `unfinished` when the time was over before."""

    tests: Mapping[str, Sequence[str]]
    verdicts: dict[int, dict[str, str]] = field(default_factory=dict)
    failed: dict[int, list[str]] = field(default_factory=dict)

    def note(self, seed: int, outcomes: Outcomes) -> Iterator[str]:
        """One line a row, then one for each test that failed."""
        self.verdicts[seed] = {row: verdict(tests, outcomes) for row, tests in self.tests.items()}
        yield from (f"{row} seed={seed} {word}" for row, word in self.verdicts[seed].items())
        self.failed[seed] = sorted(test for test, outcome in outcomes.items() if outcome == "failed")
        yield from (f"failed: --seed {seed} {test}" for test in self.failed[seed])

    def table(self) -> Iterator[str]:
        words = [["row", *map(str, self.verdicts)]]
        words += [[row, *(of_seed[row] for of_seed in self.verdicts.values())] for row in self.tests]
        widths = [max(map(len, column)) for column in zip(*words, strict=True)]
        for line in words:
            yield "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()

    def is_good(self) -> bool:
        return bool(self.verdicts) and all(
            word in GOOD for of_seed in self.verdicts.values() for word in of_seed.values()
        )

    def save(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        seeds = [{"seed": seed, "rows": rows, "failed": self.failed[seed]} for seed, rows in self.verdicts.items()]
        path.write_text(json.dumps({"seeds": seeds}, indent=1) + "\n")


def verdict(tests: Sequence[str], outcomes: Outcomes) -> str:
    """A row without a test is unfinished: nothing was shown."""
    words = {outcomes.get(test, "unfinished") for test in tests} or {"unfinished"}
    if "failed" in words:
        return "fail"
    if "unfinished" in words:
        return "unfinished"
    return "pass" if "passed" in words else "skip"


def outcomes_in(report: str, tests: Iterable[str]) -> dict[str, str]:
    """What a JUnit report says of these tests."""
    ids = {(id.partition("::")[0].removesuffix(".py").replace("/", "."), id.partition("::")[2]): id for id in tests}
    found: dict[str, str] = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        id = ids.get((case.get("classname", ""), case.get("name", "")))
        if id is not None and found.get(id) != "failed":
            parts = {part.tag for part in case}
            found[id] = "failed" if parts & {"failure", "error"} else "skipped" if "skipped" in parts else "passed"
    return found


def run_seed(seed: int, tests: Sequence[str], within_s: float) -> dict[str, str]:
    """The tests with this seed in a process of their own, which is told to end when its time is over."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-q", f"-n{WORKERS}", "--dist", "loadfile", f"--seed={seed}", f"--junitxml={report}"]
        child = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *tests], cwd=ROOT, stdout=sys.stderr, start_new_session=True
        )
        try:
            with suppress(subprocess.TimeoutExpired):
                child.wait(within_s)
        finally:
            _end(child)
        return outcomes_in(report.read_text("utf-8"), tests) if report.exists() else {}


def _end(child: subprocess.Popen[bytes]) -> None:
    """Interrupted first, for some servers of the tests live in sessions of their own; then nothing is left of it."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(LEAVE_S)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def soak(
    tests: Mapping[str, Sequence[str]],
    seeds: Iterable[int],
    limit_s: float,
    run_one: Callable[[int, Sequence[str], float], Outcomes] = run_seed,
) -> Matrix:
    """limit_s: for all seeds together; the seeds that it leaves no time for are unfinished."""
    matrix, until_s = Matrix(tests), time.monotonic() + limit_s
    every = sorted({test for of_row in tests.values() for test in of_row})
    for seed in seeds:
        left_s = until_s - time.monotonic()
        for line in matrix.note(seed, run_one(seed, every, left_s) if left_s > 0 else {}):
            print(line, flush=True)
    print(*matrix.table(), sep="\n")
    return matrix


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when no row failed with any seed, and all came to their end."""
    parser = argparse.ArgumentParser(description="Repeats the fault rows F-23 to F-31 with other seeds.")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many (default: %(default)s)")
    parser.add_argument("--limit-min", type=float, default=LIMIT_MIN, help="for all of them (default: %(default)s)")
    options = parser.parse_args(arguments)
    selection = Drawn(ROWS)
    if run(selection, ["--collect-only"]) != pytest.ExitCode.OK:
        return 1
    seeds = random.SystemRandom().sample(range(1, SEED_MAX + 1), options.seeds)
    matrix = soak({row: selection.tests.get(row, []) for row in ROWS}, seeds, options.limit_min * 60)
    matrix.save(RESULTS)
    return 0 if matrix.is_good() else 1


if __name__ == "__main__":
    sys.exit(main())
