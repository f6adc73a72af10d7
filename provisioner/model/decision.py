"""The decision: may this device be provisioned now? A pure function that also explains itself.

Every check that the gate makes is one row of ``CHECKS``, in the order in which they are made; the first
that fails is the refusal, and ``request explain`` prints them all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from provisioner.model.account import Account
from provisioner.model.device import Device, DeviceState
from provisioner.model.epoch import FIRST
from provisioner.model.messages import Status
from provisioner.model.policy import Policy
from provisioner.model.request import Approval, ProvisionRequest, RequestState


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """All that a decision depends on.

    key_matches: True or False for the key that came (or did not come), whether or not one is required.
    contended: another connection is being provisioned as this client id. shared: other open requests
    use the same username and password. repeated: the device asks again what was granted already, so that
    its answer is owed rather than new. now: UTC. epoch: the store's.
    """

    request: ProvisionRequest
    account: Account
    device: Device | None
    policy: Policy
    now: datetime
    key_matches: bool
    contended: bool = False
    shared: bool = False
    repeated: bool = False
    epoch: int = FIRST


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What the device is told (``status``) and what is true (``reason``, for the audit log alone)."""

    status: Status
    reason: str
    detail: str
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the explanation."""

    name: str
    passed: bool
    detail: str
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """``refusal`` is None when the device is granted. ``checks`` holds every check, in order."""

    checks: tuple[Check, ...]

    @property
    def refusal(self) -> Refusal | None:
        return next((check.refusal for check in self.checks if check.refusal), None)


def decide(circumstances: Circumstances) -> Refusal | None:
    """None when the device is to be granted, else the first refusal. The gate's hot path: stops there."""
    for _, check in CHECKS:
        refusal = check(circumstances)
        if refusal is not None:
            return refusal
    return None


def explain(circumstances: Circumstances) -> Decision:
    """Every check with its verdict, past the first refusal too."""
    checks = []
    for name, check in CHECKS:
        refusal = check(circumstances)
        detail = refusal.detail if refusal else "holds"
        checks.append(Check(name=name, passed=refusal is None, detail=detail, refusal=refusal))
    return Decision(tuple(checks))


def _account_is_enabled(c: Circumstances) -> Refusal | None:
    if c.account.enabled:
        return None
    return _refused("account_disabled", f"account {c.account.id} is disabled")


def _request_is_not_revoked(c: Circumstances) -> Refusal | None:
    if c.request.state is not RequestState.REVOKED:
        return None
    return _refused("revoked", "the request is revoked; re-arm it to open it again")


def _device_is_enabled(c: Circumstances) -> Refusal | None:
    if c.device is None or c.device.state is not DeviceState.DISABLED:
        return None
    return _refused("device_disabled", f"device {c.device.id} is disabled; enable it first")


def _key_is_not_locked(c: Circumstances) -> Refusal | None:
    """F-18: after ten wrong keys only an administrator re-opens the request."""
    if c.request.key_failures < c.policy.key_failures_lock:
        return None
    return _refused("key_locked", f"{c.request.key_failures} wrong activation keys; re-arm it to unlock it")


def _key_is_not_throttled(c: Circumstances) -> Refusal | None:
    """F-18: after five wrong keys the next try has to wait; nothing is compared meanwhile.

    A wait longer than any that is ever set means that the clock was set back: it would last for hours (F-32)."""
    until = c.request.key_blocked_until
    if until is None or not c.now < until <= c.now + timedelta(seconds=c.policy.key_backoff_s):
        return None
    wait_s = _seconds(until - c.now, c.policy.retry_after_max_s)
    detail = f"{c.request.key_failures} wrong activation keys; throttled for {wait_s} s more"
    return Refusal(status=Status.BUSY, reason="key_throttled", detail=detail, retry_after_s=wait_s)


def _key_matches(c: Circumstances) -> Refusal | None:
    """EC-16; and by policy no device gets in by shared credentials alone (F-22)."""
    if c.request.key_verifier is None:
        if c.shared and c.policy.shared_credentials_require_key:
            return _refused("shared_without_key", "its credentials are shared, so it needs an activation key")
        return None
    if c.key_matches:
        return None
    return _refused("activation_key", "the activation key is missing or wrong")


