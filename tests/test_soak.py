"""The soak repeats the tests that draw, and tells the truth about every row and seed."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests import soak
from tests.soak import ROWS, Drawn, Matrix, outcomes_in, run_seed, verdict

CONFTEST = """
import pytest

def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=1)

@pytest.fixture(scope="session")
def seed(pytestconfig):
    return pytestconfig.getoption("--seed")
"""
TESTS = '''
import time

def test_f_23_draws(seed):
    assert seed != 13

def test_half(seed):
    """F-24, F-25."""

def test_f_23_always_the_same():
    pass

def test_f_32_no_row_of_the_soak(seed):
    pass

def test_f_26_hangs(seed):
    time.sleep(60 if seed == 14 else 0)
'''
TABLE = {"F-23": ["a", "b"], "F-24": ["b"]}


def collected(folder: str) -> dict[str, list[str]]:
    """The tests of the soak in this folder, by row."""
    code = (
        "import json, sys, pytest; from tests.soak import Drawn, ROWS; drawn = Drawn(ROWS); "
        "pytest.main(['-q', '--collect-only', sys.argv[1]], [drawn]); print('!' + json.dumps(drawn.tests))"
    )
    told = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    tests: dict[str, list[str]] = json.loads(told.stdout.partition("!")[2])
    return tests


def test_every_row_has_a_test_that_draws() -> None:
    """Nine rows, each of which another seed can change; the long tests are not among them."""
    tests = collected("tests/faults")
    assert len(ROWS) == 9
    assert set(tests) == set(ROWS)
    names = {test for of_row in tests.values() for test in of_row}
    assert "tests/faults/test_thousand.py::test_f_23_a_thousand_devices_under_fire[thousand]" in names
    assert not [name for name in names if "five-thousand" in name or "_on_stores.py" in name]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Another root with tests of its own; the ids by row."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/conftest.py").write_text(CONFTEST)
    (tmp_path / "tests/test_rows.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib -p no:cacheprovider\n")
    monkeypatch.setattr(soak, "ROOT", tmp_path)
    monkeypatch.setattr(soak, "WORKERS", 1)
    monkeypatch.setattr(soak, "RESULTS", tmp_path / "bench-results/soak.json")
    file = "tests/test_rows.py::"
    return {"F-23": [file + "test_f_23_draws"], "F-24": [file + "test_half"], "F-26": [file + "test_f_26_hangs"]}


def test_only_what_bears_a_row_and_draws_is_repeated(house: dict[str, list[str]]) -> None:
    """A test without the fixture, or of another row, is left out."""
    assert collected(str(soak.ROOT)) == {**house, "F-25": house["F-24"]}


def test_a_seed_reaches_the_tests(house: dict[str, list[str]]) -> None:
    """What passes with one seed fails with another one, and the report says which."""
    tests = [house["F-23"][0], house["F-24"][0]]
    assert run_seed(12, tests, 60) == dict.fromkeys(tests, "passed")
    assert run_seed(13, tests, 60) == {tests[0]: "failed", tests[1]: "passed"}


def test_a_run_ends_when_its_time_is_over(house: dict[str, list[str]]) -> None:
    """The test that hangs has no outcome, and nobody waits for its end."""
    began_s = time.monotonic()
    assert house["F-26"][0] not in run_seed(14, house["F-26"], 2)
    assert time.monotonic() - began_s < 50


@pytest.mark.parametrize(
    ("outcomes", "word"),
    [
        ({"a": "passed", "b": "passed"}, "pass"),
        ({"a": "passed", "b": "skipped"}, "pass"),
        ({"a": "skipped", "b": "skipped"}, "skip"),
        ({"a": "failed"}, "fail"),
        ({"a": "passed"}, "unfinished"),
    ],
)
def test_verdict_on_a_row(outcomes: Mapping[str, str], word: str) -> None:
    """One failure is a failure; what did not come to its end is neither that nor a pass."""
    assert verdict(["a", "b"], outcomes) == word


def test_a_row_without_a_test_is_not_good() -> None:
    """It shows nothing."""
    assert verdict([], {"a": "passed"}) == "unfinished"


def test_the_worst_part_of_a_test_counts() -> None:
    """A test whose call passed and whose end failed stands twice in the report."""
    case = '<testcase classname="tests.a" name="t[x-1]">{}</testcase>'
    report = (
        f"<testsuites><testsuite>{case.format('')}{case.format('<error/>')}{case.format('')}</testsuite></testsuites>"
    )
    assert outcomes_in(report, ["tests/a.py::t[x-1]", "tests/b.py::t[x-1]"]) == {"tests/a.py::t[x-1]": "failed"}


def test_report_and_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A line for each row and seed, the seed of each failure, a table of all, and the same as JSON."""

    def run_one(seed: int, tests: Sequence[str], within_s: float) -> dict[str, str]:
        assert tests == ["a", "b"]
        assert 0 < within_s <= 60
        return {"a": "failed" if seed == 8 else "passed", "b": "passed"}

    matrix = soak.soak(TABLE, [7, 8], 60, run_one)
    assert capsys.readouterr().out.splitlines() == [
        "F-23 seed=7 pass",
        "F-24 seed=7 pass",
        "F-23 seed=8 fail",
        "F-24 seed=8 pass",
        "failed: --seed 8 a",
        "row   7     8",
        "F-23  pass  fail",
        "F-24  pass  pass",
    ]
    matrix.save(tmp_path / "new/soak.json")
    assert json.loads((tmp_path / "new/soak.json").read_text())["seeds"][1] == {
        "seed": 8,
        "rows": {"F-23": "fail", "F-24": "pass"},
        "failed": ["a"],
    }


def test_seeds_without_time_are_unfinished() -> None:
    """When the limit is reached nothing more is started, and the soak is not good."""
    matrix = soak.soak(TABLE, [7, 8], 0.0, lambda *_: pytest.fail("started"))
    assert matrix.verdicts == {seed: {"F-23": "unfinished", "F-24": "unfinished"} for seed in (7, 8)}
    assert not matrix.is_good()


@pytest.mark.parametrize(("outcome", "status"), [("passed", 0), ("skipped", 0), ("failed", 1)])
def test_exit_status(house: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, outcome: str, status: int) -> None:
    """1 when a row failed with one seed alone; as many seeds as were asked for, no two the same."""
    drawn: list[int] = []

    def collect(selection: Drawn, options: Sequence[str]) -> int:
        selection.tests |= {row: ["a"] for row in ROWS}
        return 0

    def all_seeds(tests: Mapping[str, Sequence[str]], seeds: Sequence[int], limit_s: float) -> Matrix:
        assert set(tests) == set(ROWS)
        assert limit_s == 90.0
        drawn.extend(seeds)
        matrix = Matrix(tests)
        for seed in seeds:
            list(matrix.note(seed, {"a": outcome if seed == seeds[-1] else "passed"}))
        return matrix

    monkeypatch.setattr(soak, "run", collect)
    monkeypatch.setattr(soak, "soak", all_seeds)
    assert soak.main(["--seeds", "3", "--limit-min", "1.5"]) == status
    assert len(set(drawn)) == 3
    assert len(json.loads(soak.RESULTS.read_text())["seeds"]) == 3
