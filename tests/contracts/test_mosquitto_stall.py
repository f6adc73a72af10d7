"""What mosquitto reads when it is told of users, counted by the measure of P9."""

from tests.bench.mosquitto_users import BATCH, TOLD, stall_ms

USERS, CONNECTED = 2_000, 20


def test_p9_users_who_come_together_are_one_reading() -> None:
    """P9: fifty users are told in one reading, the client that asks meanwhile is always answered, and told of in
    figures."""
    figures = stall_ms(USERS, CONNECTED)
    assert (figures.users, figures.connected) == (USERS, CONNECTED)
    assert figures.batches == figures.readings == TOLD < BATCH
    assert len(figures.stalls_ms) == TOLD
    assert 0 < figures.stall_ms <= max(figures.stalls_ms)
