"""Whether a device is connected to its account broker, and which of its connections has a say in that (esf 4.7)."""

from enum import StrEnum


class ConnectionStatus(StrEnum):
    """UNKNOWN: not seen yet, or at a broker that does not tell who leaves, or that was not heard since.

    DISCONNECTED: it said so, or was cut by the platform. MISSING: it was lost without a word, so that its Will was due.
    """

    UNKNOWN = "unknown"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    MISSING = "missing"


class ConnectionMove(StrEnum):
    ARRIVE = "arrive"
    LEAVE = "leave"
    LOSE = "lose"
    LOSE_SIGHT = "lose_sight"


# Of one connection, the newest: a Will and the end of the connection that it belongs to may come in either order, and
# that the device is missing outlives both.
_ENDS: dict[tuple[ConnectionStatus, ConnectionMove], ConnectionStatus] = {
    (ConnectionStatus.UNKNOWN, ConnectionMove.LEAVE): ConnectionStatus.DISCONNECTED,
    (ConnectionStatus.UNKNOWN, ConnectionMove.LOSE): ConnectionStatus.MISSING,
    (ConnectionStatus.CONNECTED, ConnectionMove.LEAVE): ConnectionStatus.DISCONNECTED,
    (ConnectionStatus.CONNECTED, ConnectionMove.LOSE): ConnectionStatus.MISSING,
    (ConnectionStatus.DISCONNECTED, ConnectionMove.LEAVE): ConnectionStatus.DISCONNECTED,
    (ConnectionStatus.DISCONNECTED, ConnectionMove.LOSE): ConnectionStatus.MISSING,
    (ConnectionStatus.MISSING, ConnectionMove.LEAVE): ConnectionStatus.MISSING,
    (ConnectionStatus.MISSING, ConnectionMove.LOSE): ConnectionStatus.MISSING,
    (ConnectionStatus.UNKNOWN, ConnectionMove.LOSE_SIGHT): ConnectionStatus.UNKNOWN,
    (ConnectionStatus.CONNECTED, ConnectionMove.LOSE_SIGHT): ConnectionStatus.UNKNOWN,
    (ConnectionStatus.DISCONNECTED, ConnectionMove.LOSE_SIGHT): ConnectionStatus.DISCONNECTED,
    (ConnectionStatus.MISSING, ConnectionMove.LOSE_SIGHT): ConnectionStatus.MISSING,
}


def status_after(
    status: ConnectionStatus, newest: str | None, what: ConnectionMove, connection: str
) -> ConnectionStatus:
    """newest: the connection that arrived last, None when none did. connection: whose move it is; the end of any other
    than the newest one changes nothing, for that one was taken over from."""
    if what is ConnectionMove.ARRIVE:
        return ConnectionStatus.CONNECTED
    return _ENDS[status, what] if newest in (None, connection) else status
