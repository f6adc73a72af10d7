"""Who speaks for an identity on the gate: take-over, contenders, kicks, and how a gate ends (F-05, F-08, F-16)."""

import asyncio
import socket
import time

import pytest

from broker.access import Close
from broker.gate import Gate
from broker.limits import GateLimits
from broker.listener import Listener
from broker.packets import (
    V5,
    Disconnect,
    PubAck,
    Publish,
)
from broker.reason_codes import ReasonCode
from tests.walk.gate_house import (
    DEADLINE_S,
    Peer,
    Recorder,
    device,
    dial,
    request_topic,
    response_topic,
    running_gate,
    until,
)


def test_f16_the_newest_owner_takes_over() -> None:
    """F-16: the older connection of the identity is told 0x8E; another tenant with the same client id is not."""
    with running_gate() as house:
        tenant = device(house, "gw", "tenant-b")
        older = device(house, "gw", version=V5)
        newer = device(house, "gw")
        assert older.next_of(Disconnect).code == ReasonCode.SESSION_TAKEN_OVER
        house.until_closed("gw", Close.TAKEN_OVER)
        assert newer.ask(b"x", "gw") == b"answer:x"
        assert tenant.ask(b"y", "gw") == b"answer:y"
        assert house.application.reasons("connection.taken_over") == ["newer_connection"]


def test_f05_a_refused_login_displaces_nobody() -> None:
    """F-05: a wrong password with the victim's client id changes nothing for the victim."""
    with running_gate() as house, device(house) as victim:
        for _ in range(3):
            with Peer(house.gate.ports["plain"]) as attacker:
                assert attacker.connect("gw", password=b"wrong", clean_start=True) == 5
        assert victim.ask(b"x", "gw") == b"answer:x"


def test_f16_while_one_is_engaged_others_get_a_conflict() -> None:
    """F-16: fifty parallel connections of one identity: one is being answered, all others are told "conflict"."""
    with running_gate() as house, device(house) as winner:
        assert winner.ask(b"engage", "gw") == b"answer:engage"
        contenders = [device(house) for _ in range(49)]
        assert {one.ask(b"me too", "gw") for one in contenders} == {b"conflict"}
        assert winner.ask(b"ack", "gw", 8) == b"answer:ack"
        assert winner.ask(b"release", "gw", 9) == b"answer:release"
        assert contenders[-1].ask(b"again", "gw") == b"answer:again"
        assert winner.next() is None
        house.until_closed("gw", Close.TAKEN_OVER)


def test_f16_a_displaced_device_is_not_answered_any_more() -> None:
    """F-16: what an older connection said and was not handled when a newer one displaced it is not handled at all."""
    with running_gate(GateLimits(messages_burst=1, messages_per_s=0.8)) as house, device(house) as older:
        assert older.ask(b"first", "gw") == b"answer:first"
        older.send(Publish(request_topic("gw"), b"late", qos=1, packet_id=9))  # waits for its turn: more than a second
        with device(house) as newer:
            house.until_closed("gw", Close.TAKEN_OVER)
            assert [newer.ask(b"x", "gw", number) for number in (1, 2)] == [b"answer:x"] * 2
        assert ("gw", "late") not in house.application.heard("received")


def test_f16_too_many_contenders_are_told_busy() -> None:
    """F-16: the number of contenders is bounded; one more is not admitted."""
    with running_gate(GateLimits(contenders_max=1)) as house, device(house) as winner:
        winner.ask(b"engage", "gw")
        with device(house) as contender, Peer(house.gate.ports["plain"], V5) as third:
            assert third.connect("gw") == ReasonCode.SERVER_BUSY
            assert contender.ask(b"x", "gw") == b"conflict"
        assert house.application.reasons("connect.refused") == ["contenders_max"]


