"""The gate: listeners whose connections speak MQTT with one application in the same process, and with nobody else.

There is no routing between clients: a message goes to the application, and what the application sends goes to the
connection that it holds.
"""

import asyncio
import time
from collections.abc import Callable, Container, Mapping, Sequence

from broker.access import Application, Close, Connection
from broker.connection import GateConnection
from broker.hall import Hall, logger
from broker.limits import Attempt, GateLimits, fitted
from broker.listener import BACKLOG, Entrance, Listener, why_not_opened
from broker.loop import open_files_max

_LAST_WORDS_S = 0.5  # for sockets that are closing when the grace of a drain is over


class Gate:
    """Listener names must differ. ``clock`` gives monotonic seconds."""

    def __init__(
        self,
        application: Application,
        listeners: Sequence[Listener],
        limits: GateLimits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if len({one.name for one in listeners}) != len(listeners) or not listeners:
            raise ValueError("a gate needs listeners with different names")
        self._application = application
        self._entrances = [Entrance(one) for one in listeners]
        self._limits = limits or GateLimits()
        self._clock = clock
        self._hall: Hall | None = None
        self._servers: list[asyncio.Server] = []
        self._ports: dict[str, int] = {}

    @property
    def ports(self) -> Mapping[str, int]:
        """The port of each listener by its name; empty before ``start``."""
        return self._ports

    async def start(self) -> None:
        """Listen. Raises OSError, which names the listener, when a port is taken or a host not ours; nothing listens
        then."""
        limits = fitted(self._limits, open_files_max())
        if limits.connections_max < self._limits.connections_max:
            logger.warning("few open files are allowed: the gate takes at most %d connections", limits.connections_max)
        hall = self._hall = Hall(self._application, limits, self._clock, asyncio.get_running_loop())
        try:
            for entrance in self._entrances:
                self._servers.append(await self._listen(hall, entrance))
        except OSError:
            self._stop_listening()
            raise

    async def drain(self, grace_s: float) -> None:
        """Take nobody new, let answers that are under way arrive, then close everything within ``grace_s``."""
        hall = self._hall
        if hall is None:
            return
        hall.draining = True
        self._stop_listening()
        for connection in list(hall.sockets):
            connection.leave_if_idle()
        hall.left()
        await _within(hall.emptied, grace_s)
        for connection in list(hall.sockets):
            connection.close(Close.SHUTTING_DOWN)
        await _within(hall.emptied, _LAST_WORDS_S)
        for connection in list(hall.sockets):
            connection.vanish(Close.SHUTTING_DOWN)
        hall.flush_incidents()

    def fault(self) -> str | None:
        """Why nobody can come in now; None while it listens."""
        return None if self._servers else "does not listen"

    def standings(self) -> Mapping[str, int]:
        """How many sockets are strangers, how many are admitted, how many are just being turned away."""
        return {} if self._hall is None else {each.value: n for each, n in self._hall.doorway.counts.items()}

    def connections(self) -> Sequence[Connection]:
        """The admitted ones."""
        return () if self._hall is None else tuple(self._hall.roster)

    def kick(self, identity: str, reason: Close = Close.REVOKED) -> bool:
        """Close every connection of the identity; False when there was none."""
        members = () if self._hall is None else self._hall.roster.members(identity)
        for connection in members:
            connection.close(reason)
        return bool(members)

    def overtake(self, identity: str, older: Container[str], address: str) -> None:
        """A newer connection of the identity is at another gate, from this address: it displaces those of ours whose
        ids are among ``older``, by the rule that holds inside one gate."""
        hall = self._hall
        if hall is not None:
            members = frozenset(each for each in hall.roster.members(identity) if each.id in older)
            hall.displace(hall.roster.overtaken(identity, members, hall.clock()), address)

    def is_engaged(self, identity: str, id: str) -> bool:
        """Whether the connection of that id is the one of its identity that is being answered."""
        hall = self._hall
        members = () if hall is None else hall.roster.members(identity)
        return hall is not None and any(
            each.id == id and hall.roster.is_engaged(identity, each, hall.clock()) for each in members
        )

    def lock_out(self, address: str, username: str, client_id: str) -> None:
        """Another gate has heard too many failed logins in a row of this one."""
        if self._hall is not None:
            self._hall.logins.lock_out(Attempt(address, username, client_id), self._hall.clock())

    def be_one_of(self, gates: int) -> None:
        """That many gates take the connections of the same devices, and count their failures each for itself."""
        if self._hall is not None:
            self._hall.logins.gates = max(1, gates)

    def reload_tls(self) -> None:
        """Use what the certificate files hold now for new connections; the open ones go on.

        Raises ssl.SSLError or OSError on the first listener whose files are no pair; that one keeps what it has."""
        for entrance in self._entrances:
            entrance.reload_tls()

    async def _listen(self, hall: Hall, entrance: Entrance) -> asyncio.Server:
        listener = entrance.listener

        def accept() -> asyncio.Protocol:
            return GateConnection(hall, entrance).protocol

        try:
            server = await hall.loop.create_server(
                accept,
                listener.host,
                listener.port,
                backlog=BACKLOG,
                reuse_address=True,
                reuse_port=listener.shared_port or None,
            )
        except (OSError, UnicodeError) as error:
            place = f"listener {listener.name} cannot be opened on {listener.host}:{listener.port}"
            raise OSError(getattr(error, "errno", None), f"{place}: {why_not_opened(error)}") from None
        self._ports[listener.name] = server.sockets[0].getsockname()[1]
        return server

    def _stop_listening(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
