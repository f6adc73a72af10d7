"""What several walks share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.every_broker import EveryBroker
    from tests.support.rabbit_cluster import RabbitCluster


@pytest.fixture(scope="module")
def every_broker(rabbit: "RabbitCluster", tmp_path_factory: pytest.TempPathFactory) -> "Iterator[EveryBroker]":
    """Running, once a module. Leave every broker as healthy as it was."""
    from tests.support.every_broker import running_every_broker  # it needs what few tests need

    with running_every_broker(tmp_path_factory.mktemp("every") / "installation", rabbit) as site:
        yield site
