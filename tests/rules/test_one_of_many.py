"""What one gate of many counts and yields: its part of every limit, and to whom it gives way (D12)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.access import Denial
from broker.limits import Attempt, GateLimits, LoginLimits
from broker.roster import Roster

GUESS = Attempt("192.0.2.1", "fleet", "gw")
LIMITS = GateLimits(username_failures_burst=60, username_failures_per_s=0.001, address_failures_per_s=0.001)


def fail(limits: LoginLimits, attempt: Attempt, now: float = 0.0) -> bool:
    """One wrong password; whether it was the one too many."""
    assert limits.begin(attempt, now) is None
    return limits.end(attempt, now, False)


@pytest.mark.parametrize(("gates", "failures"), [(1, 10), (2, 5), (3, 4), (10, 1), (50, 1)])
def test_f_19_each_of_many_gates_locks_out_after_its_part_of_the_failures(gates: int, failures: int) -> None:
    """All gates together listen to no more failures in a row than one gate would, but for rounding."""
    limits = LoginLimits(LIMITS)
    limits.gates = gates
    assert [fail(limits, GUESS) for _ in range(failures)] == [False] * (failures - 1) + [True]
    denied = limits.begin(GUESS, 1.0)
    assert isinstance(denied, Denial)
    assert denied.reason == "locked_out"


@given(gates=st.integers(1, 6))
def test_f_19_the_buckets_of_all_gates_together_hold_what_one_holds(gates: int) -> None:
    """However many gates, an attacker who changes the client id each time gets as many guesses in all."""
    every = [LoginLimits(LIMITS) for _ in range(gates)]
    guesses = 0
    for limits in every:
        limits.gates = gates
        while limits.begin(attempt := Attempt("192.0.2.1", "fleet", f"gw{guesses}"), 0.0) is None:
            limits.end(attempt, 0.0, False)
            guesses += 1
    assert 60 <= guesses <= 60 + gates


def test_f_19_a_lockout_that_another_gate_told_is_one() -> None:
    """As if its last failure had been heard here: that login from there alone, for the time of a lockout, whatever it
    has proven before."""
    limits = LoginLimits(LIMITS)
    assert limits.begin(GUESS, 0.0) is None
    limits.end(GUESS, 0.0, True)
    limits.lock_out(GUESS, 1.0)
    denied = limits.begin(GUESS, 2.0)
    assert isinstance(denied, Denial)
    assert denied.reason == "locked_out"
    assert limits.begin(Attempt("192.0.2.2", "fleet", "gw"), 2.0) is None
    assert limits.begin(GUESS, 1.0 + LIMITS.lockout_s) is None


def test_f_16_who_is_older_gives_way_to_another_gate_unless_it_is_being_answered() -> None:
    """Those that are named go, the newer ones stay; nobody goes while one of them is engaged."""
    roster: Roster[str] = Roster(8, 20.0, 300.0)
    assert roster.arrive("gw", "old", 0.0) == ()
    assert roster.overtaken("gw", {"another"}, 1.0) == ()
    roster.engage("gw", "old", 1.0)
    assert roster.arrive("gw", "new", 2.0) == ()
    assert roster.overtaken("gw", {"old", "new"}, 3.0) == ()
    roster.release("gw", "old")
    assert roster.overtaken("gw", {"old"}, 4.0) == ("old",)
    assert roster.members("gw") == ("new",)
    assert roster.overtaken("gw", {"new"}, 5.0) == ("new",)
    assert len(roster) == 0
    assert roster.overtaken("gw", {"new"}, 6.0) == ()
