"""What sightings make of a device's connection: one after the other, the newest connection having the say (esf 4.7)."""

from dataclasses import replace
from datetime import datetime, timedelta

from provisioner.model.device import DeviceConnection
from provisioner.model.ports import Sighting
from provisioner.model.presence import ConnectionMove, ConnectionStatus, status_after


class Attendance:
    """connection: as it is after the sightings so far. taken_over: the address before, and the arrival, of each
    connection that took over from one at another address."""

    def __init__(self, connection: DeviceConnection, now: datetime) -> None:
        self._before, self._now = connection, now
        self.connection = connection
        self.has_arrived = False
        self.taken_over: list[tuple[str | None, Sighting]] = []

    def see(self, sighting: Sighting, *, tells_leaving: bool = True) -> None:
        """tells_leaving: without it nobody knows whether the device is still there a moment later."""
        former = self.connection
        if sighting.connected:
            if former.status is ConnectionStatus.CONNECTED and former.address != sighting.address:
                self.taken_over.append((former.address, sighting))
            self.has_arrived = True
            self.connection = replace(former, last_seen_at=self._now, address=sighting.address, newest=sighting.which)
        status = status_after(former.status, former.newest, _move(sighting), sighting.which)
        if not tells_leaving:
            status = ConnectionStatus.UNKNOWN
        if status is not former.status:
            self.connection = replace(self.connection, status=status, status_at=self._now)

    def is_news(self, resolution: timedelta) -> bool:
        """Whether it has to be written: an arrival that changes nothing only now and then."""
        before, after = self._before, self.connection
        if (before.status, before.newest) != (after.status, after.newest):
            return True
        if not self.has_arrived:
            return False
        # A clock may be set back (F-32).
        return before.last_seen_at is None or abs(self._now - before.last_seen_at) >= resolution


def _move(sighting: Sighting) -> ConnectionMove:
    if sighting.connected:
        return ConnectionMove.ARRIVE
    if sighting.unheard:
        return ConnectionMove.LOSE_SIGHT
    return ConnectionMove.LOSE if sighting.lost else ConnectionMove.LEAVE
