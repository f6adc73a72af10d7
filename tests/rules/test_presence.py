"""Which of a device's connections decides whether it is there (esf 4.7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.model.presence import ConnectionMove, ConnectionStatus, status_after

ARRIVE, LEAVE, LOSE = ConnectionMove.ARRIVE, ConnectionMove.LEAVE, ConnectionMove.LOSE
CONNECTED, DISCONNECTED = ConnectionStatus.CONNECTED, ConnectionStatus.DISCONNECTED
MISSING, UNKNOWN = ConnectionStatus.MISSING, ConnectionStatus.UNKNOWN


@pytest.mark.parametrize("before", list(ConnectionStatus))
def test_whoever_arrives_is_connected(before: ConnectionStatus) -> None:
    """The newest connection wins, whatever was before."""
    assert status_after(before, "one", ARRIVE, "two") is CONNECTED


@pytest.mark.parametrize("before", list(ConnectionStatus))
@pytest.mark.parametrize("end", [LEAVE, LOSE])
def test_the_end_of_another_connection_changes_nothing(before: ConnectionStatus, end: ConnectionMove) -> None:
    """The loser of a take-over, or one that another node owned, has no say."""
    assert status_after(before, "newest", end, "former") is before


@pytest.mark.parametrize(
    ("before", "end", "after"),
    [
        (CONNECTED, LEAVE, DISCONNECTED),
        (CONNECTED, LOSE, MISSING),
        (UNKNOWN, LEAVE, DISCONNECTED),
        (UNKNOWN, LOSE, MISSING),
        (DISCONNECTED, LOSE, MISSING),
        (MISSING, LEAVE, MISSING),
        (MISSING, LOSE, MISSING),
    ],
)
def test_the_end_of_the_newest_connection(
    before: ConnectionStatus, end: ConnectionMove, after: ConnectionStatus
) -> None:
    """What a Will said is kept, in whichever order it and the end of the connection come."""
    assert status_after(before, "newest", end, "newest") is after


@given(st.lists(st.tuples(st.sampled_from([ARRIVE, LEAVE, LOSE]), st.sampled_from("abc")), max_size=12))
def test_only_the_newest_connection_can_end_it(events: list[tuple[ConnectionMove, str]]) -> None:
    """As a property: the device is connected exactly when the connection that arrived last has not ended since."""
    status, newest, there = UNKNOWN, None, False
    for what, connection in events:
        status = status_after(status, newest, what, connection)
        if what is ARRIVE:
            newest, there = connection, True
        elif newest == connection:
            there = False
        assert (status is CONNECTED) is there
