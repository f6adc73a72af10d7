"""What mosquitto reads when it is told of users, counted by the measures of P9."""

from tests.bench.mosquitto_certificates import certificate_stall_ms
from tests.bench.mosquitto_users import BATCH, TOLD, stall_ms

USERS, CONNECTED = 2_000, 20


def test_p9_users_who_come_together_are_one_reading() -> None:
    """P9: fifty users are told in one reading, and the client that asks meanwhile is always answered."""
    figures = stall_ms(USERS, CONNECTED)
    assert (figures.users, figures.connected) == (USERS, CONNECTED)
    assert figures.batches == figures.readings == TOLD
    assert len(figures.stalls_ms) == TOLD
    assert 0 < figures.stall_ms <= max(figures.stalls_ms)


def test_p9_certificates_that_end_together_are_a_few_readings() -> None:
    """P9: fifty that are revoked together are not fifty readings, and the client that asks meanwhile is answered."""
    figures = certificate_stall_ms(USERS, CONNECTED)
    assert TOLD <= figures.readings <= TOLD * BATCH / 5
    assert 0 < figures.stall_ms <= max(figures.stalls_ms)
