"""Who is connected to a mosquitto, from what it says of arrivals and departures."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from provisioner.account_brokers.mosquitto_log import Arrived, Left, read_notice
from provisioner.model.ports import Gap, Sighting, heedless


class Presence:
    """Turns notices into sightings. mosquitto is silent about the loser of a take-over, so that its end is none
    (esf 4.7): the newest connection of a client id is the only one there is.

    sighted: the sighting that an arrival is, or None for one that is not of a device of ours.
    there_before: the sightings that an arrival under this client id may have been before we listened.
    read: how its lines are read."""

    def __init__(
        self,
        sighted: Callable[[Arrived], Sighting | None],
        there_before: Callable[[str], Iterable[Sighting]],
        read: Callable[[bytes], Arrived | Left | None] = read_notice,
    ) -> None:
        self._sighted, self._there_before, self._read = sighted, there_before, read
        self._there: dict[str, Sighting] = {}
        self._heard_of: set[str] = set()
        self.tell: Callable[[Sighting], None] = _nobody
        self.gap: Callable[[Gap], None] = heedless
        self.departures: Counter[str] = Counter()  # how often each client id left

    def hear(self, payload: bytes) -> None:
        notice = self._read(payload)
        if isinstance(notice, Arrived) and (sighting := self._sighted(notice)) is not None:
            self._there[notice.client_id] = sighting
            self._heard_of.add(notice.client_id)
            self.tell(sighting)
        elif isinstance(notice, Left):
            self.departures[notice.client_id] += 1
            former = self._there.pop(notice.client_id, None)
            known = [former] if former is not None else []
            if notice.client_id not in self._heard_of:
                known = [*self._there_before(notice.client_id)]
            for each in known:
                self._heard_of.add(notice.client_id)
                self.tell(replace(each, connected=False, lost=notice.lost))

    def is_there(self, client_id: str) -> bool:
        """Whether a connection of that client id, as mosquitto knows it, is there."""
        return client_id in self._there

    def begin_anew(self, broker: str) -> None:
        """mosquitto kept nothing for us: it was started anew, every connection ended with the former one, and who has
        come again before we listened is not known."""
        self.gap(Gap(broker, all_left=False))
        gone, self._there = self._there, {}
        self._heard_of.clear()
        for sighting in gone.values():
            self.tell(replace(sighting, connected=False, unheard=True))


class Awaited:
    """Users that were granted and not seen yet; and whether one may have come while nobody listened (a gap)."""

    def __init__(self) -> None:
        self._unseen: set[str] = set()
        self._gap = False
        self._called: set[str] = set()

    def granted(self, username: str, *, known: bool, is_there: bool) -> bool:
        """Whether the device may be there without having been seen. known: its login worked before the gap."""
        if is_there:
            return False
        self._unseen.add(username)
        unheard = self._gap and known and username not in self._called
        self._called.add(username)
        return unheard

    def seen(self, username: str) -> None:
        self._unseen.discard(username)
        self._called.add(username)

    def forget(self, username: str) -> None:
        self._unseen.discard(username)

    def gap(self) -> set[str]:
        """Nobody listened for a while; the users who may have come in the meantime."""
        self._gap, self._called = True, set(self._unseen)
        return set(self._unseen)


def _nobody(sighting: Sighting) -> None:
    """Nobody listens before the start."""
