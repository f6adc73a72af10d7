"""Sums up refusals before they reach the audit log, so that no attack can flood it. Pure: the clock is an argument."""

from collections.abc import Sequence

from broker.access import Incident

WINDOW_S = 1.0
WHOLE_PER_WINDOW_MAX = 50
SUMS_MAX = 500


class IncidentDigest:
    """The first of a kind and window is told at once and whole, the rest as sums at the end of the window.

    A sum keeps the action, the reason and, as long as there are at most SUMS_MAX of them, the address.
    """

    def __init__(self) -> None:
        self._ends_s = 0.0
        self._told: set[Incident] = set()
        self._sums: dict[tuple[str, str, str], int] = {}

    def add(self, incident: Incident, now: float) -> Sequence[Incident]:
        """What to tell now: sums of a window that is over, and this one unless it is kept for a sum."""
        due = self.due(now)
        if not self._told:
            self._ends_s = now + WINDOW_S
        if len(self._told) < WHOLE_PER_WINDOW_MAX and incident not in self._told:
            self._told.add(incident)
            return (*due, incident)
        key = (incident.action, incident.reason, incident.address)
        if key not in self._sums and len(self._sums) >= SUMS_MAX:
            key = (incident.action, incident.reason, "")
        self._sums[key] = self._sums.get(key, 0) + incident.count
        return due

    def deadline(self) -> float | None:
        """When to call ``due``; None while nothing is kept."""
        return self._ends_s if self._sums else None

    def due(self, now: float, *, force: bool = False) -> Sequence[Incident]:
        """The sums, if the window is over (or ``force``); an address of "" stands for many."""
        if now < self._ends_s and not force:
            return ()
        sums, self._sums = self._sums, {}
        self._told.clear()
        return [
            Incident(action, reason, None, None, address, count) for (action, reason, address), count in sums.items()
        ]
