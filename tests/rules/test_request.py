"""The provision request: its life cycle, its window, and what it holds while it is open."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.model.errors import IllegalMove, InvalidInput
from provisioner.model.request import Approval, RequestMove, RequestState, check_window, login_key, move
from tests.rules.nouns import HOUR, INSTANT, NOON, a_grant, a_request

PENDING, GRANTED, CONFIRMED, REVOKED = RequestState

# The whole life of a request, one row a state; "-" is illegal.
LIFE = {
    #           grant      confirm      revoke     rearm
    PENDING: ("granted", "-", "revoked", "pending"),
    GRANTED: ("granted", "confirmed", "revoked", "pending"),
    CONFIRMED: ("-", "-", "revoked", "pending"),
    REVOKED: ("-", "-", "-", "pending"),
}


@pytest.mark.parametrize("state", list(RequestState))
@pytest.mark.parametrize(("column", "what"), list(enumerate(RequestMove)))
def test_the_life_cycle_has_these_moves_and_no_others(state: RequestState, column: int, what: RequestMove) -> None:
    """Every state and move: the next state, or IllegalMove that names both (D5, D6)."""
    expected = LIFE[state][column]
    if expected == "-":
        with pytest.raises(IllegalMove, match=f"{state} request cannot {what}"):
            move(state, what)
    else:
        assert move(state, what) == expected


@given(st.lists(st.sampled_from(RequestMove), max_size=12))
def test_only_rearming_opens_a_closed_request(moves: list[RequestMove]) -> None:
    """EC-07: whatever is tried in whatever order, an illegal move changes nothing and only rearm re-opens."""
    request = a_request()
    for what in moves:
        before = request
        try:
            request = replace(request, state=move(request.state, what))
        except IllegalMove:
            assert request == before
            continue
        if not before.is_open and request.is_open:
            assert what is RequestMove.REARM


# The window.


@pytest.mark.parametrize(
    ("approval", "at", "phase"),
    [
        (Approval.NOT_REQUIRED, NOON - INSTANT, "scheduled"),
        (Approval.NOT_REQUIRED, NOON, "active"),
        (Approval.NOT_REQUIRED, NOON + HOUR - INSTANT, "active"),
        (Approval.NOT_REQUIRED, NOON + HOUR, "expired"),
        (Approval.AWAITING, NOON - INSTANT, "scheduled"),
        (Approval.AWAITING, NOON, "waiting"),
        (Approval.AWAITING, NOON + HOUR, "expired"),
        (Approval.APPROVED, NOON, "active"),
        (Approval.REJECTED, NOON, "rejected"),
    ],
)
def test_the_phase_of_a_pending_request_follows_from_the_clock(approval: Approval, at: datetime, phase: str) -> None:
    """EC-24, D5: the window is half-open, [activates_on, expires_on), and never stored as a state."""
    assert a_request(activates_on=NOON, expires_on=NOON + HOUR, approval=approval).phase(at) == phase


@pytest.mark.parametrize("state", [GRANTED, CONFIRMED, REVOKED])
@pytest.mark.parametrize("at", [NOON - 2 * HOUR, NOON, NOON + 2 * HOUR])
def test_beyond_pending_the_clock_no_longer_matters(state: RequestState, at: datetime) -> None:
    """D5: what was granted, confirmed or revoked is so at every instant."""
    assert a_request(state=state, expires_on=NOON + HOUR).phase(at) == state


@pytest.mark.parametrize(("state", "phase"), [(GRANTED, "restored"), (CONFIRMED, CONFIRMED), (REVOKED, REVOKED)])
def test_f_40_an_open_request_of_a_former_epoch_is_restored(state: RequestState, phase: str) -> None:
    """F-40: what was open in a backup is neither active nor granted before somebody answered for it."""
    assert a_request(state=state, epoch=2).phase(NOON, 3) == phase
    assert a_request(epoch=2).phase(NOON, 3) == "restored"
    assert a_request(epoch=3).phase(NOON, 3) == "active"


def test_a_request_without_an_end_never_expires() -> None:
    """EC-21: no expires_on means active for good."""
    assert a_request(expires_on=None).phase(NOON.replace(year=9999)) == "active"


@pytest.mark.parametrize("expires_on", [NOON, NOON - INSTANT, NOON - 1000 * HOUR])
def test_a_window_must_not_be_empty(expires_on: datetime) -> None:
    """EC-23: expires_on equal to or before activates_on is refused by name."""
    with pytest.raises(InvalidInput) as refused:
        a_request(activates_on=NOON, expires_on=expires_on)
    assert [problem.field for problem in refused.value.problems] == ["expires_on"]


def test_the_shortest_window_is_an_instant() -> None:
    """EC-23: one microsecond is a window."""
    assert a_request(activates_on=NOON, expires_on=NOON + INSTANT).phase(NOON) == "active"


def test_windows_are_compared_as_instants() -> None:
    """F-33: an end that reads earlier on the wall but lies later in time is accepted, and the reverse refused."""
    east, west = timezone(timedelta(hours=9)), timezone(timedelta(hours=-9))
    wall = datetime(2026, 3, 1, 12, 0)
    assert check_window(wall.replace(tzinfo=east), wall.replace(hour=11, tzinfo=west)) == []
    assert check_window(wall.replace(tzinfo=west), wall.replace(hour=13, tzinfo=east)) != []


@pytest.mark.parametrize("field", ["activates_on", "expires_on"])
def test_a_time_without_offset_is_refused(field: str) -> None:
    """F-33: a naive time is no instant."""
    with pytest.raises(InvalidInput) as refused:
        a_request(**{field: datetime(2030, 1, 1)})
    assert [problem.field for problem in refused.value.problems] == [field]


# The rest of the record.


def test_every_broken_rule_is_reported_at_once() -> None:
    """EC-06, EC-09, EC-18, EC-23: one exception names all fields that are wrong."""
    with pytest.raises(InvalidInput) as refused:
        a_request(client_id="a/b", username="ab", expires_on=NOON - 2 * HOUR, endpoint="http://h", max_attempts=0)
    fields = [problem.field for problem in refused.value.problems]
    assert fields == ["client_id", "username", "expires_on", "endpoint", "max_attempts"]


@pytest.mark.parametrize(("limit", "fits"), [(0, False), (1, True), (1_000_000, True), (1_000_001, False)])
def test_the_number_of_attempts_is_bounded(limit: int, fits: bool) -> None:
    """One to a million attempts."""
    if fits:
        assert a_request(max_attempts=limit).max_attempts == limit
    else:
        with pytest.raises(InvalidInput, match="max_attempts"):
            a_request(max_attempts=limit)


@pytest.mark.parametrize("state", list(RequestState))
def test_a_client_id_is_held_while_the_request_is_open(state: RequestState) -> None:
    """EC-07: pending and granted hold login and client id, confirmed and revoked let go of both."""
    held = a_request(state=state, client_id_claim="/gw1").unique()
    is_open = state in (PENDING, GRANTED)
    assert held == ({"login": "lobby/gw1", "client_id": "/gw1"} if is_open else {})


def test_the_granted_user_leads_back_to_its_request() -> None:
    """D6: a request that granted is found by the account user that it made."""
    assert "grant_user" not in a_request().indexed()
    assert a_request(state=GRANTED, grant=a_grant(username="dev-1-1")).indexed()["grant_user"] == "acme/dev-1-1"


USERNAMES = st.from_regex(r"\A[A-Za-z0-9_-]{3,8}\Z")


@given(USERNAMES, st.text(max_size=8), USERNAMES, st.text(max_size=8))
def test_no_two_logins_share_a_key(one: str, its_client_id: str, other: str, other_client_id: str) -> None:
    """EC-03: username and client id are both in the key, and no pair reads like another."""
    same = (one, its_client_id) == (other, other_client_id)
    assert (login_key(one, its_client_id) == login_key(other, other_client_id)) is same
