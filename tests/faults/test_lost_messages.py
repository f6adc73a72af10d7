"""What gets lost or arrives twice between a device and the gate costs time, never a device and never a second user."""

import json
import random
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.packets import V5, V311, PubAck, Publish, Version
from tests.support.crowd import await_confirmed, crowd, meanwhile
from tests.support.device import JsonDevice, Wire
from tests.support.fleet import QUICK, all_came_home, fleet_of, run_fleet
from tests.support.installation import Installation

FreshId = Callable[[], str]


def one_grant(installation: Installation, client_id: str) -> None:
    """One account user and one grant in the audit log, however often the device asked."""
    assert len(installation.users_of(client_id)) == 1
    assert len(installation.audit("provision.granted", client_id=client_id)) == 1


def cut_hard(wire: Wire) -> None:
    """With a reset: nothing that is still under way reaches the device."""
    assert isinstance(wire.socket, socket.socket)
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


@pytest.mark.parametrize("version", [V311, V5])
def test_f_26_a_question_delivered_twice_has_one_answer(
    shared_installation: Installation, fresh_id: FreshId, version: Version
) -> None:
    """F-26: copies of a question, with DUP before its PUBACK and after it, bring the same bytes and one user."""
    credentials = shared_installation.request(fresh_id())
    with shared_installation.device(credentials, version=version) as device:
        wire, topic, payload = device.wire, f"{device.base}/request", device.payload("m-1")
        # In MQTT 5 nobody may send again on the same connection [MQTT-4.4.0-1]: there the copies are messages.
        at_once = [Publish(topic, payload, qos=1, packet_id=77 + (n if version == V5 else 0)) for n in range(3)]
        wire.send(at_once[0], *(replace(each, dup=version == V311) for each in at_once[1:]))
        answers = [_payload(wire.message())]
        wire.next(PubAck)
        wire.send(replace(at_once[0], packet_id=80))
        wire.send(Publish(topic, device.payload("m-2"), qos=1, packet_id=81))
        while json.loads(answers[-1])["request_id"] == "m-1":
            answers.append(_payload(wire.message()))
    *same, other = answers
    assert len(same) >= 2
    assert len(set(same)) == 1
    assert json.loads(same[0])["status"] == json.loads(other)["status"] == "provisioned"
    assert json.loads(same[0])["password"] == json.loads(other)["password"]
    one_grant(shared_installation, credentials.client_id)


def test_f_26_a_question_repeated_on_the_next_connection_is_the_same_question(
    shared_installation: Installation, fresh_id: FreshId
) -> None:
    """F-26: a device that redelivers what was not acknowledged, with DUP on a new connection, asks nothing new."""
    credentials = shared_installation.request(fresh_id())
    with shared_installation.device(credentials) as device:
        first = device.ask_raw(device.payload("m-1"))
    with shared_installation.device(credentials) as device:
        device.wire.publish(f"{device.base}/request", device.payload("m-1"), dup=True)
        assert _payload(device.wire.message()) == first
    one_grant(shared_installation, credentials.client_id)


@pytest.mark.parametrize("kind", ["json", "esf", "kura"])
@pytest.mark.parametrize(
    "faults",
    [{"duplicate": {}}, {"lost_answer": {"count": 1}}, {"lost_answer": {"count": 1, "how": "cut"}}],
    ids=["twice", "forgotten", "cut"],
)
def test_f_28_devices_of_every_kind_get_over_it(
    shared_installation: Installation, fresh_id: FreshId, kind: str, faults: dict[str, Any], seed: int
) -> None:
    """F-26, F-28: duplicates, and answers that are lost with or without the socket, end in one confirmed grant."""
    ids = [fresh_id() for _ in range(3)]
    # A gateway is sent its configuration again by the gate, after 1 s and 2 s.
    timeouts = {**QUICK, "reply_s": 0.5 if kind == "json" else 5.0}
    fleets = [fleet_of(shared_installation.request(id), kind=kind, faults=faults, timeouts=timeouts) for id in ids]
    report, _ = run_fleet(shared_installation, *fleets, seed=seed)
    assert report.is_met, report.outcomes()
    assert all(part.faults for part in report.fleets), "the faults did not happen"
    for id in ids:
        shared_installation.await_state(id, "confirmed")
        assert len(shared_installation.users_of(id)) == 1


