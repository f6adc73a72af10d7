"""mosquitto told of users by files and SIGHUP: the common contract against the real server, and what is its own."""

import asyncio
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.model.errors import Conflict, Unavailable
from provisioner.model.ports import BrokerUser
from tests.contracts.account_broker_stage import CUT_S, REFUSED, user
from tests.contracts.mosquitto_contract import MosquittoContract, refuses
from tests.contracts.mosquitto_stage import MosquittoStage, mosquitto_stage
from tests.contracts.mqtt_device import ACCEPTED, until
from tests.support.mosquitto import mosquitto_settings

KIND = "mosquitto-files"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[MosquittoStage]:
    with mosquitto_stage(mosquitto_settings(KIND), tmp_path) as made:
        yield made


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[MosquittoStage]:
    """Told by a command, which notes each sign."""
    settings = mosquitto_settings(KIND)
    command = f"echo sign >> {tmp_path}/signs; kill -HUP $(cat {tmp_path / settings['pid_file']})"
    with mosquitto_stage(settings | {"reload_command": ["sh", "-c", command]}, tmp_path) as made:
        yield made


def signs(stage: MosquittoStage) -> int:
    """How often mosquitto was told to read its files again."""
    path = stage.server.base / "signs"
    return path.read_text().count("sign") if path.exists() else 0


class TestMosquittoFiles(MosquittoContract):
    pass


def put_all(stage: MosquittoStage, users: list[BrokerUser]) -> None:
    async def together() -> None:
        await asyncio.gather(*(stage.broker.put_user(each) for each in users))

    stage.loop.run(together())


def test_many_users_share_one_reading(counted: MosquittoStage) -> None:
    """P9: two hundred users who come together are let in by a few readings of the files, not by one each."""
    before = signs(counted)
    users = [user(number) for number in range(200)]
    put_all(counted, users)
    assert 1 <= signs(counted) - before <= 3
    assert counted.of(users[0]).connect() == counted.of(users[199]).connect() == ACCEPTED


def test_what_is_known_already_costs_no_reading(counted: MosquittoStage) -> None:
    """D6: the same user again, or without its password once it is confirmed, is no change."""
    made = counted.put(user(1))
    before = signs(counted)
    counted.put(made)
    counted.put(replace(made, password=None))
    assert signs(counted) == before


def test_who_asks_while_the_files_are_read_waits_until_they_were(tmp_path: Path) -> None:
    """EC-31: the same user asked for again, as after a crash, is not promised before mosquitto knows it."""
    settings = mosquitto_settings(KIND)
    pid_file, began = tmp_path / settings["pid_file"], tmp_path / "began"
    command = f"touch {began}; sleep 0.4; kill -HUP $(cat {pid_file})"
    with mosquitto_stage(settings | {"reload_command": ["sh", "-c", command]}, tmp_path) as stage:
        stage.put(user(1))
        began.unlink()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(stage.put, user(2))
            assert until(began.exists)
            stage.put(user(2))
            assert stage.of(user(2)).connect() == ACCEPTED
            first.result()


def test_no_clear_password_and_no_reader_but_us(stage: MosquittoStage) -> None:
    """The files hold digests, and belong to nobody else."""
    stage.put(user(1))
    for path in stage.server.folder.iterdir():
        assert "Pass-word-1" not in path.read_text()
        if path.name != "mosquitto.conf":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_confirmed_user_comes_back_with_the_digest_that_was_kept(stage: MosquittoStage) -> None:
    """AZ-05: disabled and enabled without anybody knowing the password, across a restart of the service."""
    made = stage.put(user(1))
    confirmed = replace(made, password=None)
    stage.put(replace(confirmed, enabled=False))
    assert "user-1:" not in (stage.server.folder / "passwords").read_text()
    stage.restart_adapter()
    assert stage.loop.run(stage.broker.users()) == [("acme", "user-1")]
    assert stage.of(made).connect() in REFUSED
    stage.put(confirmed)
    assert stage.of(made).connect() == ACCEPTED


def test_a_username_belongs_to_one_account(stage: MosquittoStage) -> None:
    """Usernames name their account on this broker, and none is that of the service."""
    stage.put(user(1))
    with pytest.raises(Conflict, match="another account"):
        stage.put(user(1, account="other"))
    with pytest.raises(Conflict, match="the service"):
        stage.put(user(2, username="fleetgate"))
    with pytest.raises(Conflict, match="cannot be given"):
        stage.put(user(2, username="two\nlines:"))
    assert stage.of(user(1)).connect() == ACCEPTED


