"""The lifecycle of a session: one table. A move that is not in it raises IllegalMove and changes nothing."""

from enum import Enum
from typing import Final


class State(Enum):
    """Where a connection stands."""

    AWAITING_CONNECT = "awaiting_connect"
    AUTHENTICATING = "authenticating"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Move(Enum):
    """What may happen to it. TALK: any answer or message to the client. END: every way out but a lost transport."""

    CONNECT = "connect"
    ACCEPT = "accept"
    REFUSE = "refuse"
    TALK = "talk"
    END = "end"
    LOSE = "lose"


TRANSITIONS: Final = {
    (State.AWAITING_CONNECT, Move.CONNECT): State.AUTHENTICATING,
    (State.AWAITING_CONNECT, Move.END): State.CLOSING,
    (State.AWAITING_CONNECT, Move.LOSE): State.CLOSED,
    (State.AUTHENTICATING, Move.ACCEPT): State.OPEN,
    (State.AUTHENTICATING, Move.REFUSE): State.CLOSING,
    (State.AUTHENTICATING, Move.END): State.CLOSING,
    (State.AUTHENTICATING, Move.LOSE): State.CLOSED,
    (State.OPEN, Move.TALK): State.OPEN,
    (State.OPEN, Move.END): State.CLOSING,
    (State.OPEN, Move.LOSE): State.CLOSED,
    (State.CLOSING, Move.LOSE): State.CLOSED,
}


class IllegalMove(Exception):
    """The owner asked for something that the session's state does not allow; nothing was changed."""

    def __init__(self, state: State, move: Move) -> None:
        super().__init__(f"{move.value} is not possible while {state.value}")
        self.state = state
        self.move = move


def moved(state: State, move: Move) -> State:
    """The state after `move`; IllegalMove when the table has no such row."""
    target = TRANSITIONS.get((state, move))
    if target is None:
        raise IllegalMove(state, move)
    return target
