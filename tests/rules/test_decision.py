"""The decision: one row a check, their order, and an explanation that prints them all."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.model.decision import CHECKS, Circumstances, Refusal, decide, explain
from provisioner.model.device import DeviceState
from provisioner.model.messages import Status
from provisioner.model.policy import Policy
from provisioner.model.request import Approval, RequestState
from tests.rules.nouns import HOUR, INSTANT, NOON, a_device, a_request, an_account


def case(**changes: Any) -> Circumstances:
    """Circumstances in which everything holds, but for ``changes``.

    A name with a prefix (``request_``, ``account_``, ``device_``) is a field of that noun."""
    nouns: dict[str, dict[str, Any]] = {"request": {}, "account": {}, "device": {}}
    rest: dict[str, Any] = {"policy": Policy(), "now": NOON, "key_matches": True}
    for name, value in changes.items():
        noun, _, field = name.partition("_")
        if noun in nouns:
            nouns[noun][field] = value
        else:
            rest[name] = value
    device = a_device(**nouns["device"]) if nouns["device"] else None
    request, account = a_request(**nouns["request"]), an_account(**nouns["account"])
    return Circumstances(request=request, account=account, device=device, **rest)


# check -> what makes it fail, the status that the device is told, the reason in the audit log
ROWS: dict[str, tuple[Mapping[str, Any], Status, str]] = {
    "account is enabled": ({"account_enabled": False}, Status.REFUSED, "account_disabled"),
    "request is not revoked": ({"request_state": RequestState.REVOKED}, Status.REFUSED, "revoked"),
    "device is enabled": ({"device_state": DeviceState.DISABLED}, Status.REFUSED, "device_disabled"),
    "activation key is not locked": ({"request_key_failures": 10}, Status.REFUSED, "key_locked"),
    "activation key is not throttled": (
        {"request_key_blocked_until": NOON + timedelta(seconds=30)},
        Status.BUSY,
        "key_throttled",
    ),
    "activation key matches": (
        {"request_key_verifier": "hmac1$k$x", "key_matches": False},
        Status.REFUSED,
        "activation_key",
    ),
    "not provisioned before": (
        {"request_state": RequestState.CONFIRMED},
        Status.ALREADY_PROVISIONED,
        "already_provisioned",
    ),
    "window has opened": ({"request_activates_on": NOON + HOUR}, Status.NOT_YET_ACTIVE, "not_yet_active"),
    "window has not closed": ({"request_expires_on": NOON}, Status.EXPIRED, "expired"),
    "not restored from a backup": ({"epoch": 2}, Status.WAITING, "restored"),
    "approved": ({"request_approval": Approval.AWAITING}, Status.WAITING, "waiting"),
    "attempts are left": ({"request_max_attempts": 2, "request_attempts": 2}, Status.REFUSED, "attempts_exhausted"),
    "no other connection is being answered": ({"contended": True}, Status.CONFLICT, "conflict"),
}
# An empty window cannot be made, a request has one state, and a closed one is no longer anybody's to use.
NEVER_TOGETHER = [
    {"window has opened", "window has not closed"},
    {"request is not revoked", "not provisioned before"},
    {"request is not revoked", "not restored from a backup"},
    {"not provisioned before", "not restored from a backup"},
]


def refused(circumstances: Circumstances) -> Refusal:
    refusal = decide(circumstances)
    assert refusal is not None
    return refusal


def failing(*checks: str) -> Circumstances:
    changes: dict[str, Any] = {}
    for check in checks:
        changes |= ROWS[check][0]
    return case(**changes)


def test_when_everything_holds_the_device_is_granted() -> None:
    """EC-34: no refusal, and every line of the explanation says so."""
    assert decide(case()) is None
    assert {check.detail for check in explain(case()).checks} == {"holds"}


def test_there_is_a_row_for_every_check() -> None:
    """A check that is added gets a row here, in the same order."""
    assert [name for name, _ in CHECKS] == list(ROWS)


@pytest.mark.parametrize("check", list(ROWS))
def test_each_check_refuses_with_its_own_status_and_reason(check: str) -> None:
    """EC-34: the status for the device and the true reason for the audit, and no other check is touched."""
    _, status, reason = ROWS[check]
    refusal = refused(failing(check))
    assert (refusal.status, refusal.reason) == (status, reason)
    assert [each.name for each in explain(failing(check)).checks if not each.passed] == [check]


@pytest.mark.parametrize(
    ("first", "second"), [pair for pair in combinations(ROWS, 2) if set(pair) not in NEVER_TOGETHER]
)
def test_of_two_failing_checks_the_earlier_one_refuses(first: str, second: str) -> None:
    """F-18, EC-16: the order is fixed, so that a device without the right key learns nothing of the window."""
    assert refused(failing(first, second)).reason == ROWS[first][2]


@given(st.sets(st.sampled_from(list(ROWS))))
def test_the_explanation_agrees_with_the_decision_and_goes_on_past_it(checks: set[str]) -> None:
    """``explain`` prints every check, and its first failed line is what ``decide`` refuses with."""
    if any(together <= checks for together in NEVER_TOGETHER):
        return
    circumstances = failing(*checks)
    explained = explain(circumstances)
    assert explained.refusal == decide(circumstances)
    assert [check.name for check in explained.checks] == list(ROWS)
    assert {check.name for check in explained.checks if not check.passed} == checks
    assert all(check.detail == check.refusal.detail for check in explained.checks if check.refusal)


# The window.


@pytest.mark.parametrize(
    ("at", "status"),
    [
        (NOON - HOUR, Status.NOT_YET_ACTIVE),
        (NOON - INSTANT, Status.NOT_YET_ACTIVE),
        (NOON, None),
        (NOON + HOUR - INSTANT, None),
        (NOON + HOUR, Status.EXPIRED),
        (NOON + 1000 * HOUR, Status.EXPIRED),
    ],
)
def test_the_window_is_half_open(at: datetime, status: Status | None) -> None:
    """EC-20, EC-22, EC-24: the instant of activates_on provisions, the instant of expires_on does not."""
    refusal = decide(case(request_activates_on=NOON, request_expires_on=NOON + HOUR, now=at))
    assert (refusal.status if refusal else None) == status


def test_an_open_end_provisions_ten_years_later() -> None:
    """EC-21: without expires_on the clock may run on."""
    assert decide(case(now=NOON.replace(year=2036))) is None


@pytest.mark.parametrize(
    ("wait", "retry_after_s", "words"),
    [
        (INSTANT, 1, "in 1 s"),
        (timedelta(seconds=59, milliseconds=200), 60, "in 1 m"),
        (timedelta(hours=2, minutes=14, seconds=5), 3600, "in 2 h 14 m"),
        (timedelta(days=2, hours=3, minutes=4), 3600, "in 2 d 3 h"),
    ],
)
def test_a_device_before_its_window_is_told_when_to_come_back(wait: timedelta, retry_after_s: int, words: str) -> None:
    """EC-20: whole seconds, rounded up, an hour at most; the administrator reads the two largest units."""
    refusal = refused(case(request_activates_on=NOON + wait))
    assert refusal.retry_after_s == retry_after_s
    assert refusal.detail.endswith(words)


@given(st.timedeltas(min_value=INSTANT, max_value=timedelta(seconds=3600)))
def test_a_device_that_waits_as_told_does_not_come_too_early(wait: timedelta) -> None:
    """EC-20: within the hour, the retry delay always reaches the window."""
    early = case(request_activates_on=NOON + wait)
    retry_after_s = refused(early).retry_after_s
    assert retry_after_s is not None
    assert decide(case(request_activates_on=NOON + wait, now=NOON + timedelta(seconds=retry_after_s))) is None


# The activation key.


@pytest.mark.parametrize(("failures", "reason"), [(0, None), (9, None), (10, "key_locked"), (11, "key_locked")])
def test_ten_wrong_keys_lock_the_request(failures: int, reason: str | None) -> None:
    """F-18: the right key no longer helps, until an administrator re-arms the request."""
    refusal = decide(case(request_key_verifier="v", request_key_failures=failures))
    assert (refusal.reason if refusal else None) == reason


@pytest.mark.parametrize(
    ("blocked_for", "retry_after_s"),
    [(timedelta(0), None), (INSTANT, 1), (timedelta(seconds=30), 30), (timedelta(days=1), 3600)],
)
def test_a_throttled_request_waits(blocked_for: timedelta, retry_after_s: int | None) -> None:
    """F-18: nothing is compared before the throttle ends, not even the right key; its last instant is free."""
    a_day = Policy(key_backoff_s=86_400)
    throttled = {"request_key_verifier": "v", "request_key_failures": 5}
    refusal = decide(case(**throttled, request_key_blocked_until=NOON + blocked_for, policy=a_day))
    assert (refusal.retry_after_s if refusal else None) == retry_after_s


def test_a_throttle_that_never_was_so_long_is_over() -> None:
    """F-32: a throttle that ends later than any that is set now shows a clock that was set back, and binds nobody."""
    throttled = {"request_key_verifier": "v", "request_key_failures": 5}
    ends = {name: NOON + timedelta(seconds=name) for name in (30, 31, 3_600)}
    refused = [name for name, at in ends.items() if decide(case(**throttled, request_key_blocked_until=at))]
    assert refused == [30]


@pytest.mark.parametrize(
    ("verifier", "matches", "shared", "by_policy", "reason"),
    [
        (None, True, False, True, None),
        (None, False, False, True, None),
        (None, True, True, True, "shared_without_key"),
        (None, True, True, False, None),
        ("v", True, True, True, None),
        ("v", False, True, False, "activation_key"),
    ],
)
def test_shared_credentials_alone_do_not_provision(
    verifier: str | None, matches: bool, shared: bool, by_policy: bool, reason: str | None
) -> None:
    """F-22, EC-16, EC-17: a shared password needs a key by default, and a key that is there must match."""
    policy = Policy(shared_credentials_require_key=by_policy)
    refusal = decide(case(request_key_verifier=verifier, key_matches=matches, shared=shared, policy=policy))
    assert (refusal.reason if refusal else None) == reason


# The rest.


@pytest.mark.parametrize(
    ("approval", "status", "retry_after_s"),
    [
        (Approval.NOT_REQUIRED, None, None),
        (Approval.APPROVED, None, None),
        (Approval.AWAITING, Status.WAITING, 60),
        (Approval.REJECTED, Status.REFUSED, None),
    ],
)
def test_approval_is_awaited_and_rejection_is_final_for_the_device(
    approval: Approval, status: Status | None, retry_after_s: int | None
) -> None:
    """ID-05, ID-06: waiting says when to come back, a rejection does not."""
    refusal = decide(case(request_approval=approval))
    assert ((refusal.status, refusal.retry_after_s) if refusal else (None, None)) == (status, retry_after_s)


@pytest.mark.parametrize(
    ("limit", "attempts", "granted"), [(None, 99, True), (1, 0, True), (1, 1, False), (3, 4, False)]
)
def test_attempts_run_out(limit: int | None, attempts: int, granted: bool) -> None:
    """As many authorised asks are answered as the request allows."""
    assert (decide(case(request_max_attempts=limit, request_attempts=attempts)) is None) is granted


def test_the_same_question_again_is_no_further_attempt() -> None:
    """F-15, F-28: the answer to a lost message is owed, however few attempts the request allows."""
    spent = {"request_max_attempts": 1, "request_attempts": 1}
    assert decide(case(**spent, repeated=True)) is None


@pytest.mark.parametrize("state", [DeviceState.PROVISIONED, DeviceState.CONNECTED])
def test_a_device_that_is_not_disabled_may_be_provisioned_again(state: DeviceState) -> None:
    """D6: granted may be granted again."""
    assert decide(case(device_state=state, request_state=RequestState.GRANTED)) is None


@pytest.mark.parametrize("check", list(ROWS))
def test_only_what_passes_by_itself_carries_a_retry_delay(check: str) -> None:
    """EC-34: a device comes back by itself exactly when time, or somebody else, can change the answer."""
    waits = {Status.BUSY, Status.NOT_YET_ACTIVE, Status.WAITING, Status.CONFLICT}
    refusal = refused(failing(check))
    assert (refusal.retry_after_s is not None) == (refusal.status in waits)
