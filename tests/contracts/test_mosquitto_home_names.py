"""mosquitto told of users by files, where a user is named by its home: two patterns give each its own topics (P9)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.model.errors import Conflict, Unavailable
from tests.contracts.account_broker_contract import AccountBrokerContract
from tests.contracts.account_broker_stage import CUT_S, REFUSED, Stage, user
from tests.contracts.home_names import home_stage
from tests.contracts.mosquitto_stage import MosquittoStage, mosquitto_stage
from tests.contracts.mqtt_device import ACCEPTED
from tests.support.mosquitto import mosquitto_settings

KIND = "mosquitto-files"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with home_stage(mosquitto_settings(KIND), tmp_path) as made:
        yield made


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[MosquittoStage]:
    """Users under the names that the test says."""
    with mosquitto_stage(mosquitto_settings(KIND), tmp_path) as made:
        yield made


class TestMosquittoHomeNames(AccountBrokerContract):
    pass


def access_list(stage: MosquittoStage) -> str:
    return (stage.server.folder / "acl").read_text()


def test_a_user_that_is_named_by_its_home_stands_in_no_list(plain: MosquittoStage) -> None:
    """P9: the access list does not grow with such users, so that a reading does not cost the square of them."""
    plain.put(user(1, username="acme/gw1"))
    before = access_list(plain)
    plain.put(user(2, username="acme/gw2"))
    assert access_list(plain) == before
    plain.put(user(3))
    assert "user user-3\n" in access_list(plain)


def test_two_names_of_one_device_hold_side_by_side(plain: MosquittoStage) -> None:
    """D7: a new grant under the second name leaves the former credentials alone until they are taken away."""
    former = plain.put(user(1, username="acme/gw1"))
    latter = plain.put(user(2, client_id="gw1"))
    assert plain.of(former).connect() == plain.of(latter).connect() == ACCEPTED
    device, other = plain.of(latter).admitted(), plain.of(former).admitted()
    assert device.subscribe("acme/gw1/#")
    other.publish("acme/gw1/data", b"one home")
    assert device.got("acme/gw1/data", b"one home")
    plain.loop.run(plain.broker.remove_user("acme", "acme/gw1"))
    assert other.left.wait(CUT_S)
    assert plain.of(former).connect() in REFUSED
    assert not device.left.is_set()


@pytest.mark.parametrize("prefix", ["", "$EDC/"])
def test_a_second_name_opens_no_account_of_that_name(plain: MosquittoStage, prefix: str) -> None:
    """EC-31: a user without a home's name gets nothing by the patterns, were an account called as it is."""
    victim = plain.of(plain.put(user(1, account="user-2", username="user-2/gw1"))).admitted()
    assert victim.subscribe(f"{prefix}user-2/gw1/#")
    thief = plain.of(plain.put(user(2))).admitted()
    thief.subscribe(f"{prefix}user-2/#")
    thief.publish(f"{prefix}user-2/gw1/data", b"forged")
    victim.publish(f"{prefix}user-2/gw1/data", b"private")
    assert victim.got(f"{prefix}user-2/gw1/data", b"private")
    assert thief.subscribe("acme/gw2/#")
    thief.publish("acme/gw2/marker", b"last")
    assert thief.got("acme/gw2/marker", b"last")
    assert [topic for topic, _, _ in thief.received] == ["acme/gw2/marker"]
    assert [payload for _, payload, _ in victim.received] == [b"private"]


@pytest.mark.parametrize(
    ("username", "account", "client_id"),
    [
        ("acme/gw1", "acme", "gw2"),
        ("acme/gw1", "other", "gw1"),
        ("acme/gw1/x", "acme", "gw1"),
        ("acme/", "acme", "gw1"),
        ("acme/gw:1", "acme", "gw:1"),
        ("acme", "acme", "gw1"),
    ],
)
def test_no_home_but_ones_own_is_a_name(plain: MosquittoStage, username: str, account: str, client_id: str) -> None:
    """EC-31: a name that the patterns would make another device's home, or an account, is refused before it is
    written."""
    with pytest.raises(Conflict, match="cannot be given"):
        plain.put(user(1, username=username, account=account, client_id=client_id))


def test_who_has_a_second_name_is_limited(plain: MosquittoStage) -> None:
    """P9: such users are what makes a reading slow, so that there is a number of them, and the refusal says what to
    do."""
    broker = plain.broker
    broker._place = replace(broker._place, sections_max=1)  # type: ignore[attr-defined]  # the real number takes minutes
    plain.put(user(1))
    with pytest.raises(Unavailable, match="--cut"):
        plain.put(user(2))
    assert plain.of(plain.put(user(2, username="acme/gw2"))).connect() == ACCEPTED
    plain.put(user(1, enabled=False))
    plain.loop.run(broker.remove_user("acme", "user-1"))
    assert plain.of(plain.put(user(3))).connect() == ACCEPTED
