"""What a device remembers over a reboot, and the one table of its life."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from provisioner.model.errors import IllegalMove
from provisioner.model.messages import Status
from provisioner.model.secret import Secret

FORMAT = 1


class Phase(StrEnum):
    """factory: never asked. provisioning: asks the gate. reconfigured: holds its new configuration and heads for its
    account broker. connected: its first message was taken there. stopped: gave up as told."""

    FACTORY = "factory"
    PROVISIONING = "provisioning"
    RECONFIGURED = "reconfigured"
    CONNECTED = "connected"
    STOPPED = "stopped"


class Move(StrEnum):
    START = "start"
    APPLY = "apply"
    GIVE_UP = "give_up"
    ARRIVE = "arrive"
    LOSE = "lose"
    FALL_BACK = "fall_back"


MOVES: dict[tuple[Phase, Move], Phase] = {
    (Phase.FACTORY, Move.START): Phase.PROVISIONING,
    (Phase.PROVISIONING, Move.APPLY): Phase.RECONFIGURED,
    (Phase.PROVISIONING, Move.GIVE_UP): Phase.STOPPED,
    (Phase.RECONFIGURED, Move.ARRIVE): Phase.CONNECTED,
    (Phase.RECONFIGURED, Move.FALL_BACK): Phase.PROVISIONING,  # F-30, when the account broker stays away
    (Phase.CONNECTED, Move.LOSE): Phase.RECONFIGURED,
}


class Outcome(StrEnum):
    """How far a device came, for a report and for `expect`: connected, the last status it was answered, or why it
    was answered nothing."""

    NOTHING = "nothing"
    CONNECTED = "connected"
    PROVISIONED = "provisioned"
    WAITING = "waiting"
    NOT_YET_ACTIVE = "not_yet_active"
    EXPIRED = "expired"
    REFUSED = "refused"
    CONFLICT = "conflict"
    ALREADY_PROVISIONED = "already_provisioned"
    BUSY = "busy"
    MALFORMED = "malformed"
    UNREACHABLE = "unreachable"
    LOGIN_REFUSED = "login_refused"
    NO_ANSWER = "no_answer"
    UNUSABLE_ANSWER = "unusable_answer"
    ACCOUNT_UNREACHABLE = "account_unreachable"
    ACCOUNT_REFUSED = "account_refused"


# "stop" in the table of answers; a later one needs an administrator first.
FINAL_STATUSES = frozenset({Status.EXPIRED, Status.ALREADY_PROVISIONED, Status.MALFORMED})


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSettings:
    """The new configuration that the gate handed over; certificate, ca and private_key are PEM texts or None."""

    broker_url: str
    account: str
    client_id: str
    username: str
    password: Secret
    device_id: str | None = None
    certificate: str | None = None
    ca: str | None = None
    private_key: Secret | None = None
    configuration: Mapping[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    renew_after: str | None = None

    def __post_init__(self) -> None:
        for name in ("broker_url", "account", "client_id", "username", "password"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """request_id: 1..64 characters, the same over retries and reboots. own_key, csr: a key pair made on the device.
    stopped_for: the status that ended it, exactly when it is stopped. settings stay beside the factory ones (F-30)."""

    client_id: str
    request_id: str
    phase: Phase = Phase.FACTORY
    settings: AccountSettings | None = None
    stopped_for: Status | None = None
    own_key: Secret | None = None
    csr: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.request_id) <= 64:
            raise ValueError("request_id must have 1 to 64 characters")
        if (self.phase is Phase.STOPPED) != (self.stopped_for is not None):
            raise ValueError("stopped_for belongs to phase stopped and to no other")
        if self.phase in (Phase.RECONFIGURED, Phase.CONNECTED) and self.settings is None:
            raise ValueError(f"a {self.phase} device has settings")

    def moved(self, move: Move, **changes: Any) -> "DeviceState":
        """The state after the move; raises IllegalMove and changes nothing when the table has no such row."""
        try:
            phase = MOVES[self.phase, move]
        except KeyError:
            raise IllegalMove(f"a {self.phase} device cannot {move}") from None
        return replace(self, phase=phase, **changes)


def to_json(state: DeviceState) -> bytes:
    """With its secrets in clear text, as on a device's own disk: write it 0600."""
    return json.dumps({"format": FORMAT} | _plain(state), indent=1).encode()


def from_json(data: bytes) -> DeviceState:
    """Raises ValueError on anything that `to_json` did not write; the text never quotes the content."""
    try:
        values = json.loads(data)
        if values.pop("format") != FORMAT:
            raise ValueError("another format")
        settings = values.pop("settings")
        return DeviceState(
            **_secret(values, "own_key")
            | {
                "phase": Phase(values["phase"]),
                "stopped_for": values["stopped_for"] and Status(values["stopped_for"]),
                "settings": settings and _settings(settings),
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not the state of a device ({type(error).__name__})") from None


def _plain(record: DeviceState | AccountSettings) -> dict[str, Any]:
    values = {each.name: getattr(record, each.name) for each in fields(record)}
    for name, value in values.items():
        if isinstance(value, Secret):
            values[name] = value.reveal()
        elif isinstance(value, AccountSettings):
            values[name] = _plain(value)
    return values


def _secret(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return values | {name: Secret(values[name]) for name in names if values[name] is not None}


def _settings(values: dict[str, Any]) -> AccountSettings:
    return AccountSettings(**_secret(values, "password", "private_key") | {"packages": tuple(values["packages"])})
