"""mosquitto with its dynamic security plugin: the common contract against the real server, and what is its own."""

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.account_brokers import dynsec_commands
from provisioner.model.errors import Conflict, Unavailable
from provisioner.model.secret import Secret
from tests.contracts.account_broker_stage import CUT_S, REFUSED, digest, user
from tests.contracts.mosquitto_contract import MosquittoContract, refuses
from tests.contracts.mosquitto_stage import MosquittoStage, mosquitto_stage
from tests.contracts.mqtt_device import ACCEPTED, Device, until
from tests.support.mosquitto import mosquitto_settings

KIND = "mosquitto-dynsec"
COMMANDS = "$CONTROL/dynamic-security/v1"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[MosquittoStage]:
    with mosquitto_stage(mosquitto_settings(KIND), tmp_path) as made:
        yield made


class TestMosquittoDynsec(MosquittoContract):
    pass


def administrator(stage: MosquittoStage) -> Device:
    """Somebody else with the rights of the service, who hears every answer."""
    secret = (stage.server.folder / "secret").read_text().strip()
    return stage.device("somebody else", "fleetgate", secret).admitted()


def state(stage: MosquittoStage) -> dict[str, list[dict[str, object]]]:
    found = json.loads((stage.server.folder / "dynamic-security.json").read_text())
    return {kind: found[kind] for kind in ("clients", "roles")}


def test_a_full_broker_names_the_other_adapter(tmp_path: Path) -> None:
    """users_max: one more is refused and mosquitto-files is named; those who are there can still be changed."""
    with mosquitto_stage(mosquitto_settings(KIND, users_max=1), tmp_path) as stage:
        made = stage.put(user(1))
        with pytest.raises(Unavailable, match=r"has its 1 users \(users_max\).*mosquitto-files"):
            stage.put(user(2))
        stage.put(replace(made, enabled=False))
        assert stage.of(made).connect() in REFUSED


def test_a_confirmed_user_comes_back_without_its_password(stage: MosquittoStage) -> None:
    """AZ-05: disabled and enabled without anybody knowing the password, across restarts of both sides."""
    made = stage.put(user(1))
    confirmed = replace(made, password=None)
    stage.put(replace(confirmed, enabled=False))
    stage.server.kill()
    stage.server.start()
    stage.restart_adapter()
    assert stage.loop.run(stage.broker.users()) == [("acme", "user-1")]
    assert stage.of(made).connect() in REFUSED
    stage.put(confirmed)
    assert stage.of(made).connect() == ACCEPTED


def test_the_state_holds_no_password(stage: MosquittoStage) -> None:
    """Neither the clear password nor the verifier of the service is in the plugin's file."""
    stage.put(user(1))
    text = (stage.server.folder / "dynamic-security.json").read_text()
    assert "user-1" in text
    assert "Pass-word-1" not in text
    assert user(1).verifier not in text


def test_only_a_new_password_cuts(stage: MosquittoStage) -> None:
    """A user that stays as it is keeps its connection over a restart of the service; a new password ends it."""
    made = stage.put(user(1))
    device = stage.of(made).admitted()
    stage.restart_adapter()
    stage.put(made)
    assert not device.left.is_set()
    stage.put(user(1, verifier=digest("Another-word-1"), password=Secret("Another-word-1")))
    assert device.left.wait(CUT_S)


def test_names_and_client_ids_belong_to_one_account(stage: MosquittoStage) -> None:
    """mosquitto knows no accounts: a second one can have neither the user's name nor the client id."""
    stage.put(user(1))
    for other in (user(1, account="other", client_id="gw9"), user(2, account="other", client_id="gw1")):
        with pytest.raises(Conflict, match="another account"):
            stage.put(other)
    with pytest.raises(Conflict, match="the service"):
        stage.put(user(2, username="fleetgate"))
    assert stage.of(user(1)).connect() == ACCEPTED


