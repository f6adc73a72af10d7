"""kill -9 at every named point of the service once more, on the stores that are not the default, both at a time.

What holds afterwards is what ``test_crash_points.Site`` compares; the store must make no difference.
"""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from provisioner.services.crashpoints import POINTS
from tests.faults import test_crash_points
from tests.faults.test_crash_points import Site, hear_until_killed
from tests.support.installation import Installation
from tests.support.stores import empty_site

KINDS = ("sqlite", "postgresql")
KILLS, KILLS_SOAK = 2, 20

Kills = pytest.mark.parametrize(
    "kills",
    [KILLS, pytest.param(KILLS_SOAK, marks=[pytest.mark.soak, pytest.mark.timeout(300)])],
    ids=["few", "all"],
)


@pytest.fixture(scope="module")
def sites(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Site]]:
    """One on each kind."""
    folders: list[Path] = [tmp_path_factory.mktemp(kind) for kind in KINDS]
    stores = [empty_site(kind, folder / "store", request) for kind, folder in zip(KINDS, folders, strict=True)]
    made = [
        Installation(folder / "installation", store=store.settings)
        for folder, store in zip(folders, stores, strict=True)
    ]
    yield [Site(installation, number) for number, installation in enumerate(made)]
    for installation in made:
        if installation.process is not None and installation.process.poll() is None:
            installation.kill()


def on_each(sites: list[Site], test: Callable[[Site], None]) -> None:
    with ThreadPoolExecutor(len(sites)) as pool:
        list(pool.map(test, sites))


@Kills
@pytest.mark.parametrize("point", POINTS)
def test_f_23_nothing_is_lost_or_doubled_at(sites: list[Site], point: str, kills: int, seed: int) -> None:
    """F-23, F-25: after kills there each device, asking with one message id, ends confirmed with one credential."""
    before = [site.kills for site in sites]
    on_each(sites, lambda site: site.survive(point, kills, random.Random(f"{seed}/{point}/{site.number}")))
    assert [site.kills - kills for site in sites] == before


@pytest.mark.parametrize("point", ["before_commit", "after_commit"])
def test_f_24_no_word_leaves_before_the_commit(sites: list[Site], point: str) -> None:
    """F-24: a service that dies on either side of its commit has told the device nothing at all yet."""
    on_each(sites, lambda site: test_crash_points.test_f_24_no_word_leaves_before_the_commit([site], point))


@Kills
def test_f_24_every_answer_that_was_heard_was_durable(sites: list[Site], kills: int, seed: int) -> None:
    """F-24: killed from outside at random moments, the service has never said what it does not know after restart."""
    on_each(sites, lambda site: hear_until_killed(site, kills, random.Random(f"{seed}/heard/{site.number}")))
