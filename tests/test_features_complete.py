"""Every promise of docs/features.md has a test."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COLLECT_TIMEOUT_S = 90


def test_every_promise_has_a_test() -> None:
    """No id is without a test that bears it."""
    command = [sys.executable, "-m", "tests.features_report", "--missing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=COLLECT_TIMEOUT_S, check=False)
    assert done.stdout.split() == []
    assert done.returncode == 0, done.stderr
