"""What every account broker must do, told by real devices over real sockets.

An adapter's test file subclasses `AccountBrokerContract` and gives a fixture ``stage``.
"""

from dataclasses import replace
from typing import Final

import pytest

from provisioner.model.account import Coupling
from provisioner.model.ports import BrokerUser
from provisioner.model.secret import Secret
from tests.contracts.account_broker_stage import CUT_S, REFUSED, Stage, digest, user
from tests.contracts.mqtt_device import ACCEPTED, SOON_S, Device, until

GOING_S: Final = 2.0  # a PUBACK may come before the end of the connection that it stands on

NOT_ITS_OWN: Final = (
    "#",
    "+/#",
    "+/+/#",
    "+/gw1/#",
    "acme/#",
    "acme/+/#",
    "acme/gw1/#",
    "acme/gw1",
    "acme/gw",
    "acme/gw22/#",
    "$EDC/#",
    "$EDC/acme/#",
    "$EDC/acme/gw1/#",
    "$EDC/+/gw1/#",
    "$SYS/#",
    "$share/g/acme/gw1/#",
    "other/gw2/#",
)
"""Filters that are no business of client id gw2 of account acme."""


class AccountBrokerContract:
    """What a broker cannot do, its capabilities say; then the tests ask for what it does instead."""

    def test_put_user_lets_the_device_in(self, stage: Stage) -> None:
        """EC-31: once put_user returned, a connection with those credentials succeeds."""
        made = stage.put(user(1))
        assert stage.of(made).connect() == ACCEPTED
        assert ("acme", "user-1") in stage.loop.run(stage.broker.users())

    def test_put_user_again_changes_nothing(self, stage: Stage) -> None:
        """D6: the same put_user may come again after a crash, and the live connection survives it."""
        made = stage.put(user(1))
        device = stage.of(made).admitted()
        assert device.subscribe("acme/gw1/#")
        stage.put(made)
        stage.put(replace(made, password=None))  # confirmed: the broker keeps what it has
        device.publish("acme/gw1/data", b"still here")
        assert device.got("acme/gw1/data", b"still here")
        assert stage.loop.run(stage.broker.users()).count(("acme", "user-1")) == 1

    def test_put_user_updates_the_password(self, stage: Stage) -> None:
        """An upsert: the new password works, the former one no more."""
        former = stage.put(user(1))
        latter = stage.put(user(1, verifier=digest("Another-word-1"), password=Secret("Another-word-1")))
        assert stage.of(former).connect() in REFUSED
        assert stage.of(latter).connect() == ACCEPTED

    @pytest.mark.parametrize(
        ("username", "password"),
        [
            ("user-1", "Pass-word-2"),
            ("user-1", ""),
            ("user-1", None),
            (None, None),
            ("", "Pass-word-1"),
            ("nobody", "Pass-word-1"),
            ("factory-user", "Factory-word-1"),
        ],
        ids=["wrong", "empty password", "no password", "anonymous", "empty user", "unknown", "provision credentials"],
    )
    def test_bad_login_is_refused_and_harms_nobody(
        self, stage: Stage, username: str | None, password: str | None
    ) -> None:
        """F-11, F-12: no way in without the right password, and the holder of the client id notices nothing."""
        holder = stage.of(stage.put(user(1))).admitted()
        assert holder.subscribe("acme/gw1/#")
        assert stage.device("gw1", username, password).connect() in REFUSED
        holder.publish("acme/gw1/data", b"undisturbed")
        assert holder.got("acme/gw1/data", b"undisturbed")

    def test_another_devices_client_id_is_refused(self, stage: Stage) -> None:
        """F-05, EC-26 STRICT: a valid user under another's client id gets nothing and kicks nobody."""
        holder = stage.of(stage.put(user(1))).admitted()
        assert holder.subscribe("acme/gw1/#")
        self._gains_nothing(stage, stage.of(stage.put(user(2)), "gw1"), holder, "gw1")
        assert not holder.left.is_set()

    @pytest.mark.parametrize("prefix", ["", "$EDC/"])
    def test_own_topics_work_both_ways(self, stage: Stage, prefix: str) -> None:
        """EC-31: what a device publishes below its own prefix reaches its own subscription, `$EDC` included."""
        device = stage.of(stage.put(user(1))).admitted()
        assert device.subscribe(f"{prefix}acme/gw1/#")
        for qos in (0, 1, 2):
            payload = b"at qos %d" % qos
            device.publish(f"{prefix}acme/gw1/MQTT/BIRTH", payload, qos=qos)
            assert device.got(f"{prefix}acme/gw1/MQTT/BIRTH", payload)

    def test_a_spy_hears_nothing(self, stage: Stage) -> None:
        """EC-31: whatever a device subscribes to, it gets its own messages only."""
        victim, spy = stage.of(stage.put(user(1))).admitted(), stage.of(stage.put(user(2))).admitted()
        assert spy.subscribe("acme/gw2/#")
        granted = []
        for topic_filter in NOT_ITS_OWN:
            granted += [topic_filter] * spy.subscribe(topic_filter)
            spy = self._back(stage, spy, user(2))
        if stage.broker.capabilities().refuses_subscribe:
            assert granted == []
        for topic in ("acme/gw1/data", "acme/gw1", "$EDC/acme/gw1/CONF-V1/PUT/configurations"):
            victim.publish(topic, b"private")
        spy.publish("acme/gw2/marker", b"last")
        assert spy.got("acme/gw2/marker", b"last")
        assert {topic for topic, _, _ in spy.received} == {"acme/gw2/marker"}

    def test_a_forger_reaches_nobody(self, stage: Stage) -> None:
        """EC-31, F-07: a publish outside the own topics, retained or not, is delivered to nobody, now or later."""
        victim, forger = stage.of(stage.put(user(1))).admitted(), stage.of(stage.put(user(2))).admitted()
        assert victim.subscribe("acme/gw1/#")
        assert victim.subscribe("$EDC/acme/gw1/#")
        assert forger.subscribe("acme/gw2/#")
        for topic in ("acme/gw1/data", "acme/gw1", "$EDC/acme/gw1/CONF-V1/PUT/configurations"):
            for retain in (False, True):
                forger.publish(topic, b"forged", retain=retain)
                forger = self._back(stage, forger, user(2))
        forger.publish("acme/gw2/marker", b"last")
        assert forger.got("acme/gw2/marker", b"last") or forger.left.is_set()
        assert victim.subscribe("acme/gw1/data")
        victim.publish("acme/gw1/marker", b"last")
        assert victim.got("acme/gw1/marker", b"last")
        assert {topic for topic, _, _ in victim.received} == {"acme/gw1/marker"}

    def test_own_retained_messages_stay_private(self, stage: Stage) -> None:
        """F-07: a message that a device retained is not handed to the next device that connects."""
        keeper = stage.of(stage.put(user(1))).admitted()
        assert keeper.subscribe("acme/gw1/#")
        keeper.publish("acme/gw1/state", b"kept", retain=True)
        assert keeper.got("acme/gw1/state", b"kept")
        stranger = stage.of(stage.put(user(2))).admitted()
        assert stranger.subscribe("acme/gw2/#")
        stranger.publish("acme/gw2/marker", b"last")
        assert stranger.got("acme/gw2/marker", b"last")
        assert {topic for topic, _, _ in stranger.received} == {"acme/gw2/marker"}

    @pytest.mark.parametrize("retain", [False, True])
    def test_a_will_keeps_to_the_publish_rights(self, stage: Stage, retain: bool) -> None:
        """A Will on another device's topic is never published, at once or retained."""
        victim = stage.of(stage.put(user(1))).admitted()
        assert victim.subscribe("acme/gw1/#")
        forger = stage.of(stage.put(user(2)), will=("acme/gw1/data", b"forged", retain))
        if forger.connect() == ACCEPTED:
            forger.vanish()
        later = stage.of(user(2)).admitted()  # whatever the end of the forger set off came before this
        assert later.subscribe("acme/gw2/#")
        later.publish("acme/gw2/marker", b"last")
        assert later.got("acme/gw2/marker", b"last")
        assert victim.subscribe("acme/gw1/data")
        victim.publish("acme/gw1/marker", b"last")
        assert victim.got("acme/gw1/marker", b"last")
        assert {topic for topic, _, _ in victim.received} == {"acme/gw1/marker"}

    def test_a_reserved_user_connects_only_as_its_own_client_id(self, stage: Stage) -> None:
        """EC-25: reserve user, in LOOSE mode too."""
        reserved = stage.put(user(1, reserved=True, coupling=Coupling.LOOSE))
        other = stage.of(stage.put(user(2, coupling=Coupling.LOOSE))).admitted()
        assert other.subscribe("acme/gw2/#")
        for client_id in ("gw2", "gw7"):
            self._gains_nothing(stage, stage.of(reserved, client_id), other, "gw2")
        assert stage.of(reserved).connect() == ACCEPTED
        assert not other.left.is_set()

    def test_a_reserved_client_id_takes_no_other_user(self, stage: Stage) -> None:
        """EC-26: the reservation is honoured in LOOSE mode too (kapua PR 4195)."""
        holder = stage.of(stage.put(user(1, reserved=True, coupling=Coupling.LOOSE))).admitted()
        assert holder.subscribe("acme/gw1/#")
        loose = stage.put(user(2, coupling=Coupling.LOOSE))
        self._gains_nothing(stage, stage.of(loose, "gw1"), holder, "gw1")
        assert not holder.left.is_set()
        if stage.broker.capabilities().loose:
            assert stage.of(loose, "gw7").connect() == ACCEPTED
        else:
            self._gains_nothing(stage, stage.of(loose, "gw7"), holder, "gw1")

    def test_connecting_is_sighted(self, stage: Stage) -> None:
        """The one event that confirms a grant names account, user, client id and address; leaving follows it."""
        device = stage.of(stage.put(user(1))).admitted()
        assert until(lambda: stage.seen("gw1") == [True])
        sighting = stage.sightings[-1]
        assert (sighting.account, sighting.username, sighting.client_id) == ("acme", "user-1", "gw1")
        assert sighting.address == "127.0.0.1"
        device.close()
        if stage.broker.capabilities().reports_leaving:
            assert until(lambda: stage.seen("gw1") == [True, False])
            assert stage.sightings[-1].which == sighting.which
            assert stage.sightings[-1].lost is False

    def test_a_device_that_is_lost_is_told_from_one_that_leaves(self, stage: Stage) -> None:
        """esf 4.7: without a DISCONNECT its Will was due, and the sighting says so; cut by a kick it was not lost."""
        made = stage.put(user(1))
        stage.of(made).admitted().vanish()
        if not stage.broker.capabilities().reports_leaving:
            stage.of(made).admitted()
            assert until(lambda: stage.seen("gw1") == [True, True]), "of the end between the two nothing is told"
            return
        assert until(lambda: stage.seen("gw1") == [True, False])
        assert stage.sightings[-1].lost is True
        if stage.broker.capabilities().kicks:
            stage.of(made).admitted()
            assert until(lambda: stage.seen("gw1") == [True, False, True])
            assert stage.loop.run(stage.broker.kick("acme", "gw1")) is True
            assert until(lambda: stage.seen("gw1") == [True, False, True, False])
            assert stage.sightings[-1].lost is False

    def test_a_refused_login_is_not_sighted(self, stage: Stage) -> None:
        """A device that was not let in must not confirm its grant."""
        made = stage.put(user(1))
        assert stage.device("gw1", "user-1", "Wrong-word-1").connect() in REFUSED
        stage.of(made).admitted()
        assert until(lambda: stage.seen("gw1") != [])
        assert stage.seen("gw1") == [True]

    def test_disabling_cuts_and_refuses_until_enabled(self, stage: Stage) -> None:
        """F-08: a disabled user's connection ends within two seconds; enabling lets the same credentials in."""
        made = stage.put(user(1))
        device = stage.of(made).admitted()
        stage.put(replace(made, enabled=False))
        assert device.left.wait(CUT_S)
        assert stage.of(made).connect() in REFUSED
        stage.put(made)
        assert stage.of(made).connect() == ACCEPTED

    def test_removing_cuts_and_forgets(self, stage: Stage) -> None:
        """Removal ends the connection and the login, may be repeated, and spares users of other accounts."""
        made = stage.put(user(1))
        device = stage.of(made).admitted()
        stage.loop.run(stage.broker.remove_user("other", "user-1"))
        assert not device.left.is_set()
        for _ in range(2):
            stage.loop.run(stage.broker.remove_user("acme", "user-1"))
        assert device.left.wait(CUT_S)
        assert stage.of(made).connect() in REFUSED
        assert ("acme", "user-1") not in stage.loop.run(stage.broker.users())

    def test_kick_cuts_once(self, stage: Stage) -> None:
        """A kick ends the live connection only: the device may come back."""
        made = stage.put(user(1))
        device = stage.of(made).admitted()
        assert stage.loop.run(stage.broker.kick("acme", "gw1")) is True
        assert device.left.wait(CUT_S)
        assert stage.loop.run(stage.broker.kick("acme", "gw1")) is False
        assert stage.of(made).connect() == ACCEPTED

    def test_the_newest_connection_wins(self, stage: Stage) -> None:
        """kapua#2219: the older one is closed, and its end is no sign that the device left."""
        made = stage.put(user(1))
        older = stage.of(made).admitted()
        newer = stage.of(made).admitted()
        assert older.left.wait(SOON_S)
        assert newer.subscribe("acme/gw1/#")
        newer.publish("acme/gw1/data", b"mine")
        assert newer.got("acme/gw1/data", b"mine")
        if stage.broker.capabilities().reports_sightings:
            assert until(lambda: stage.seen("gw1") == [True, True])
        if stage.broker.capabilities().reports_leaving:
            newer.close()
            assert until(lambda: False in stage.seen("gw1"))
            assert stage.seen("gw1") == [True, True, False]

    def _back(self, stage: Stage, device: Device, user: BrokerUser) -> Device:
        """The device, or a new connection of it where a refusal costs it the former one."""
        if not stage.broker.capabilities().refusal_disconnects or not device.left.wait(GOING_S):
            return device
        again = stage.of(user).admitted()
        assert again.subscribe(f"{user.account}/{user.client_id}/#")
        return again

    def _gains_nothing(self, stage: Stage, intruder: Device, holder: Device, home: str) -> None:
        """The login under a client id that is not its own is refused; a broker that knows a device by its user alone
        lets it in as itself, where it neither hears nor reaches the holder of ``home``, who is subscribed."""
        if stage.broker.capabilities().checks_client_id:
            assert intruder.connect() in REFUSED
            return
        intruder.admitted()
        for topic_filter in (f"acme/{home}/#", "#"):
            intruder.subscribe(topic_filter)
        intruder.publish(f"acme/{home}/data", b"forged by an intruder")
        holder.publish(f"acme/{home}/data", b"private")
        assert holder.got(f"acme/{home}/data", b"private")
        assert intruder.subscribe("acme/marker")  # whatever was on its way to it came before this
        assert b"forged by an intruder" not in [payload for _, payload, _ in holder.received]
        assert b"private" not in [payload for _, payload, _ in intruder.received]
        intruder.close()
