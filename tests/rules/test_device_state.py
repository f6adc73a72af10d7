"""The life of a simulated device: its table of moves, and that no order of events leads out of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.actions import (
    Connected,
    ConnectRefused,
    Disconnected,
    Publish,
    Published,
    Subscribed,
)
from device_sim.gateway import Step
from device_sim.state import MOVES, DeviceState, Move, Phase
from provisioner.model.errors import IllegalMove
from provisioner.model.messages import Status
from tests.rules.device_bench import ACK, NEW, REQUEST, Bench


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("move", list(Move))
def test_every_move_that_is_not_in_the_table_is_illegal(phase: Phase, move: Move) -> None:
    """The table is the whole life of a device."""
    settings = Bench()
    settings.to_question()
    settings.answer("provisioned", **NEW)
    stopped_for = Status.EXPIRED if phase is Phase.STOPPED else None
    state = DeviceState(
        client_id="m", request_id="r", phase=phase, settings=settings.device.state.settings, stopped_for=stopped_for
    )
    if (phase, move) in MOVES:
        changes = {"stopped_for": Status.EXPIRED} if move is Move.GIVE_UP else {}
        assert state.moved(move, **changes).phase is MOVES[phase, move]
    else:
        with pytest.raises(IllegalMove):
            state.moved(move)


@given(
    happenings=st.lists(
        st.one_of(
            st.just("tick"),
            st.just(Connected()),
            st.builds(ConnectRefused, st.sampled_from([None, 0x86])),
            st.just(Disconnected()),
            st.builds(Subscribed, st.sampled_from([(1,), (0x80,)])),
            st.sampled_from([Published(ACK), Published(REQUEST), Published("acme/meter-1/status")]),
            st.sampled_from([*Status, "garbage"]),
        ),
        max_size=40,
    )
)
def test_no_order_of_events_confuses_the_device(happenings: list[Any]) -> None:
    """Whatever comes in whatever order: no illegal move, one request id, and never a silent dead end."""
    bench = Bench()
    bench.start()
    for happening in happenings:
        if happening == "tick":
            if bench.device.due_s is not None:
                bench.sleep()
        elif isinstance(happening, str):
            bench.answer(happening, **NEW)
        else:
            bench.feed(happening)
        waits_for_link = bench.device.step in (Step.CONNECTING, Step.CLOSING)
        assert bench.device.due_s is not None or waits_for_link or bench.device.is_over
    questions = [a for a in bench.actions if isinstance(a, Publish) and a.asks]
    assert {json.loads(question.payload)["request_id"] for question in questions} <= {"ask-1"}


def test_no_secret_shows_in_anything_printed() -> None:
    """Passwords and keys stay out of every action's repr."""
    bench = Bench()
    bench.to_question()
    bench.answer("provisioned", **NEW)
    bench.feed(Disconnected())
    shown = repr(bench.actions)
    assert not [secret for secret in ("Factory-pass-1", "key-1", "New-password-1") if secret in shown]
