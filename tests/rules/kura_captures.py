"""Messages captured from real gateways, which are not part of this repository; a test says so when they are absent."""

import os
from pathlib import Path

import pytest

FOLDER = Path(
    os.environ.get("FLEETGATE_VECTORS", Path(__file__).resolve().parents[2].parent / "shared" / "vectors" / "kura")
)
COUNT = 14


def captured() -> dict[str, bytes]:
    """Every captured message by its file name. Skips the test when there is none, fails when one was promised."""
    found = {path.name: path.read_bytes() for path in sorted(FOLDER.glob("*.mqtt"))}
    if not found and "FLEETGATE_VECTORS" in os.environ:
        pytest.fail(f"FLEETGATE_VECTORS names {FOLDER}, which holds no *.mqtt file")
    if not found:
        pytest.skip(f"NOT PROVED HERE: the {COUNT} captured Kura messages are absent; set FLEETGATE_VECTORS")
    return found
