"""A stage for the tests of both kinds of mosquitto: the real server, and an adapter that may be replaced."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from provisioner.model.ports import AccountBroker, Gap, Sighting
from tests.contracts.account_broker_stage import LoopThread, Stage, closing_devices, user
from tests.contracts.mqtt_device import SOON_S, until
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


def tells_who_leaves_after_a_restart(stage: MosquittoStage) -> None:
    """The service comes back after a device did: that the device leaves is told, once."""
    made = stage.put(user(1))
    device = stage.of(made).admitted()
    assert until(lambda: stage.seen("gw1") == [True])
    stage.restart_adapter()
    device.close()
    assert until(lambda: stage.seen("gw1") == [True, False])
    stage.of(stage.put(user(2))).admitted().close()
    assert until(lambda: stage.seen("gw2") == [True, False])
    assert stage.seen("gw1") == [True, False]


def tells_when_it_was_not_heard(stage: MosquittoStage) -> None:
    """A mosquitto that kept its notices was heard all the time; one that was started anew forgot who was there, so that
    nobody knows, until they come or leave again."""
    gap = Gap(stage.broker.name, all_left=False)
    assert stage.gaps == [gap]
    device = stage.of(stage.put(user(1))).admitted()
    assert until(lambda: stage.seen("gw1") == [True])
    stage.restart_adapter()
    assert stage.gaps == [gap]
    stage.of(stage.put(user(2))).admitted()
    assert until(lambda: stage.seen("gw2") == [True])
    stage.server.kill()
    assert device.left.wait(SOON_S)
    stage.server.start()
    assert until(lambda: stage.gaps == [gap, gap], within_s=10)
    assert until(lambda: stage.seen("gw2") == [True, False])
    assert stage.sightings[-1].unheard is True
    assert stage.seen("gw1") == [True], "of whom it has not heard it says nothing more"
    again = stage.of(user(2)).admitted()
    assert until(lambda: stage.seen("gw2") == [True, False, True])
    again.close()
    assert until(lambda: stage.seen("gw2") == [True, False, True, False])
    assert stage.sightings[-1].unheard is False


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
