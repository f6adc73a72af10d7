"""Installations that tests share: starting one costs half a second, so only those that break it get their own."""

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.installation import Installation

if TYPE_CHECKING:
    from tests.support.in_process import InProcess
    from tests.support.postgres import PostgresServer
    from tests.support.rabbit_cluster import RabbitCluster

# How long an example takes says something about the machine, and the first one in a fresh clone builds tables:
# pytest's own timeout is the judge of slowness.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=1, help="what the tests of lost messages and kills draw from")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker takes whole files, and one of them all that stand on RabbitMQ: a cluster starts slowly, and several of
    them at once starve each other."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            source = (config.rootpath / file).read_text("utf-8")
            return "rabbit" if re.search(r"\b(rabbit|every_broker): |RabbitCluster", source) else file

    return ByFile(config, log)


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.getoption('--seed')}"


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """Where every moment of a kill, every loss and every arrival is drawn from; another one by ``--seed``."""
    chosen: int = pytestconfig.getoption("--seed")
    return chosen


@pytest.fixture(scope="session")
def shared_installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Running, with the accounts acme (on broker north) and bolt (on broker south). Leave it as healthy as it was."""
    installation = Installation(tmp_path_factory.mktemp("shared") / "installation", brokers=("north", "south"))
    with installation.running():
        installation.account("acme", "north")
        installation.account("bolt", "south")
        yield installation


@pytest.fixture(scope="session")
def _rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator["RabbitCluster"]:
    from tests.support.rabbit_cluster import running_cluster

    with running_cluster(tmp_path_factory.mktemp("rabbit")) as running:
        yield running


@pytest.fixture(scope="module")
def rabbit(_rabbit: "RabbitCluster") -> "RabbitCluster":
    """A cluster of two that starts once, for it takes its time; a module finds both nodes alive. What listens on its
    ``callback_port`` is the module's own, and gone after it."""
    _rabbit.heal()
    return _rabbit


@pytest.fixture(scope="session")
def postgres() -> Iterator["PostgresServer"]:
    """A cluster that starts once; each test asks it for a database of its own, and leaves the server running."""
    from tests.support.postgres import running_postgres

    with running_postgres() as running:
        yield running


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def fresh_id(_numbers: Iterator[int]) -> Callable[[], str]:
    """Client ids that no other test uses."""
    return lambda: f"gw{next(_numbers):05d}"


@pytest.fixture
def make_installation(tmp_path: Path) -> Iterator[Callable[..., Installation]]:
    """Installations of the test's own, not yet started; whatever still runs at the end is killed."""
    made: list[Installation] = []

    def make(**settings: Any) -> Installation:
        made.append(Installation(tmp_path / f"installation-{len(made)}", **settings))
        return made[-1]

    yield make
    for installation in made:
        if installation.process is not None and installation.process.poll() is None:
            installation.kill()


@pytest.fixture
def inside(tmp_path: Path) -> Iterator["InProcess"]:
    """An installation in this process: a gate of three listeners, and account broker ``embedded``; not started."""
    from tests.support.in_process import InProcess  # the whole service, which few tests need

    made = InProcess(tmp_path / "installation")
    try:
        yield made
    finally:
        made.close()
