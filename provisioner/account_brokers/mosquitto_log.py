"""What mosquitto says of connections on `$SYS/broker/log/N`, read so that no device can put words into its mouth.

The client id stands in these lines as the device chose it. A line is therefore read whole, from its fixed beginning to
its fixed end: whatever is between belongs to the client id. A user's name is always one that we made.
"""

import re
from dataclasses import dataclass

NOTICES = "$SYS/broker/log/N"

_TIME = r"(?:[0-9T:+-]+: )?"  # seconds, or ISO 8601 where log_timestamp_format says so
_ARRIVAL = re.compile(
    _TIME + r"New client connected from (?P<address>[0-9A-Fa-f.:]+):[0-9]+ as (?P<client_id>.+)"
    r" \(p[0-9]+, c[01], k[0-9]+, u'(?P<username>[A-Za-z0-9_-]{3,255}(?:/[A-Za-z0-9_-]{1,251})?)'\)\."
)
# Where the name of a certificate is the client id too; it may be any text, but it is said twice.
_IDENTITY = re.compile(
    _TIME + r"New client connected from (?P<address>[0-9A-Fa-f.:]+):[0-9]+ as (?P<client_id>.+)"
    r" \(p[0-9]+, c[01], k[0-9]+, u'(?P=client_id)'\)\."
)
_ORDERLY = ("disconnected.", "been disconnected by administrative action.")
_LOST = (
    "closed its connection.",
    "has exceeded timeout, disconnecting.",
    "disconnected: Protocol error.",
    "disconnected due to protocol error.",
    "disconnected due to malformed packet.",
    "disconnected due to oversize packet.",
)
# "disconnected, not authorised." is left out: that is also said of a stranger who merely claims a client id.
_DEPARTURE = re.compile(
    _TIME + rf"Client (?P<client_id>.+) (?:{'|'.join(map(re.escape, _ORDERLY))}|"
    rf"(?P<lost>{'|'.join(map(re.escape, _LOST))}))"
)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A login was accepted. client_id: as mosquitto knows it, the user's name where the listener replaces it."""

    address: str
    client_id: str
    username: str


@dataclass(frozen=True, slots=True)
class Left:
    """A connection ended that no newer one of the same client id took over; of that mosquitto says nothing.

    lost: without a DISCONNECT, and not because it was cut."""

    client_id: str
    lost: bool = False


def read_identity_notice(payload: bytes) -> Arrived | Left | None:
    """As ``read_notice``, on a listener that knows a device by its certificate alone."""
    try:
        found = _IDENTITY.fullmatch(payload.decode())
    except UnicodeDecodeError:
        return None
    return Arrived(found["address"], found["client_id"], found["client_id"]) if found else read_notice(payload)


def read_notice(payload: bytes) -> Arrived | Left | None:
    """None for every other line, and for one that was cut off at mosquitto's thousand bytes."""
    try:
        line = payload.decode()
    except UnicodeDecodeError:
        return None
    if (found := _ARRIVAL.fullmatch(line)) is not None:
        return Arrived(found["address"], found["client_id"], found["username"])
    if (found := _DEPARTURE.fullmatch(line)) is not None:
        return Left(found["client_id"], lost=found["lost"] is not None)
    return None
