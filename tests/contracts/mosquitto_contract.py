"""What both kinds of mosquitto that are told of users must do beside the contract, and after a restart of either side.

A test file subclasses ``MosquittoContract`` and gives a fixture ``stage``.
"""

import pytest

from provisioner.model.errors import Unavailable
from provisioner.model.ports import BrokerUser, Gap
from tests.contracts.account_broker_contract import AccountBrokerContract
from tests.contracts.account_broker_stage import user
from tests.contracts.mosquitto_stage import MosquittoStage
from tests.contracts.mqtt_device import ACCEPTED, SOON_S, until


def refuses(stage: MosquittoStage, wanted: BrokerUser) -> bool:
    try:
        stage.put(wanted)
    except Unavailable:
        return True
    return False


class MosquittoContract(AccountBrokerContract):
    def test_a_user_whose_password_nobody_keeps_is_told(self, stage: MosquittoStage) -> None:
        """What mosquitto knew was lost: a confirmed user cannot be made again, and the message says so."""
        with pytest.raises(Unavailable, match="user-1, whose password is kept nowhere"):
            stage.put(user(1, password=None))

    def test_a_device_that_was_first_is_called_back_and_seen(self, stage: MosquittoStage) -> None:
        """D7: after a restart of mosquitto a granted device may be there before us: it is cut, and comes again."""
        made = stage.put(user(1))
        stage.server.kill()
        stage.server.start()
        early = stage.of(made).admitted()
        if not stage.seen("gw1"):
            assert early.left.wait(SOON_S)
            assert until(lambda: stage.of(made).connect() == ACCEPTED)
        assert until(lambda: True in stage.seen("gw1"))

    def test_a_device_that_was_there_before_the_service_is_told_leaving(self, stage: MosquittoStage) -> None:
        """esf 4.7: its status would else be connected for ever. That it leaves is told once."""
        made = stage.put(user(1))
        device = stage.of(made).admitted()
        assert until(lambda: stage.seen("gw1") == [True])
        stage.restart_adapter()
        device.close()
        assert until(lambda: stage.seen("gw1") == [True, False])
        stage.of(stage.put(user(2))).admitted().close()
        assert until(lambda: stage.seen("gw2") == [True, False])
        assert stage.seen("gw1") == [True, False]

    def test_what_it_was_not_heard_of_is_told(self, stage: MosquittoStage) -> None:
        """Case 3: nobody is called connected, nor missing, on the word of a mosquitto that has forgotten it. One that
        kept its notices was heard all the time; one that was started anew forgot who was there, so that nobody knows,
        until they come or leave again."""
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

    def test_what_happened_while_the_service_was_away_is_told_afterwards(self, stage: MosquittoStage) -> None:
        """mosquitto keeps the notices of our session: an arrival that nobody listened to is still a sighting."""
        made = stage.put(user(1))
        stage.loop.run(stage.broker.stop())
        stage.of(made).admitted()
        assert stage.seen("gw1") == []
        stage.restart_adapter()
        assert until(lambda: stage.seen("gw1") == [True])
