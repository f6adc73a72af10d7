"""The gate's limits on strangers (F-19, F-34, F-35) and what is told of them, with a clock that the test turns."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.access import Denial, DenialKind, Incident
from broker.incidents import SUMS_MAX, WHOLE_PER_WINDOW_MAX, WINDOW_S, IncidentDigest
from broker.limits import (
    FILES_RESERVED,
    Attempt,
    BucketTable,
    Doorway,
    GateLimits,
    LoginLimits,
    Standing,
    TokenBucket,
    fitted,
    site_of,
)
from broker.roster import Roster

LIMITS = GateLimits()
HERE, ELSEWHERE = "192.0.2.1", "198.51.100.7"


class Clock:
    """Seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0


def attempt_once(limits: LoginLimits, attempt: Attempt, now: float, success: bool) -> Denial | None:
    """One login from beginning to end; the refusal of the limits, if any."""
    denial = limits.begin(attempt, now)
    if denial is None:
        limits.end(attempt, now, success)
    return denial


def test_f19_ten_failures_lock_exactly_one_device() -> None:
    """F-19: the (username, client id, address) is locked for a while; the fleet on the same username is not."""
    limits = LoginLimits(LIMITS)
    bad = Attempt(HERE, "fleet", "bad")
    for _ in range(LIMITS.lockout_failures):
        assert attempt_once(limits, bad, 0.0, False) is None
    assert attempt_once(limits, bad, 1.0, True) == Denial(DenialKind.RATE, "locked_out")
    assert attempt_once(limits, Attempt(HERE, "fleet", "good"), 1.0, True) is None
    assert attempt_once(limits, Attempt(ELSEWHERE, "fleet", "bad"), 1.0, True) is None
    assert attempt_once(limits, bad, LIMITS.lockout_s + 1, True) is None


def test_f19_a_stubborn_device_does_not_wear_out_its_fleet() -> None:
    """F-19: one device with a wrong password that retries twice a second for an hour slows nobody else down."""
    limits = LoginLimits(LIMITS)
    for half_second in range(7_200):
        now = half_second / 2
        attempt_once(limits, Attempt(HERE, "fleet", "bad"), now, False)
        assert attempt_once(limits, Attempt(HERE, "fleet", f"good-{half_second}"), now, True) is None


def test_f19_guessing_over_many_client_ids_is_throttled_per_address_and_username() -> None:
    """F-19: changing the client id for each guess runs into the bucket of (address, username), nowhere else."""
    limits = LoginLimits(LIMITS)
    outcomes = [attempt_once(limits, Attempt(HERE, "fleet", f"c{n}"), 0.0, False) for n in range(1_000)]
    assert outcomes.count(None) == LIMITS.username_failures_burst
    assert outcomes[-1] == Denial(DenialKind.RATE, "username_throttled")
    assert attempt_once(limits, Attempt(ELSEWHERE, "fleet", "c1"), 0.0, True) is None
    assert attempt_once(limits, Attempt(HERE, "other", "c1"), 0.0, True) is None


def test_f19_another_username_behind_a_guessing_address_gets_in_within_five_seconds() -> None:
    """F-19: after a spray over thousands of names, a neighbour behind the same address waits less than 5 s."""
    limits = LoginLimits(LIMITS)
    for n in range(20_000):
        attempt_once(limits, Attempt(HERE, f"name-{n}", "c"), n / 20_000, False)
    waits = [
        s / 10 for s in range(60) if attempt_once(limits, Attempt(HERE, "neighbour", "c"), 1 + s / 10, True) is None
    ]
    assert waits[0] < 5


def test_f19_a_device_that_got_in_is_not_throttled_by_its_neighbours() -> None:
    """F-19: who has shown the right password at this address passes while strangers there are throttled."""
    limits = LoginLimits(LIMITS)
    known = Attempt(HERE, "fleet", "known")
    assert attempt_once(limits, known, 0.0, True) is None
    for n in range(5_000):
        attempt_once(limits, Attempt(HERE, "fleet", f"c{n}"), 1.0, False)
    assert attempt_once(limits, Attempt(HERE, "fleet", "new"), 1.0, True) == Denial(
        DenialKind.RATE, "username_throttled"
    )
    assert attempt_once(limits, known, 1.0, True) is None


