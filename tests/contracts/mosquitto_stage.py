"""A stage for the tests of both kinds of mosquitto: the real server, and an adapter that may be replaced."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from provisioner.model.ports import AccountBroker, Gap, Sighting
from tests.contracts.account_broker_stage import LoopThread, Stage, closing_devices
from tests.support.mosquitto import MosquittoServer


@dataclass
class MosquittoStage(Stage):
    server: MosquittoServer = None  # type: ignore[assignment]  # fields of the base class have defaults; always given

    def restart_adapter(self) -> AccountBroker:
        """As after the service was killed: a new one, which knows what was kept alone."""
        self.loop.run(self.broker.stop())
        self.broker = self.server.adapter()
        self.loop.run(self.broker.start(self.sightings.append, self.gaps.append))
        return self.broker


@contextmanager
def mosquitto_stage(settings: dict[str, object], base: Path) -> Iterator[MosquittoStage]:
    loop, sightings = LoopThread(), list[Sighting]()
    server = MosquittoServer(settings, base)
    try:
        with server:
            broker = server.adapter()
            gaps: list[Gap] = []
            loop.run(broker.start(sightings.append, gaps.append))
            stage = MosquittoStage(broker, server.address, loop, sightings, gaps=gaps, server=server)
            with closing_devices(stage):
                yield stage
            loop.run(stage.broker.stop())
    finally:
        loop.close()
