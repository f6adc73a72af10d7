"""The whole walk on the sqlite store: provisioned, restarted, killed in the middle, and nothing is lost."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.installation import Installation
from tests.support.walker import Walker

DEVICES = 6
KILLS = 4


@pytest.fixture
def site(make_installation: Callable[..., Installation]) -> Installation:
    installation = make_installation(store="sqlite")
    with installation.running():
        installation.account()
    return installation


def test_a_device_is_provisioned_and_still_there_after_a_restart(site: Installation) -> None:
    """D9: on sqlite the walk is the same walk, and a restarted service knows everything that was."""
    with site.running():
        answer = site.provision(site.request("dev1"))
        rows = site.audit()
    assert [path.name for path in sorted((site.folder / "data").iterdir())] == ["fleetgate.db", "fleetgate.db.lock"]
    with site.running():
        assert site.state("dev1") == "confirmed"
        assert site.users_of("dev1") == [answer["username"]]
        assert site.audit()[: len(rows)] == rows
        assert site.ask("fsck") == {"findings": []}
        site.account_wire(answer).leave()


def test_f_23_killed_between_commit_and_answer_the_grant_is_kept(site: Installation) -> None:
    """F-23, D7: the service dies after its commit; asked again, it gives the one grant that it had made."""
    site.start(FLEETGATE_CRASH_AT="after_commit")
    walker = Walker(site, "dev1")
    assert not walker.walk()
    site.wait_for_death()
    with site.running():
        assert site.state("dev1") == "granted"
        assert walker.walk()
        assert len(site.audit("provision.granted", client_id="dev1")) == 1
        assert site.users_of("dev1") == [walker.answer["username"]]


def test_f_24_killed_at_any_moment_no_device_is_lost(site: Installation, seed: int) -> None:
    """F-24: kill -9 at random moments while devices walk: all end confirmed, with one user each, and fsck is clean."""
    chance = random.Random(f"{seed}/kills")
    walkers: list[Walker] = []
    for turn in range(KILLS):
        walkers += [Walker(site, f"dev{turn}-{number}") for number in range(DEVICES)]
        site.start()
        timer = threading.Timer(chance.uniform(0.01, 0.3), site.kill)
        timer.start()
        with ThreadPoolExecutor(DEVICES) as pool:
            list(pool.map(Walker.walk, [each for each in walkers if not each.is_done]))
        timer.join()
    with site.running():
        for walker in walkers:
            assert walker.is_done or walker.walk(), walker.client_id
            assert site.state(walker.client_id) == "confirmed"
            assert site.users_of(walker.client_id) == [walker.answer["username"]]
        assert site.ask("fsck") == {"findings": []}
