"""The state table of a session: every pair of state and move, and verbs that are not possible change nothing."""

import pickle
from collections.abc import Callable
from itertools import product

import pytest

from broker.packets import V5, V311, Connect, Publish, Subscribe, Subscription, Unsubscribe, Version
from broker.session import Session
from broker.session_events import PublishReceived
from broker.session_settings import Refusal
from broker.session_state import TRANSITIONS, IllegalMove, Move, State, moved
from tests.rules.session_peer import SessionPeer, opened

BOTH = pytest.mark.parametrize("version", [V311, V5])

_VERBS: dict[str, tuple[Move, Callable[[Session], object]]] = {
    "accept": (Move.ACCEPT, lambda session: session.accept(1_000.0)),
    "refuse": (Move.REFUSE, lambda session: session.refuse(Refusal.NOT_AUTHORISED)),
    "answer_subscribe": (Move.TALK, lambda session: session.answer_subscribe(1, [1])),
    "answer_unsubscribe": (Move.TALK, lambda session: session.answer_unsubscribe(2)),
    "acknowledge": (Move.TALK, lambda session: session.acknowledge(3)),
    "publish": (Move.TALK, lambda session: session.publish("t", b"", 1_000.0)),
    "publish_at_most_once": (Move.TALK, lambda session: session.publish_at_most_once("t", b"")),
    "disconnect": (Move.END, lambda session: session.disconnect()),
    "connection_lost": (Move.LOSE, lambda session: session.connection_lost()),
}


def _in(state: State, version: Version) -> Session:
    """A session in the state; an open one owes an answer to a SUBSCRIBE, an UNSUBSCRIBE and a PUBLISH."""
    peer = SessionPeer(version)
    if state is not State.AWAITING_CONNECT:
        peer.send(Connect("dev"))
    if state is State.OPEN:
        peer.session.accept(peer.now)
        peer.send(Subscribe(1, (Subscription("a"),)), Unsubscribe(2, ("a",)), Publish("a", b"", 1, packet_id=3))
    if state in (State.CLOSING, State.CLOSED):
        peer.session.refuse(Refusal.NOT_AUTHORISED)
    if state is State.CLOSED:
        peer.session.connection_lost()
    assert peer.session.state is state
    return peer.session


def test_the_table_is_the_lifecycle() -> None:
    """Every pair of state and move is either in this list or illegal, and illegal moves raise."""
    allowed = {
        "awaiting_connect": {"connect": "authenticating", "end": "closing", "lose": "closed"},
        "authenticating": {"accept": "open", "refuse": "closing", "end": "closing", "lose": "closed"},
        "open": {"talk": "open", "end": "closing", "lose": "closed"},
        "closing": {"lose": "closed"},
        "closed": {},
    }
    for state, move in product(State, Move):
        target = allowed[state.value].get(move.value)
        if target is None:
            with pytest.raises(IllegalMove) as caught:
                moved(state, move)
            assert (caught.value.state, caught.value.move) == (state, move)
        else:
            assert moved(state, move).value == target


@pytest.mark.parametrize("verb", list(_VERBS))
@pytest.mark.parametrize("state", list(State))
@BOTH
def test_illegal_verbs_raise_and_change_nothing(version: Version, state: State, verb: str) -> None:
    """In each state each verb either does its move or raises IllegalMove and leaves every bit as it was."""
    session = _in(state, version)
    move, call = _VERBS[verb]
    if (state, move) in TRANSITIONS:
        call(session)
        assert session.state is TRANSITIONS[state, move]
        return
    before = pickle.dumps(session)
    with pytest.raises(IllegalMove):
        call(session)
    assert pickle.dumps(session) == before


@pytest.mark.parametrize(
    "call",
    [
        lambda session: session.answer_subscribe(9, [1]),
        lambda session: session.answer_subscribe(1, [1, 1]),
        lambda session: session.answer_subscribe(1, []),
        lambda session: session.answer_subscribe(1, [2]),
        lambda session: session.answer_subscribe(1, [0x85]),
        lambda session: session.answer_subscribe(2, [1]),
        lambda session: session.answer_unsubscribe(9),
        lambda session: session.answer_unsubscribe(1),
        lambda session: session.answer_unsubscribe(2, [0x85]),
        lambda session: session.answer_unsubscribe(2, [0, 0]),
        lambda session: session.acknowledge(9),
        lambda session: session.acknowledge(1),
        lambda session: session.acknowledge(3, 0x85),
        lambda session: session.disconnect(0x85),
        lambda session: session.publish("a/#", b"", 1_000.0),
        lambda session: session.publish("", b"", 1_000.0),
        lambda session: session.publish_at_most_once("+", b""),
    ],
)
@BOTH
def test_wrong_answers_raise_and_change_nothing(version: Version, call: Callable[[Session], object]) -> None:
    """Unknown packet ids, wrong counts and codes that the packet cannot carry are the owner's mistake: ValueError."""
    session = _in(State.OPEN, version)
    before = pickle.dumps(session)
    with pytest.raises(ValueError, match=r"."):
        call(session)
    assert pickle.dumps(session) == before


@BOTH
def test_an_answer_is_given_once(version: Version) -> None:
    """The second answer to the same packet is a mistake of the owner."""
    peer = opened(version)
    (event,) = peer.send(Publish("a", b"", 1, packet_id=3))
    assert isinstance(event, PublishReceived)
    peer.session.acknowledge(3)
    with pytest.raises(ValueError, match="packet id"):
        peer.session.acknowledge(3)
