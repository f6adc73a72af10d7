"""The provision request: the administrator's record that lets one device through the gate once."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Self

from provisioner.model import names
from provisioner.model.account import Coupling
from provisioner.model.epoch import FIRST
from provisioner.model.errors import IllegalMove, InvalidInput, Problem, shape
from provisioner.model.user import account_user_id

MAX_ATTEMPTS_MAX = 1_000_000


class RequestState(StrEnum):
    """Stored states (D5). Scheduled, active and expired are computed from the window and now, never stored."""

    PENDING = "pending"
    GRANTED = "granted"
    CONFIRMED = "confirmed"
    REVOKED = "revoked"


class RequestMove(StrEnum):
    GRANT = "grant"
    CONFIRM = "confirm"
    REVOKE = "revoke"
    REARM = "rearm"


# ``granted`` may be granted again: the device asks until it is seen on its account broker (D6, D7).
MOVES: dict[tuple[RequestState, RequestMove], RequestState] = {
    (RequestState.PENDING, RequestMove.GRANT): RequestState.GRANTED,
    (RequestState.GRANTED, RequestMove.GRANT): RequestState.GRANTED,
    (RequestState.GRANTED, RequestMove.CONFIRM): RequestState.CONFIRMED,
    (RequestState.PENDING, RequestMove.REVOKE): RequestState.REVOKED,
    (RequestState.GRANTED, RequestMove.REVOKE): RequestState.REVOKED,
    (RequestState.CONFIRMED, RequestMove.REVOKE): RequestState.REVOKED,
    (RequestState.PENDING, RequestMove.REARM): RequestState.PENDING,
    (RequestState.GRANTED, RequestMove.REARM): RequestState.PENDING,
    (RequestState.CONFIRMED, RequestMove.REARM): RequestState.PENDING,
    (RequestState.REVOKED, RequestMove.REARM): RequestState.PENDING,
}


def move(state: RequestState, what: RequestMove) -> RequestState:
    """Next state, or IllegalMove."""
    try:
        return MOVES[state, what]
    except KeyError:
        raise IllegalMove(f"a {state} request cannot {what}") from None


class Approval(StrEnum):
    """Whether a person must agree first (status ``waiting`` until then)."""

    NOT_REQUIRED = "not_required"
    AWAITING = "awaiting"
    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """An application that is part of the answer (EC-35). ``sha256`` is 64 hex digits, or None."""

    name: str
    version: str
    url: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one grant fixed (D7): every authorised ask gets this until the device is confirmed.

    message_id: the ``request_id`` that the device chose; the same one gets the byte-identical answer.
    sealed: AES-256-GCM box of the whole answer, see ``vault.keyring``; None once confirmed.
    csr_digest: hex SHA-256 of the CSR's public key that was certified, None without one.
    told_to: the connection that got the answer last, as every gate knows it; None where there is only one gate.
    """

    message_id: str
    granted_at: datetime
    device_id: str
    username: str
    sealed: str | None
    csr_digest: str | None = None
    certificate_serial: str | None = None
    certificate_ends_at: datetime | None = None
    told_to: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionRequest:
    """Every field of the Everyware provision request (EC-06 to EC-29), and how far it has come.

    id: ``req-`` and 18 Crockford letters, in the order of creation.
    account: the owner, which the device will belong to (EC-30).
    username: of the provision user; several requests of one account may share it (EC-12).
    client_id_claim: the scope in which the client id is taken while the request is open (EC-07).
    key_verifier: digest of the activation key, None when none is required (EC-15).
    endpoint: the MQTT URL that the device goes to next; None takes the account's (EC-18).
    activates_on, expires_on: half-open window ``[activates_on, expires_on)``; None never expires (EC-24).
    max_attempts: how many authorised asks may be answered; None is unlimited.
    arm: counts from 1; re-arming adds one, so that a new grant gets a new account user.
    epoch: of the store, when a person last answered for the request: made, approved, rejected or re-armed it.
    """

    kind: ClassVar[str] = "request"

    id: str
    account: str
    client_id: str
    client_id_claim: str
    username: str
    activates_on: datetime
    created_at: datetime
    created_by: str
    expires_on: datetime | None = None
    key_verifier: str | None = None
    endpoint: str | None = None
    reserve_user: bool = False
    coupling: Coupling = Coupling.INHERITED
    configuration: Mapping[str, object] = field(default_factory=dict)
    packages: tuple[Package, ...] = ()
    max_attempts: int | None = None
    approval: Approval = Approval.NOT_REQUIRED
    state: RequestState = RequestState.PENDING
    attempts: int = 0
    key_failures: int = 0
    key_blocked_until: datetime | None = None
    arm: int = 1
    epoch: int = FIRST
    grant: Grant | None = None
    confirmed_at: datetime | None = None
    version: int = 0

    def __post_init__(self) -> None:
        problems = [Problem("client_id", r, shape(self.client_id)) for r in names.check_client_id(self.client_id)]
        problems += [Problem("username", r, shape(self.username)) for r in names.check_username(self.username)]
        problems += check_window(self.activates_on, self.expires_on)
        if self.endpoint is not None:
            problems += [Problem("endpoint", r, shape(self.endpoint)) for r in names.check_endpoint(self.endpoint)]
        if self.max_attempts is not None and not 1 <= self.max_attempts <= MAX_ATTEMPTS_MAX:
            problems.append(Problem("max_attempts", f"must be from 1 to {MAX_ATTEMPTS_MAX:,}", "a number outside"))
        if problems:
            raise InvalidInput(problems)

    @property
    def is_open(self) -> bool:
        """Whether it still holds its client id (EC-07): until it is confirmed or revoked."""
        return self.state in (RequestState.PENDING, RequestState.GRANTED)

    def revoked(self) -> Self:
        """Closed, and what was sealed for its device erased. Raises IllegalMove when it is closed so already."""
        grant = replace(self.grant, sealed=None) if self.grant else None
        return replace(self, state=move(self.state, RequestMove.REVOKE), grant=grant)

    def is_restored(self, epoch: int) -> bool:
        """Whether it came back open from a backup, and nobody has answered for it since (F-40). epoch: the store's."""
        return self.is_open and self.epoch < epoch

    def phase(self, now: datetime, epoch: int = FIRST) -> str:
        """The state people see: scheduled, active and expired are computed (D5), and so is restored."""
        if self.is_restored(epoch):
            return "restored"
        if self.state is not RequestState.PENDING:
            return self.state.value
        if now < self.activates_on:
            return "scheduled"
        if self.expires_on is not None and now >= self.expires_on:
            return "expired"
        return {Approval.AWAITING: "waiting", Approval.REJECTED: "rejected"}.get(self.approval, "active")

    def unique(self) -> dict[str, str]:
        if not self.is_open:
            return {}
        return {"login": login_key(self.username, self.client_id), "client_id": self.client_id_claim}

    def indexed(self) -> dict[str, str]:
        some = {"grant_user": account_user_id(self.account, self.grant.username)} if self.grant else {}
        if self.is_open:
            some["open_username"] = self.username
            if self.key_verifier is None:
                some["open_keyless_username"] = self.username
        return some | {
            "account": self.account,
            "username": self.username,
            "state": self.state,
            "any_client_id": self.client_id,
            "any_login": login_key(self.username, self.client_id),
            "folded_client_id": names.case_folded(self.client_id),
        }


def login_key(username: str, client_id: str) -> str:
    """The value of the ``login`` indexes. A username has no "/", so the pair is unambiguous."""
    return f"{username}/{client_id}"


def check_window(activates_on: datetime, expires_on: datetime | None) -> list[Problem]:
    """EC-23, F-33: instants carry an offset, and the window is not empty."""
    problems = [
        Problem(name, "must carry a UTC offset", "a time without offset")
        for name, value in (("activates_on", activates_on), ("expires_on", expires_on))
        if value is not None and value.utcoffset() is None
    ]
    if not problems and expires_on is not None and expires_on <= activates_on:
        problems.append(Problem("expires_on", "must be later than activates_on", "an equal or earlier time"))
    return problems