def test_f_28_the_socket_dies_with_the_answer_in_it(
    shared_installation: Installation, fresh_id: FreshId, seed: int
) -> None:
    """F-28: a device cut at any instant around its answer asks again with the same id and has the same credential."""
    chance = random.Random(f"{seed}/cuts")
    for step in range(12):
        credentials = shared_installation.request(fresh_id())
        device = shared_installation.device(credentials)
        device.wire.publish(f"{device.base}/request", device.payload("m-1"), wait=False)
        time.sleep((step + chance.random()) * 0.001)
        cut_hard(device.wire)
        answers = set()
        for _ in range(2):
            with shared_installation.device(credentials) as device:
                answers.add(_answered(device))
        assert len(answers) == 1
        one_grant(shared_installation, credentials.client_id)


def test_f_28_a_device_that_forgot_its_question_too(shared_installation: Installation, fresh_id: FreshId) -> None:
    """F-28: rebooted without a memory it asks under another id, and still is given the very same user and password."""
    credentials = shared_installation.request(fresh_id())
    lost = shared_installation.device(credentials)
    lost.wire.publish(f"{lost.base}/request", lost.payload("m-1"))
    cut_hard(lost.wire)
    with shared_installation.device(credentials) as device:
        first = device.ask("m-2")
    with shared_installation.device(credentials) as device:
        second = device.ask("m-3")
    login = ("username", "password", "client_id", "device_id", "broker_url")
    assert [first[name] for name in login] == [second[name] for name in login]
    assert len(shared_installation.users_of(credentials.client_id)) == 1
    one_grant(shared_installation, credentials.client_id)


def test_f_29_a_word_that_is_lost_or_late_changes_nothing(
    shared_installation: Installation, fresh_id: FreshId, seed: int
) -> None:
    """F-29: a device cut at any instant around its acknowledgement is confirmed when it is seen at home; what it says
    afterwards, even that it failed, is not heard."""
    chance = random.Random(f"{seed}/acknowledgements")
    for _ in range(6):
        credentials = shared_installation.request(fresh_id())
        device = shared_installation.device(credentials)
        answer = device.ask("m-1")
        if chance.random() < 0.7:
            device.wire.publish(f"{device.base}/ack", b'{"request_id":"m-1","result":"applied"}', wait=False)
            time.sleep(chance.uniform(0, 0.003))
        cut_hard(device.wire)
        with shared_installation.account_wire(answer, "north"):
            shared_installation.await_state(credentials.client_id, "confirmed")
        with shared_installation.device(credentials) as device:
            device.acknowledge("m-1", "failed")
            assert device.ask("m-2")["status"] == "already_provisioned"
        assert shared_installation.state(credentials.client_id) == "confirmed"
        one_grant(shared_installation, credentials.client_id)


def test_f_27_devices_that_ask_while_the_service_is_down(
    make_installation: Callable[..., Installation], tmp_path: Path, seed: int
) -> None:
    """F-27: switched on before the service is, and asking while it restarts, all are provisioned without a hand."""
    installation = make_installation()
    with installation.running():
        installation.account()
        fleet = crowd(installation, tmp_path, 60)
        by_hand = len(installation.audit("request.create"))
    arrival, chance = {"pattern": "uniform", "over_s": 4.0}, random.Random(f"{seed}/moments")

    def down_up_down_up() -> None:
        time.sleep(chance.uniform(0.2, 0.6))
        installation.start()
        time.sleep(chance.uniform(0.3, 0.7))
        installation.stop()
        time.sleep(chance.uniform(0.2, 0.6))
        installation.start()

    with meanwhile(down_up_down_up):
        report, made = run_fleet(installation, {**fleet, "arrival": arrival, "timeouts": QUICK}, seed=seed)
    assert all_came_home(made), report.outcomes()  # their account broker restarts as well
    assert report.elapsed_s < 60
    await_confirmed(installation, 60)
    assert sum(row["actor"].startswith("admin:") for row in installation.audit()) == by_hand + 1  # the account
    assert len(installation.listed("user.page", account="acme")) == 60
    assert installation.ask("fsck") == {"findings": []}
    installation.stop()


def _payload(message: Publish | None) -> bytes:
    assert message is not None
    return message.payload


def _answered(device: JsonDevice) -> bytes:
    """The answer ``provisioned``, asked for until the cut connection before it no longer stands in the way."""
    until_s = time.monotonic() + 5
    while True:
        payload = device.ask_raw(device.payload("m-1"))
        if json.loads(payload)["status"] != "conflict":
            return payload
        assert time.monotonic() < until_s
        time.sleep(0.05)
