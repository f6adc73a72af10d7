"""Which connections speak for one identity, and which of them counts. Pure: the clock is an argument.

The newest owner of an identity displaces the older ones, except while one of them is engaged: then a newcomer stands
beside it as a contender, so that the application can tell it about the conflict instead of cutting an answer that is
on its way. A contender that publishes once nobody is engaged any more displaces the others after all.
"""

from collections.abc import Container, Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Member = TypeVar("Member", bound=Hashable)


@dataclass(slots=True)
class _Group(Generic[Member]):
    """The members of one identity, oldest first, and since and until when one of them is engaged."""

    members: list[Member]
    engaged: Member | None = None
    engaged_since_s: float = 0.0
    engaged_until_s: float = 0.0


class Roster(Generic[Member]):
    """All admitted connections by identity. engaged_s_max: after the last ``engage``; engaged_total_s_max: after
    the first one of a row of them."""

    def __init__(self, contenders_max: int, engaged_s_max: float, engaged_total_s_max: float) -> None:
        self._contenders_max = contenders_max
        self._engaged_s_max = engaged_s_max
        self._engaged_total_s_max = engaged_total_s_max
        self._groups: dict[str, _Group[Member]] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def members(self, identity: str) -> tuple[Member, ...]:
        group = self._groups.get(identity)
        return () if group is None else tuple(group.members)

    def arrive(self, identity: str, member: Member, now: float) -> tuple[Member, ...] | None:
        """Enter a new member and name those that it displaces; None: too many contend, it was not entered."""
        group = self._groups.get(identity)
        if group is None:
            self._groups[identity] = _Group([member])
            return ()
        if self._engaged(group, now) is None:
            displaced = tuple(group.members)
            self._groups[identity] = _Group([member])
            return displaced
        if len(group.members) > self._contenders_max:
            return None
        group.members.append(member)
        return ()

    def claim(self, identity: str, member: Member, now: float) -> tuple[Member, ...]:
        """The member has something to say: name the older ones, which it displaces by that (none if one is engaged)."""
        group = self._groups.get(identity)
        if group is None or len(group.members) == 1 or member not in group.members:
            return ()
        if self._engaged(group, now) is not None:
            return ()
        position = group.members.index(member)
        displaced = tuple(group.members[:position])
        del group.members[:position]
        return displaced

    def overtaken(self, identity: str, older: Container[Member], now: float) -> tuple[Member, ...]:
        """Somebody newer than ``older`` is at another gate: name those of them that it displaces, who are out with
        that; none while one is engaged here."""
        group = self._groups.get(identity)
        if group is None or self._engaged(group, now) is not None:
            return ()
        displaced = tuple(member for member in group.members if member in older)
        for member in displaced:
            self.leave(identity, member)
        return displaced

    def leave(self, identity: str, member: Member) -> None:
        """Harmless for one that is not there."""
        group = self._groups.get(identity)
        if group is None or member not in group.members:
            return
        group.members.remove(member)
        if group.engaged == member:
            group.engaged = None
        if not group.members:
            del self._groups[identity]

    def engage(self, identity: str, member: Member, now: float) -> None:
        """Once more while engaged adds time, in bounds; nothing happens while another member is engaged."""
        group = self._groups.get(identity)
        if group is None or member not in group.members:
            return
        engaged = self._engaged(group, now)
        if engaged is None:
            group.engaged = member
            group.engaged_since_s = now
        elif engaged != member:
            return
        latest_s = group.engaged_since_s + self._engaged_total_s_max
        group.engaged_until_s = min(now + self._engaged_s_max, latest_s)

    def release(self, identity: str, member: Member) -> None:
        group = self._groups.get(identity)
        if group is not None and group.engaged == member:
            group.engaged = None

    def is_engaged(self, identity: str, member: Member, now: float) -> bool:
        group = self._groups.get(identity)
        return group is not None and self._engaged(group, now) == member

    def is_contended(self, identity: str, member: Member, now: float) -> bool:
        """Another member is engaged."""
        group = self._groups.get(identity)
        if group is None:
            return False
        engaged = self._engaged(group, now)
        return engaged is not None and engaged != member

    def __iter__(self) -> Iterator[Member]:
        for group in list(self._groups.values()):
            yield from tuple(group.members)

    def _engaged(self, group: _Group[Member], now: float) -> Member | None:
        return group.engaged if now < group.engaged_until_s else None