def test_p5_a_fleet_behind_one_address_comes_up_at_once() -> None:
    """P5: ten thousand first logins of one username from one address in the same instant are all tried."""
    limits = LoginLimits(LIMITS)
    attempts = [Attempt(HERE, "fleet", f"gw-{n}") for n in range(10_000)]
    assert [limits.begin(one, 0.0) for one in attempts] == [None] * len(attempts)
    for one in attempts:
        limits.end(one, 0.0, True)
    assert attempt_once(limits, Attempt(HERE, "fleet", "late"), 0.0, True) is None


def test_guesses_cannot_outrun_the_lock_by_coming_at_once() -> None:
    """F-19: a bounded number of logins of one device may be under way; an end without an answer frees its place."""
    limits = LoginLimits(LIMITS)
    one = Attempt(HERE, "fleet", "c")
    begun = [limits.begin(one, 0.0) for _ in range(LIMITS.attempts_at_once_max + 1)]
    assert begun[-1] == Denial(DenialKind.BUSY, "attempts_at_once")
    assert begun[:-1] == [None] * LIMITS.attempts_at_once_max
    limits.end(one, 0.0, None)
    assert limits.begin(one, 0.0) is None


def test_a_success_wipes_the_strikes_of_the_same_device() -> None:
    """Nine typing errors and the right password leave nothing behind."""
    limits = LoginLimits(LIMITS)
    one = Attempt(HERE, "fleet", "c")
    for _ in range(3):
        for _ in range(LIMITS.lockout_failures - 1):
            attempt_once(limits, one, 0.0, False)
        assert attempt_once(limits, one, 0.0, True) is None