def _not_confirmed_before(c: Circumstances) -> Refusal | None:
    if c.request.state is not RequestState.CONFIRMED:
        return None
    detail = "the device was provisioned and seen on its account broker; re-arm the request to repeat it"
    return Refusal(status=Status.ALREADY_PROVISIONED, reason="already_provisioned", detail=detail)


def _window_has_opened(c: Circumstances) -> Refusal | None:
    """EC-20, EC-24: the instant of activates_on is inside."""
    if c.now >= c.request.activates_on:
        return None
    wait = c.request.activates_on - c.now
    detail = f"the window opens at {c.request.activates_on.isoformat()}, in {_human(wait)}"
    wait_s = _seconds(wait, c.policy.retry_after_max_s)
    return Refusal(status=Status.NOT_YET_ACTIVE, reason="not_yet_active", detail=detail, retry_after_s=wait_s)


def _window_has_not_closed(c: Circumstances) -> Refusal | None:
    """EC-22, EC-24: the instant of expires_on is outside."""
    expires_on = c.request.expires_on
    if expires_on is None or c.now < expires_on:
        return None
    detail = f"the window closed at {expires_on.isoformat()}, {_human(c.now - expires_on)} ago"
    return Refusal(status=Status.EXPIRED, reason="expired", detail=detail)


def _is_of_this_epoch(c: Circumstances) -> Refusal | None:
    """F-40: a secret that was used up after the backup was made must not be good again."""
    if not c.request.is_restored(c.epoch):
        return None
    detail = (
        "it came back with a restored backup and may have been used since that was made; once you know that it was "
        f"not, `fleetgate request approve {c.request.id}` lets its device through, else revoke or re-arm it"
    )
    retry_s = c.policy.retry_after_waiting_s
    return Refusal(status=Status.WAITING, reason="restored", detail=detail, retry_after_s=retry_s)


def _is_approved(c: Circumstances) -> Refusal | None:
    if c.request.approval is Approval.REJECTED:
        return _refused("rejected", "an administrator rejected it")
    if c.request.approval is not Approval.AWAITING:
        return None
    retry_s = c.policy.retry_after_waiting_s
    detail = "an administrator has not approved it yet"
    return Refusal(status=Status.WAITING, reason="waiting", detail=detail, retry_after_s=retry_s)


def _attempts_are_left(c: Circumstances) -> Refusal | None:
    limit = c.request.max_attempts
    if limit is None or c.request.attempts < limit or c.repeated:
        return None
    return _refused("attempts_exhausted", f"all {limit} attempts are used; re-arm it to allow more")


def _nobody_else_is_being_answered(c: Circumstances) -> Refusal | None:
    """F-16, D7: one connection at a time is answered as one client id."""
    if not c.contended:
        return None
    retry_s = c.policy.retry_after_conflict_s
    detail = "another connection is being provisioned as this client id"
    return Refusal(status=Status.CONFLICT, reason="conflict", detail=detail, retry_after_s=retry_s)


CHECKS: tuple[tuple[str, Callable[[Circumstances], Refusal | None]], ...] = (
    ("account is enabled", _account_is_enabled),
    ("request is not revoked", _request_is_not_revoked),
    ("device is enabled", _device_is_enabled),
    ("activation key is not locked", _key_is_not_locked),
    ("activation key is not throttled", _key_is_not_throttled),
    ("activation key matches", _key_matches),
    ("not provisioned before", _not_confirmed_before),
    ("window has opened", _window_has_opened),
    ("window has not closed", _window_has_not_closed),
    ("not restored from a backup", _is_of_this_epoch),
    ("approved", _is_approved),
    ("attempts are left", _attempts_are_left),
    ("no other connection is being answered", _nobody_else_is_being_answered),
)


def _refused(reason: str, detail: str) -> Refusal:
    return Refusal(status=Status.REFUSED, reason=reason, detail=detail)


def _seconds(wait: timedelta, most_s: int) -> int:
    return max(1, min(ceil(wait.total_seconds()), most_s))


def _human(span: timedelta) -> str:
    """``2 d 3 h``, ``2 h 14 m``, ``59 s``: the two largest units."""
    left = max(0, ceil(span.total_seconds()))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
