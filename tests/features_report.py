"""Which test proves which promise of docs/features.md, and whether it does: `make features`.

A test belongs to an id that its name (``ec_01``, ``ec01``) or its docstring (``EC-01``) bears. The lines
go to stdout, what pytest says of the run to stderr.
"""

import argparse
import contextlib
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROMISES = ROOT / "docs/features.md"
_ROW = re.compile(r"^\| ([A-Z]{1,2}-\d\d) \|", re.M)
_IN_TEXT = re.compile(r"(?<![\w-])([A-Z]{1,2}-\d\d)(?!\d)")
_IN_NAME = re.compile(r"(?<![a-z])([a-z]{1,2})_?(\d\d)(?!\d)")
# The nearer a test is to the real thing, the better it stands for a promise.
_NEARNESS = ("tests/walk/", "tests/faults/", "tests/contracts/", "tests/rules/")


def promised(page: str) -> list[str]:
    """The ids of the page's rows, in order."""
    return _ROW.findall(page)


def ids_of(name: str, docstring: str | None) -> set[str]:
    """The ids that a test bears."""
    named = {f"{letters.upper()}-{digits}" for letters, digits in _IN_NAME.findall(name)}
    return named | set(_IN_TEXT.findall(docstring or ""))


@dataclass
class Selection:
    """A pytest plugin that keeps the tests of these ids and remembers how each one ended."""

    ids: Sequence[str]
    tests: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    outcomes: dict[str, str] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept: list[pytest.Item] = []
        dropped: list[pytest.Item] = []
        for item in items:
            function = getattr(item, "function", None)
            borne = ids_of(item.name, getattr(function, "__doc__", None)) & set(self.ids)
            for id in borne:
                self.tests[id].append(item.nodeid)
            (kept if borne else dropped).append(item)
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test fails with any of its parts; it passes only when it was really called."""
        if report.failed or report.skipped or report.when == "call":
            worse = report.failed or self.outcomes.get(report.nodeid) != "failed"
            self.outcomes[report.nodeid] = report.outcome if worse else "failed"

    def verdict(self, id: str) -> tuple[str, str]:
        """``pass``, ``fail`` or ``missing``, and the test to look at first ("" when there is none)."""
        tests = sorted(self.tests.get(id, ()), key=_nearness)
        failed = [test for test in tests if self.outcomes.get(test, "failed") == "failed"]
        passed = [test for test in tests if self.outcomes.get(test) == "passed"]
        if failed:
            return "fail", failed[0]
        return ("pass", passed[0]) if passed else ("missing", f"(skipped: {tests[0]})" if tests else "")


def _nearness(test: str) -> int:
    return next((n for n, folder in enumerate(_NEARNESS) if test.startswith(folder)), len(_NEARNESS))


def run(selection: Selection, options: Iterable[str]) -> int:
    """pytest's exit status; its words go to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        return pytest.main(["-q", "--no-header", f"--rootdir={ROOT}", *options, str(ROOT / "tests")], [selection])


def report(selection: Selection) -> list[str]:
    """One line an id, then the count."""
    verdicts = {id: selection.verdict(id) for id in selection.ids}
    lines = [f"{id} {verdict} {test}".rstrip() for id, (verdict, test) in verdicts.items()]
    count = Counter(verdict for verdict, _ in verdicts.values())
    return [*lines, f"{len(verdicts)} promises: {count['pass']} pass, {count['fail']} fail, {count['missing']} missing"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when every promise passes; with --missing: when every promise has a test, none being run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--missing", action="store_true", help="only print the ids that no test bears")
    missing_only = parser.parse_args(arguments).missing
    selection = Selection(promised(PROMISES.read_text("utf-8")))
    status = run(selection, ["--collect-only"] if missing_only else ["--continue-on-collection-errors"])
    if missing_only:
        lines = [id for id in selection.ids if id not in selection.tests]
        good = not lines and status == pytest.ExitCode.OK
    else:
        lines = report(selection)
        good = status == pytest.ExitCode.OK and all(selection.verdict(id)[0] == "pass" for id in selection.ids)
    print(*lines, sep="\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
