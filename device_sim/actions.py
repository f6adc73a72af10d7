"""What a device hears from its link and what it tells it to do, as values: no socket and no clock in here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from device_sim.state import DeviceState
from provisioner.model.secret import Secret


class Leg(StrEnum):
    """Which of its two brokers a connection leads to."""

    GATE = "gate"
    ACCOUNT = "account"


@dataclass(frozen=True, slots=True)
class Will:
    topic: str
    payload: bytes = b""
    qos: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where and as whom to connect. certificate, ca: PEM texts or None; private_key belongs to certificate."""

    leg: Leg
    url: str
    client_id: str
    username: str
    password: Secret
    will: Will | None = None
    certificate: str | None = None
    private_key: Secret | None = None
    ca: str | None = None


# --- what the link reports -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connected:
    """CONNACK with success."""


@dataclass(frozen=True, slots=True)
class ConnectRefused:
    """No connection came about. code: the MQTT 5 reason code of the CONNACK (3.1.1 codes are translated), or None
    when there was no CONNACK at all: not reachable, TLS refused, time-out, hang-up."""

    code: int | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection that once was is gone, whoever ended it."""


@dataclass(frozen=True, slots=True)
class Subscribed:
    """SUBACK. codes: one granted QoS, or a failure from 0x80, per filter. It proves nothing (F-13)."""

    codes: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Published:
    """PUBACK for the latest QoS 1 message on that topic. code: from 0x80 a refusal, which only MQTT 5 can tell."""

    topic: str
    code: int = 0


Event = Connected | ConnectRefused | Disconnected | Subscribed | Message | Published


# --- what the device wants done --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connect:
    """Answered by exactly one Connected or ConnectRefused."""

    target: Target


@dataclass(frozen=True, slots=True)
class Subscribe:
    """All at QoS 1."""

    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Publish:
    """Never retained. asks: this is the message that asks to be provisioned."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int = 1
    asks: bool = False


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Answered by exactly one Disconnected; everything published before goes out first."""


@dataclass(frozen=True, slots=True)
class Persist:
    """Must be on disk before the next action of the same batch is done."""

    state: DeviceState


@dataclass(frozen=True, slots=True)
class Log:
    """event: REQ, RES, ACK, DISCONNECT, CONNECT(gate), CONNECT(account), FIRST, ...; detail never holds a secret."""

    event: str
    detail: str = ""


Action = Connect | Subscribe | Publish | Disconnect | Persist | Log
