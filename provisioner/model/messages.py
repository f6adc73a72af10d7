"""What passes between device and platform, freed of any dialect: provision message in, answer out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from provisioner.model.request import Package
from provisioner.model.secret import Secret

MESSAGE_ID_CHARACTERS_MAX = 64


class Status(StrEnum):
    """The answers of wire-json; every dialect carries these nine and no others."""

    PROVISIONED = "provisioned"
    WAITING = "waiting"
    NOT_YET_ACTIVE = "not_yet_active"
    EXPIRED = "expired"
    REFUSED = "refused"
    CONFLICT = "conflict"
    ALREADY_PROVISIONED = "already_provisioned"
    BUSY = "busy"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionMessage:
    """What a device publishes to be provisioned (never called a request; that is the administrator's).

    message_id: chosen by the device and kept over its retries (``request_id`` on the wire), 1..64 characters.
    csr: PEM PKCS#10, or None. device: what it says of itself. dialect: name of the dialect that decoded it.
    by_birth: a stock Kura gateway that said no more than BIRTH, which can carry no activation key.
    """

    message_id: str
    dialect: str
    activation_key: Secret | None = None
    csr: str | None = None
    device: Mapping[str, object] = field(default_factory=dict)
    by_birth: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """The outcome on the device: it applied the answer, or could not."""

    message_id: str
    applied: bool
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """A message that cannot be parsed. ``detail`` names the field and the rule, never the value."""

    detail: str
    message_id: str | None = None
    dialect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """A message that asks nothing of us (a birth that triggers nothing, a farewell)."""

    what: str


Incoming = ProvisionMessage | Acknowledgement | Malformed | Ignored


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """All that a provisioned device takes away. Optional parts are None when the account does not use them."""

    device_id: str
    account: str
    broker_url: str
    client_id: str
    username: str
    password: Secret
    configuration: Mapping[str, object] = field(default_factory=dict)
    packages: tuple[Package, ...] = ()
    certificate: str | None = None
    ca: str | None = None
    private_key: Secret | None = None
    renew_after: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """``delivery`` is there exactly when the status is ``provisioned``. ``server_time`` is UTC."""

    status: Status
    message_id: str | None
    server_time: datetime
    retry_after_s: int | None = None
    detail: str | None = None
    delivery: Delivery | None = None

    def __post_init__(self) -> None:
        if (self.status is Status.PROVISIONED) != (self.delivery is not None):
            raise ValueError("a delivery belongs to status provisioned and to no other")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to the asking connection, QoS 1, never retained."""

    topic: str
    payload: bytes = field(repr=False)
