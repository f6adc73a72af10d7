"""Whole copies of stores: from one store to another, and from a backup back into a store (F-40).

A store that is being filled is marked as such in the first commit and freed in the last one, so that nobody uses half
a copy; what is killed between the two is run again and goes on. Nothing is called done before the copy was read back
and has the counts and digests of its source.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from provisioner.model.audit import AuditEvent
from provisioner.model.epoch import Epoch
from provisioner.model.errors import Conflict
from provisioner.model.ports import Put, Store, Unit
from provisioner.model.request import ProvisionRequest, RequestState
from provisioner.services.crashpoints import reach
from provisioner.store.backup_file import Backup, Header, write_backup
from provisioner.store.whole import KINDS, Part, Summary, Tally, difference, parts, tallied

ACTOR = "admin:local"  # whoever can open the files of a store


Summaries = Mapping[str, Summary]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A store that is copied from or to. name: for people, and what half a copy is known by. settle_s: how long
    services that may have it open still take to notice a mark in its epoch; 0 where nobody else can have it open."""

    store: Store
    name: str
    settle_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """open_requests: those that a person has to answer for before their devices are let through."""

    summaries: Summaries
    epoch: int
    open_requests: int


async def epoch_of(store: Store) -> Epoch:
    """As it is stored; a store that never said is in its first epoch."""
    return await store.get(Epoch, Epoch().id) or Epoch()


async def usable_epoch(store: Store) -> Epoch:
    """Raises Conflict when the store is half a copy or an old one: it says so, and what to do."""
    epoch = await epoch_of(store)
    if (obstacle := epoch.obstacle()) is not None:
        raise Conflict(obstacle)
    return epoch


async def backup(actor: str, store: Store, target: Path, now: datetime) -> Summaries:
    """Write everything as it is at one moment to a new file. Raises InvalidInput, Conflict or Unavailable."""
    epoch = await usable_epoch(store)
    async with store.moment() as moment:
        header = Header(made_at=now, epoch=epoch.number, audit_seq=moment.audit_seq)
        summaries = await write_backup(target, header, parts(store, moment))
    await store.commit(Unit(audit=[_event(actor, "store.backup", target.name, summaries, now)]))
    return summaries


async def restore(source: Backup, target: Place, now: datetime) -> Restored:
    """Fill an empty store from a backup. Its epoch is a new one: requests that were open are no longer of it."""
    mark = await _begin(target, f"the backup made at {source.header.made_at.isoformat()}")
    summaries = await _fill(target.store, source.parts())
    await _verify(target.store, summaries)
    waiting = await _open_requests(target.store)
    number = source.header.epoch + 1
    fields = {"epoch": number, "made_at": source.header.made_at.isoformat(), "open_requests": waiting}
    event = _event(ACTOR, "store.restored", source.path.name, summaries, now, **fields)
    await _free(target.store, replace(mark, number=number, began_at=now), event)
    return Restored(summaries=summaries, epoch=number, open_requests=waiting)


async def migrate(source: Place, target: Place, now: datetime) -> Summaries:
    """Move everything to an empty store. The source stays as it is, but for a mark that it must not be used again."""
    epoch = await epoch_of(source.store)
    if (obstacle := epoch.obstacle()) is not None and epoch.moved_to != target.name:
        raise Conflict(obstacle)
    mark = await _begin(target, source.name)
    async with source.store.moment() as moment:
        summaries = await _fill(target.store, parts(source.store, moment))
    await _verify(target.store, summaries)
    if epoch.moved_to is None:
        await source.store.commit(Unit([Put(replace(epoch, moved_to=target.name))]))
    await asyncio.sleep(source.settle_s)
    reach("after_source_left")
    if (changed := difference(await _tallied(source.store), summaries)) is not None:
        raise Conflict(
            f"{source.name} was written to while it was copied ({changed}): stop every service on it, then run the "
            "same command again"
        )
    event = _event(ACTOR, "store.migrated", source.name, summaries, now, to=target.name)
    await _free(target.store, replace(mark, number=epoch.number, began_at=epoch.began_at), event)
    return summaries


async def _begin(target: Place, source: str) -> Epoch:
    """Mark the target, which must be empty, or half a copy of the same source."""
    epoch = await epoch_of(target.store)
    if epoch.filling == source:
        return epoch
    if epoch.filling is not None:
        raise Conflict(f"{target.name} is half a copy of {epoch.filling}: empty it first, or finish that copy")
    await _check_empty(target)
    await target.store.commit(Unit([Put(replace(epoch, filling=source))]))
    await asyncio.sleep(target.settle_s)
    reach("after_target_marked")
    await _check_empty(target)
    return await epoch_of(target.store)


async def _check_empty(target: Place) -> None:
    records = sum([await target.store.count(noun) for noun in KINDS])
    if records or await target.store.audit_page(limit=1):
        raise Conflict(
            f"{target.name} is not empty ({records:,} records), and nothing is overwritten: move it away, or name "
            "another one"
        )


async def _fill(target: Store, stream: AsyncIterator[Part]) -> Summaries:
    tally = Tally()
    async for part in stream:
        tally.add(part.kind, part.lines())
        await target.adopt(part.nouns, part.audit)
        reach("after_part")
    return tally.summaries()


async def _verify(target: Store, expected: Summaries) -> None:
    if (wrong := difference(await _tallied(target), expected)) is not None:
        raise Conflict(f"the copy differs from its source: {wrong}; empty the target and begin again")
    reach("after_verified")


async def _tallied(store: Store) -> Summaries:
    async with store.moment() as moment:
        return await tallied(parts(store, moment))


async def _open_requests(store: Store) -> int:
    states = (RequestState.PENDING, RequestState.GRANTED)
    return sum([await store.count(ProvisionRequest, where={"state": state}) for state in states])


async def _free(target: Store, epoch: Epoch, event: AuditEvent) -> None:
    await target.commit(Unit([Put(replace(epoch, filling=None))], [event]))


def _event(actor: str, action: str, subject: str, summaries: Summaries, now: datetime, **details: object) -> AuditEvent:
    counts = {kind: summary.count for kind, summary in summaries.items()}
    return AuditEvent(at=now, actor=actor, action=action, subject=subject, details={"counts": counts, **details})