def test_a_flapping_identity_is_told_to_wait() -> None:
    """F-35: too many accepted logins of one identity are refused for a while, with "busy", and only of that one."""
    limits = LoginLimits(LIMITS)
    outcomes = [limits.connected("r1", 0.0) for _ in range(LIMITS.identity_connects_burst + 1)]
    assert outcomes[-1] == Denial(DenialKind.BUSY, "flapping")
    assert outcomes[:-1] == [None] * LIMITS.identity_connects_burst
    assert limits.connected("r1", LIMITS.flapping_s - 1) is not None
    assert limits.connected("r2", 0.0) is None
    assert limits.connected("r1", LIMITS.flapping_s + 1) is None


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4), st.integers(0, 9), st.floats(0, 3)), max_size=400))
def test_f19_others_failures_never_refuse_a_success_and_memory_is_bounded(
    guesses: list[tuple[int, int, int, float]],
) -> None:
    """F-19: whatever fails behind other addresses, a right password passes here, and the tables stay small."""
    tight = GateLimits(tracked_max=16, address_failures_burst=5, username_failures_burst=3, lockout_failures=2)
    limits = LoginLimits(tight)
    clock = Clock()
    for address, username, client, pause_s in guesses:
        clock.now += pause_s
        attempt_once(limits, Attempt(f"203.0.113.{address}", f"u{username}", f"c{client}"), clock.now, False)
        assert attempt_once(limits, Attempt(HERE, f"u{username}", f"c{client}"), clock.now, True) is None
        limits.connected(f"{username}/{client}", clock.now)
        assert limits.tracked <= 6 * tight.tracked_max


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "20010db800010002/64"),
        ("2001:db8:1:2::9", "20010db800010002/64"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_addresses_are_limited_by_site(address: str, site: str) -> None:
    """F-19: walking through a /64 gains nothing."""
    assert site_of(address) == site


@given(st.lists(st.floats(0, 10), max_size=50), st.integers(1, 20), st.floats(0.1, 50))
def test_a_bucket_gives_out_no_more_than_burst_and_rate(pauses: list[float], burst: int, per_s: float) -> None:
    """What a bucket lets through is bounded by its burst and the time that passed."""
    bucket = TokenBucket(burst, per_s, 0.0)
    now, taken = 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(now)
        assert taken <= burst + now * per_s + 1e-6


def test_a_bucket_waits_as_long_as_it_says() -> None:
    """``wait_s`` is when the next ``take`` succeeds; a clock that steps back adds nothing; debt is bounded."""
    bucket = TokenBucket(2, 4.0, 10.0)
    assert bucket.take(10.0)
    assert bucket.take(10.0)
    assert not bucket.take(5.0)
    assert bucket.wait_s(10.0) == 0.25
    assert bucket.take(10.25)
    for _ in range(100):
        bucket.charge(10.25)
    assert bucket.level(10.25) == -2


def test_a_table_of_buckets_forgets_the_one_that_was_charged_longest_ago() -> None:
    """Memory is bounded by entries, and an attacker's own fresh entry is not the one that goes."""
    table = BucketTable(1, 0.001, tracked_max=2)
    for key in (1, 2, 1, 3):
        table.charge(key, 0.0)
    assert len(table) == 2
    assert [table.is_empty(key, 0.0) for key in (1, 2, 3)] == [True, False, True]


def test_f35_the_doorway_names_what_is_short() -> None:
    """F-34, F-35: sockets are capped in number, as strangers and in the rate at which they come."""
    doorway = Doorway(GateLimits(connections_max=2, unauthenticated_max=1, accepts_burst=4, accepts_per_s=1), 0.0)
    assert doorway.shortage(0.0) is None
    doorway.move(None, Standing.STRANGER)
    assert doorway.shortage(0.0) == "unauthenticated_max"
    doorway.move(Standing.STRANGER, Standing.ADMITTED)
    doorway.move(None, Standing.STRANGER)
    assert doorway.shortage(0.0) == "connections_max"
    doorway.move(Standing.STRANGER, None)
    assert doorway.shortage(0.0) is None
    assert doorway.shortage(0.0) == "accept_rate"
    assert doorway.shortage(1.0) is None


def test_turned_away_sockets_are_capped_as_well() -> None:
    """F-35: telling people that there is no room must not need unbounded room either."""
    doorway = Doorway(GateLimits(turned_away_max=1), 0.0)
    assert doorway.can_answer_more
    doorway.move(None, Standing.TURNED_AWAY)
    assert not doorway.can_answer_more


def test_limits_check_themselves() -> None:
    """A limit of zero is a gate that is shut by mistake: the field is named."""
    with pytest.raises(ValueError, match="lockout_failures"):
        GateLimits(lockout_failures=0)


@given(st.integers(100, 2_000_000))
def test_f34_sockets_leave_files_for_the_rest_of_the_process(open_files_max: int) -> None:
    """F-34: with few files allowed the gate takes fewer connections, and not all of strangers; with many, what its
    limits say."""
    limits = fitted(LIMITS, open_files_max)
    sockets = limits.connections_max + limits.turned_away_max
    assert limits.connections_max == 1 or sockets + FILES_RESERVED <= open_files_max
    assert limits.connections_max == 1 or limits.unauthenticated_max < limits.connections_max
    if open_files_max >= 30_000:
        assert limits == LIMITS


def incident(number: int = 0, action: str = "connect.refused") -> Incident:
    return Incident(action, "password", f"c{number}", "u", f"192.0.2.{number % 250}")


def test_incidents_are_told_at_once_and_repeats_are_summed_up() -> None:
    """F-35: the first of a kind goes to the audit log whole, its repeats as one sum when the window ends."""
    digest = IncidentDigest()
    assert list(digest.add(incident(), 0.0)) == [incident()]
    assert digest.deadline() is None
    assert [digest.add(incident(), 0.1) for _ in range(5)] == [()] * 5
    assert digest.deadline() == WINDOW_S
    assert list(digest.due(0.5)) == []
    assert list(digest.due(WINDOW_S)) == [Incident("connect.refused", "password", None, None, "192.0.2.0", 5)]
    assert list(digest.add(incident(), WINDOW_S)) == [incident()]


@given(st.integers(0, 3_000))
def test_no_incident_is_lost_and_their_number_is_bounded(number: int) -> None:
    """F-35: the counts add up, however many there are, and the rows that are told stay few."""
    digest = IncidentDigest()
    attack = [
        Incident("connect.refused", "password", f"c{n}", "u", f"10.0.{n // 250}.{n % 250}") for n in range(number)
    ]
    told = [one for each in attack for one in digest.add(each, 0.0)]
    told += digest.due(0.0, force=True)
    assert sum(one.count for one in told) == number
    assert len(told) <= WHOLE_PER_WINDOW_MAX + SUMS_MAX + 1


def roster() -> Roster[str]:
    return Roster(contenders_max=2, engaged_s_max=20.0, engaged_total_s_max=50.0)


def test_the_newest_owner_of_an_identity_wins() -> None:
    """F-16: a newer connection displaces the older one of its identity, and of no other."""
    all_here = roster()
    assert all_here.arrive("r1", "a", 0.0) == ()
    assert all_here.arrive("r2", "x", 0.0) == ()
    assert all_here.arrive("r1", "b", 0.0) == ("a",)
    all_here.leave("r1", "a")
    assert set(all_here) == {"b", "x"}
    assert all_here.claim("r1", "b", 0.0) == ()


def test_f16_an_engaged_connection_is_not_displaced() -> None:
    """F-16: while one is being answered the others contend, in a bounded number, and know it."""
    all_here = roster()
    all_here.arrive("r1", "a", 0.0)
    all_here.engage("r1", "a", 0.0)
    assert [all_here.arrive("r1", one, 1.0) for one in "bcd"] == [(), (), None]
    assert all_here.is_contended("r1", "b", 1.0)
    assert not all_here.is_contended("r1", "a", 1.0)
    assert all_here.claim("r1", "b", 1.0) == ()
    all_here.engage("r1", "b", 1.0)
    assert all_here.is_engaged("r1", "a", 1.0)
    all_here.release("r1", "b")
    assert all_here.is_engaged("r1", "a", 1.0)


def test_f16_a_contender_takes_over_by_publishing_after_the_release() -> None:
    """F-16: the older ones go then; a newer contender stays, and an ack of the oldest displaces nobody."""
    all_here = roster()
    all_here.arrive("r1", "a", 0.0)
    all_here.engage("r1", "a", 0.0)
    all_here.arrive("r1", "b", 0.0)
    all_here.arrive("r1", "c", 0.0)
    all_here.release("r1", "a")
    assert all_here.claim("r1", "a", 1.0) == ()
    assert all_here.claim("r1", "b", 1.0) == ("a",)
    assert all_here.members("r1") == ("b", "c")


def test_f16_an_engagement_ends_with_time_or_with_its_connection() -> None:
    """F-16: nobody blocks an identity for good."""
    all_here = roster()
    all_here.arrive("r1", "a", 0.0)
    all_here.engage("r1", "a", 0.0)
    assert all_here.is_engaged("r1", "a", 19.9)
    assert all_here.arrive("r1", "b", 20.0) == ("a",)
    all_here.engage("r1", "b", 20.0)
    all_here.arrive("r1", "c", 21.0)
    all_here.leave("r1", "b")
    assert not all_here.is_contended("r1", "c", 21.0)
    all_here.leave("r1", "c")
    all_here.leave("r1", "c")
    assert len(all_here) == 0


def test_f16_a_dialogue_that_goes_on_stays_engaged_in_bounds() -> None:
    """F-16: engaging again while engaged counts anew, until the total is used up."""
    all_here = roster()
    all_here.arrive("r1", "a", 0.0)
    for second in range(0, 50, 10):
        all_here.engage("r1", "a", float(second))
        assert all_here.is_engaged("r1", "a", second + 9.9)
    all_here.engage("r1", "a", 49.0)
    assert not all_here.is_engaged("r1", "a", 50.0)
