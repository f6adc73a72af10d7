"""mosquitto told of users by files and SIGHUP: the common contract against the real server, and what is its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.model.ports import Sighting
from tests.contracts.account_broker_contract import AccountBrokerContract, LoopThread, Stage, closing_devices
from tests.support.mosquitto import MosquittoServer, mosquitto_settings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MosquittoServer]:
    with MosquittoServer(mosquitto_settings("mosquitto-files"), tmp_path) as running:
        yield running


@pytest.fixture
def stage(server: MosquittoServer) -> Iterator[Stage]:
    loop, sightings = LoopThread(), list[Sighting]()
    broker = server.adapter()
    try:
        loop.run(broker.start(sightings.append))
        with closing_devices(Stage(broker, server.address, loop, sightings)) as made:
            yield made
        loop.run(broker.stop())
    finally:
        loop.close()


class TestMosquittoFiles(AccountBrokerContract):
    pass
