"""A thousand devices, bad lines and a service that is killed under them: all arrive, each with one credential."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from device_sim.fleet import Fleet
from tests.support.crowd import await_confirmed, crowd, meanwhile
from tests.support.fleet import all_came_home, devices, run_fleet
from tests.support.installation import Installation

SETTINGS: Mapping[str, Any] = {
    "faults": {"lost_answer": {"probability": 0.05}, "duplicate": {"probability": 0.05}},
    "timeouts": {"reply_s": 2.0, "backoff_base_s": 0.2, "backoff_cap_s": 2.0},
    "stay_s": 0.5,
}


def kill_and_restart(installation: Installation, times: int, every_s: float, chance: random.Random) -> None:
    """every_s: as often on average, and the last time before ``times + 1`` of them have gone by."""
    for _ in range(times):
        time.sleep(every_s * chance.uniform(0.7, 1.3))
        installation.kill()
        installation.start()


def go_home_again(installation: Installation, fleet: dict[str, Any], folder: Path, seed: int) -> None:
    """Those whose service died before it noted that they were at home are switched on again, as devices are."""
    left = {each["client_id"] for each in installation.listed("request.page", account="acme", state="granted")}
    if not left:
        return
    everybody = json.loads(Path(fleet["devices_file"]).read_text())
    path = folder / "left.json"
    path.write_text(json.dumps([each for each in everybody if each["client_id"] in left]))
    settings = {**fleet, **SETTINGS, "devices_file": str(path)}
    report, _ = run_fleet(installation, settings, folder=folder, state_dir="memory", seed=seed)
    assert report.is_met, report.outcomes()


def walk_under_fire(
    installation: Installation, folder: Path, count: int, kills: int, over_s: float, seed: int
) -> Fleet:
    """The fleet after its walk, in which the service was killed that often."""
    fleet = crowd(installation, folder, count)
    settings = {**fleet, **SETTINGS, "arrival": {"pattern": "poisson", "over_s": over_s}}
    chance = random.Random(f"{seed}/kills")
    with meanwhile(lambda: kill_and_restart(installation, kills, over_s / (kills + 1), chance)):
        report, made = run_fleet(installation, settings, folder=folder, state_dir="memory", deadline_s=200, seed=seed)
    assert all_came_home(made), report.outcomes()
    (part,) = report.fleets
    for fault in ("lost_answer", "duplicate"):
        assert part.faults[fault] >= count * 0.02, part.faults
    go_home_again(installation, fleet, folder, seed)
    return made


def nobody_has_two(installation: Installation, fleet: Fleet) -> None:
    """The account user that a device holds is the only one that was ever made for it."""
    held = {each.device.state.client_id: each.device.state.settings for each in devices(fleet)}
    users = {user["client_id"]: user["username"] for user in installation.listed("user.page", account="acme")}
    assert len(installation.listed("user.page", account="acme")) == len(users) == len(held)
    assert users == {client_id: settings.username for client_id, settings in held.items() if settings}
    granted = Counter(row["client_id"] for row in installation.audit("provision.granted"))
    assert granted == dict.fromkeys(held, 1)
    assert not installation.audit("provision.regranted")
    assert len({settings.password.reveal() for settings in held.values() if settings}) == len(held)


@pytest.mark.parametrize(
    ("count", "kills", "over_s"),
    [
        pytest.param(1_000, 3, 10.0, id="thousand"),
        pytest.param(5_000, 12, 90.0, id="five-thousand", marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
    ],
)
def test_f_23_a_thousand_devices_under_fire(
    make_installation: Callable[..., Installation], tmp_path: Path, count: int, kills: int, over_s: float, seed: int
) -> None:
    """F-23, F-26, F-28: 5 % lost answers, 5 % duplicates and kill -9 in between cost nobody anything but time."""
    installation = make_installation()
    with installation.running():
        installation.account()
        fleet = walk_under_fire(installation, tmp_path, count, kills, over_s, seed)
        await_confirmed(installation, count)
        nobody_has_two(installation, fleet)
        assert installation.ask("fsck") == {"findings": []}