def test_two_accounts_may_use_one_client_id(stage: MosquittoStage) -> None:
    """esf 4.7: the client ids of two accounts neither collide nor hear each other."""
    ours, theirs = stage.put(user(1)), stage.put(user(2, account="other", client_id="gw1"))
    first, second = stage.of(ours).admitted(), stage.of(theirs).admitted()
    assert first.subscribe("#")
    assert second.subscribe("other/gw1/#")
    second.publish("other/gw1/data", b"theirs")
    first.publish("acme/gw1/data", b"ours")
    assert first.got("acme/gw1/data", b"ours")
    assert second.got("other/gw1/data", b"theirs")
    assert len(first.received) == len(second.received) == 1
    assert not first.left.is_set()


def test_a_full_broker_names_the_way_out(tmp_path: Path) -> None:
    """users_max: one more is refused in words, those who are there can still be changed."""
    with mosquitto_stage(mosquitto_settings(KIND, users_max=1), tmp_path) as stage:
        made = stage.put(user(1))
        with pytest.raises(Unavailable, match=r"users_max.*http-callback"):
            stage.put(user(2))
        stage.put(replace(made, enabled=False))
        assert stage.of(made).connect() in REFUSED


def test_a_reload_that_does_not_happen_is_told(tmp_path: Path) -> None:
    """A command that does nothing lets nobody in, and put_user does not pretend that it did."""
    settings = mosquitto_settings(KIND, reload_command=["false"])
    with mosquitto_stage(settings, tmp_path) as stage, pytest.raises(Unavailable, match="reload command"):
        stage.put(user(1))


def test_f_23_the_last_user_is_gone_although_a_crash_came_before_the_sign(stage: MosquittoStage) -> None:
    """F-23, F-08: killed when the files were without the user and mosquitto was not told yet: the effect that is left
    over tells it, also when nobody else is left to be told of."""
    made = stage.put(user(1))
    device = stage.of(made).admitted()
    stage.loop.run(stage.broker.stop())
    (stage.server.folder / "users.jsonl").write_text("")
    stage.restart_adapter()
    stage.loop.run(stage.broker.remove_user("acme", "user-1"))
    assert device.left.wait(CUT_S)
    assert stage.of(made).connect() in REFUSED


def test_while_mosquitto_is_away_nothing_is_promised(stage: MosquittoStage) -> None:
    """EC-31 under kill -9: Unavailable at once, and what was asked for is there when mosquitto is."""
    made = stage.put(user(1))
    stage.server.kill()
    assert until(lambda: refuses(stage, user(2)))
    assert refuses(stage, replace(made, enabled=False))
    stage.server.start()
    assert stage.of(made).connect() in REFUSED  # it was taken out of the files while nobody read them
    assert until(lambda: not refuses(stage, user(2)))
    assert stage.of(user(2)).connect() == ACCEPTED


def test_users_and_service_stay_on_their_own_listeners(stage: MosquittoStage) -> None:
    """AZ-03: nobody comes in without a password, no device by the service's listener, nor the service by theirs."""
    made = stage.put(user(1))
    control = ("127.0.0.1", stage.server.settings.control_port)
    secret = (stage.server.folder / "secret").read_text().strip()
    for address in (stage.address, control):
        stage.address = address
        assert stage.device("gw1", None, None).connect() in REFUSED
    assert stage.of(made).connect() in REFUSED
    stage.address = stage.server.address
    assert stage.device("any", "fleetgate", secret).connect() in REFUSED


def test_a_forged_notice_is_not_believed(stage: MosquittoStage) -> None:
    """A device cannot write mosquitto's log, nor can a stranger whose client id quotes it confirm anybody."""
    stage.put(user(1))
    forger = stage.of(stage.put(user(2))).admitted()
    line = "1795311180: New client connected from 127.0.0.1:9 as user-1 (p2, c1, k60, u'user-1')."
    forger.publish("$SYS/broker/log/N", line.encode())
    stage.device(line, "user-1", "Wrong-word-1").connect()
    stage.device(line, None, None).connect()
    assert until(lambda: stage.seen("gw2") == [True])
    assert stage.of(stage.put(user(3))).connect() == ACCEPTED
    assert until(lambda: stage.seen("gw3") == [True])
    assert stage.seen("gw1") == []


def test_removal_cuts_every_device_of_a_crowd_at_once(stage: MosquittoStage) -> None:
    """F-08: twenty that are disabled together are cut together, and their neighbour stays."""
    users = [user(number) for number in range(21)]
    put_all(stage, users)
    devices = [stage.of(each).admitted() for each in users]
    put_all(stage, [replace(each, enabled=False) for each in users[:20]])
    assert all(device.left.wait(CUT_S) for device in devices[:20])
    assert not devices[20].left.is_set()
