"""What all connections of one gate share."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import TYPE_CHECKING

from broker.access import Admission, Application, Close, Incident
from broker.incidents import IncidentDigest
from broker.limits import Doorway, GateLimits, LoginLimits, Standing
from broker.roster import Roster

if TYPE_CHECKING:
    from broker.connection import GateConnection

logger = logging.getLogger("broker.gate")


class Hall:
    """The application, the limits and who is here. ``clock`` gives monotonic seconds."""

    def __init__(
        self,
        application: Application,
        limits: GateLimits,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.application = application
        self.limits = limits
        self.clock = clock
        self.loop = loop
        self.logins = LoginLimits(limits)
        self.doorway = Doorway(limits, clock())
        self.roster: Roster[GateConnection] = Roster(
            limits.contenders_max, limits.engaged_s_max, limits.engaged_total_s_max
        )
        # Sockets that owe a CONNECT, in order of arrival, with the time of it.
        self.awaited: dict[GateConnection, float] = {}
        self.sockets: set[GateConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.emptied = asyncio.Event()
        self.draining = False
        self._incidents = IncidentDigest()
        self._incident_timer: asyncio.TimerHandle | None = None

    def receive(self, connection: "GateConnection") -> None:
        """A socket was accepted: give it a place, or have it told that there is none."""
        now = self.clock()
        self.sockets.add(connection)
        shortage = "shutting_down" if self.draining else self.doorway.shortage(now)
        if shortage == "unauthenticated_max" and self._displace_oldest(now):
            shortage = None
        if shortage is None:
            self.awaited[connection] = now
            self.stand(connection, Standing.STRANGER)
        elif self.doorway.can_answer_more:
            self.stand(connection, Standing.TURNED_AWAY)
            connection.turn_away(shortage)
        else:
            self.observe(Incident("flood", shortage, None, None, connection.address))
            connection.vanish(Close.OVERLOADED)

    def stand(self, connection: "GateConnection", standing: Standing | None) -> None:
        self.doorway.move(connection.standing, standing)
        connection.standing = standing

    def admit(self, connection: "GateConnection", admission: Admission) -> bool:
        """Enter it, displacing the older ones of its identity; False: too many contend for the identity."""
        displaced = self.roster.arrive(admission.identity, connection, self.clock())
        if displaced is None:
            return False
        self.stand(connection, Standing.ADMITTED)
        self.displace(displaced, connection.address)
        return True

    def displace(self, displaced: Iterable["GateConnection"], address: str) -> None:
        """address: of the newer connection."""
        for other in displaced:
            self.observe(
                Incident("connection.taken_over", "newer_connection", other.client_id, other.username, address)
            )
            other.close(Close.TAKEN_OVER)

    def farewell(self, connection: "GateConnection") -> None:
        """Its socket is gone."""
        self.stand(connection, None)
        self.awaited.pop(connection, None)
        self.sockets.discard(connection)
        self.left()

    def left(self) -> None:
        """Something ended: notice when nothing is left."""
        if self.draining and not self.sockets and not self.tasks:
            self.emptied.set()

    def _displace_oldest(self, now: float) -> bool:
        """Slow strangers make room for new ones (F-34): they had their time, and a device is quick."""
        oldest = next(iter(self.awaited), None)
        if oldest is None or now - self.awaited[oldest] < self.limits.unauthenticated_protected_s:
            return False
        self.observe(Incident("connect.timeout", "displaced", None, None, oldest.address))
        oldest.vanish(Close.OVERLOADED)
        return True

    def observe(self, incident: Incident) -> None:
        """Tell the application, summed up when there are many."""
        if self.application.foresaw(incident):
            return
        now = self.clock()
        for one in self._incidents.add(incident, now):
            self._tell(one)
        deadline = self._incidents.deadline()
        if deadline is not None and self._incident_timer is None:
            self._incident_timer = self._later(max(0.0, deadline - now))

    def flush_incidents(self) -> None:
        """Tell the sums now: nobody will ask later."""
        if self._incident_timer is not None:
            self._incident_timer.cancel()
            self._incident_timer = None
        for one in self._incidents.due(self.clock(), force=True):
            self._tell(one)

    def _tell_sums(self) -> None:
        self._incident_timer = None
        now = self.clock()
        for one in self._incidents.due(now):
            self._tell(one)
        deadline = self._incidents.deadline()
        if deadline is not None:
            self._incident_timer = self._later(max(0.001, deadline - now))

    def _later(self, delay_s: float) -> asyncio.TimerHandle:
        """In a context of nobody's: a sum is not about the connection that it was begun with."""
        return self.loop.call_later(delay_s, self._tell_sums, context=Context())

    def _tell(self, incident: Incident) -> None:
        try:
            self.application.observed(incident)
        except Exception as error:
            logger.error("the application failed on an incident: %s", type(error).__name__)