def test_f16_an_engagement_does_not_last_for_ever() -> None:
    """F-16: after ``engaged_s_max`` a contender that asks again takes over as usual."""
    with running_gate(GateLimits(engaged_s_max=1.0)) as house, device(house) as stuck:
        stuck.ask(b"engage", "gw")
        contender = device(house)
        answers = [contender.ask(b"x", "gw")]

        def takes_over() -> bool:
            answers.append(contender.ask(b"x", "gw"))
            return answers[-1] == b"answer:x"

        until(takes_over, "the contender takes over")
        assert answers[0] == b"conflict"
        house.until_closed("gw", Close.TAKEN_OVER)
        assert stuck.next() is None


def test_f08_a_kicked_identity_is_gone_at_once() -> None:
    """F-08: revoking rights cuts the session, MQTT 5 is told "not authorized"; kicking nobody is no error."""
    with running_gate() as house, device(house, version=V5) as peer:
        assert house.call(house.gate.kick, "fleet/gw") is True
        assert peer.until_hung_up() == [Disconnect(ReasonCode.NOT_AUTHORIZED)]
        house.until_closed("gw", Close.REVOKED)
        assert house.call(house.gate.kick, "fleet/gw") is False


def test_a_finished_device_is_cut_after_its_grace() -> None:
    """A device that was handed over and does not leave by itself is disconnected."""
    with running_gate() as house, device(house) as peer:
        peer.ask(b"finish", "gw")
        assert peer.next() is None
        house.until_closed("gw", Close.FINISHED)


def test_verbs_on_a_closed_connection_do_nothing() -> None:
    """An application that is late with an answer does no harm."""
    with running_gate() as house:
        with device(house):
            (connection,) = house.application.open
        house.until_closed("gw", Close.LOST)

        def late() -> tuple[bool, bool, bool]:
            connection.permit(frozenset(("a",)))
            connection.engage()
            connection.release()
            connection.finish(0.01)
            connection.close(Close.ADMINISTRATIVE)
            return connection.send(response_topic("gw"), b"late"), connection.is_open, connection.contended

        assert house.call(late) == (False, False, False)
        assert len(house.application.heard("closed")) == 1


def test_drain_refuses_newcomers_tells_the_idle_and_lets_answers_arrive() -> None:
    """SIGTERM: idle devices get 0x8B, one whose answer is being made gets that first, and nobody else comes in."""
    with running_gate() as house:
        idle, busy = device(house, "idle", version=V5), device(house, "busy", version=V5)
        port = house.gate.ports["plain"]
        busy.send(Publish(request_topic("busy"), b"wait", qos=1, packet_id=2))
        until(lambda: house.application.under_way == 1, "the message is being handled")
        draining = asyncio.run_coroutine_threadsafe(house.gate.drain(5.0), house.loop)
        assert idle.until_hung_up() == [Disconnect(ReasonCode.SERVER_SHUTTING_DOWN)]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1)
        house.go_on()
        answer = busy.next_of(Publish)
        assert (answer.payload, answer.packet_id) == (b"answer:wait", 1)
        busy.send(PubAck(1))
        assert busy.next_of(Disconnect).code == ReasonCode.SERVER_SHUTTING_DOWN
        draining.result(DEADLINE_S)


def test_drain_ends_in_time_whatever_devices_do() -> None:
    """SIGTERM: a device that never acknowledges, and a stranger, do not hold the gate up."""
    with running_gate() as house:
        stubborn = device(house)
        stubborn.send(Publish(request_topic("gw"), b"x"))
        assert stubborn.next_of(Publish).payload == b"answer:x"
        dial(house.gate.ports["plain"])
        started_s = time.monotonic()
        house.drain(0.2)
        assert time.monotonic() - started_s < 2
        assert house.gate.connections() == ()


def test_a_taken_port_is_an_error_and_leaves_nothing_listening() -> None:
    """``start`` raises OSError when one of its listeners cannot be had."""
    with running_gate() as house:
        taken = Listener(name="taken", port=house.gate.ports["plain"])
        gate = Gate(Recorder(), [Listener(name="free"), taken])
        with pytest.raises(OSError, match="in use"):
            asyncio.run_coroutine_threadsafe(gate.start(), house.loop).result(5)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gate.ports["free"]), 1)
    with pytest.raises(ValueError, match="names"):
        Gate(Recorder(), [Listener(name="a"), Listener(name="a")])