def test_what_a_crash_left_half_made_is_swept(stage: MosquittoStage) -> None:
    """A role of ours without its client does not stand in the way of the user, and is gone after a start."""
    admin = administrator(stage)
    left = {"command": "createRole", "rolename": "fleetgate/acme/user-1", "acls": []}
    admin.publish(COMMANDS, json.dumps({"commands": [left, {**left, "rolename": "of the site"}]}).encode())
    assert until(lambda: "of the site" in str(state(stage)["roles"]))
    stage.restart_adapter()
    assert until(lambda: "fleetgate/acme/user-1" not in str(state(stage)["roles"]))
    assert "of the site" in str(state(stage)["roles"])
    assert stage.of(stage.put(user(1))).connect() == ACCEPTED


def test_an_answer_that_came_too_late_is_found_out(stage: MosquittoStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """EC-31: a plugin that made the user after we had stopped waiting is asked what it has; it refused the user for
    ever, for it had its role already."""
    assert stage.server.process is not None
    with monkeypatch.context() as impatient:
        impatient.setattr(dynsec_commands, "ANSWER_WITHIN_S", 0.2)
        stage.server.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable, match="does not answer"):
                stage.put(user(1))
        finally:
            stage.server.process.send_signal(signal.SIGCONT)
    assert until(lambda: not refuses(stage, user(1)))
    assert stage.of(user(1)).connect() == ACCEPTED


def test_a_plugin_that_is_slow_at_first_is_asked_again(stage: MosquittoStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that could not learn what the plugin has tries again while the connection lasts."""
    with monkeypatch.context() as impatient:
        impatient.setattr(dynsec_commands, "ANSWER_WITHIN_S", 0.0)
        stage.restart_adapter()
        assert refuses(stage, user(1))
    assert until(lambda: not refuses(stage, user(1)))


def test_another_administrators_answers_are_not_taken_for_ours(stage: MosquittoStage) -> None:
    """Answers go to everybody: an error that is somebody else's fails nothing here."""
    admin = administrator(stage)
    for number in range(20):
        admin.publish(COMMANDS, b'{"commands":[{"command":"deleteClient","username":"nobody","correlationData":"1"}]}')
        stage.put(user(number))
    assert len(stage.loop.run(stage.broker.users())) == 20


def test_what_is_open_by_default_is_closed(stage: MosquittoStage) -> None:
    """Delivery is allowed to everybody after `dynsec init`; the service denies it each time it comes."""
    admin = administrator(stage)
    wide = {"command": "setDefaultACLAccess", "acls": [{"acltype": "publishClientReceive", "allow": True}]}
    admin.publish(COMMANDS, json.dumps({"commands": [wide]}).encode())
    read = (stage.server.folder / "dynamic-security.json").read_text
    assert until(lambda: json.loads(read())["defaultACLAccess"]["publishClientReceive"] is True)
    stage.restart_adapter()
    assert json.loads(read())["defaultACLAccess"]["publishClientReceive"] is False


def test_while_mosquitto_is_away_nothing_is_promised(stage: MosquittoStage) -> None:
    """EC-31 under kill -9: Unavailable at once, and everything works again when mosquitto is back."""
    made = stage.put(user(1))
    stage.server.kill()
    assert until(lambda: refuses(stage, user(2)))
    stage.server.start()
    assert until(lambda: not refuses(stage, user(2)))
    assert stage.of(made).connect() == stage.of(user(2)).connect() == ACCEPTED


def test_a_forged_notice_is_not_believed(stage: MosquittoStage) -> None:
    """A device can neither write mosquitto's log nor command its plugin; a stranger's client id confirms nobody."""
    stage.put(user(1))
    forger = stage.of(stage.put(user(2))).admitted()
    line = "1795311180: New client connected from 127.0.0.1:9 as gw1 (p2, c1, k60, u'user-1')."
    forger.publish("$SYS/broker/log/N", line.encode())
    forger.publish(COMMANDS, b'{"commands":[{"command":"deleteClient","username":"user-1"}]}')
    forger.publish(f"{COMMANDS}/response", b'{"responses":[]}')
    assert not forger.subscribe(f"{COMMANDS}/response")
    stage.device(line, "user-1", "Wrong-word-1").connect()
    stage.device(line, None, None).connect()
    assert until(lambda: stage.seen("gw2") == [True])
    assert stage.of(stage.put(user(3))).connect() == ACCEPTED
    assert until(lambda: stage.seen("gw3") == [True])
    assert stage.seen("gw1") == []
    assert stage.of(user(1)).connect() == ACCEPTED
