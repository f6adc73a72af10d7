"""Commits to PostgreSQL: units that wait go out as one statement, and an outcome that got lost is found out."""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from provisioner.model import records
from provisioner.model.errors import Duplicate, InvalidInput, Problem, StaleVersion, Unavailable
from provisioner.model.ports import Put, Unit
from provisioner.store.sql import rows
from provisioner.store.sql.groups import Groups
from provisioner.store.sql.postgres_link import RETRY_S, Link, Lost, Rows, reason
from provisioner.store.sql.postgres_options import PostgresOptions

_log = logging.getLogger(__name__)

# PostgreSQL keeps up to 64 subtransactions of a transaction at hand; beyond that all readers pay.
UNITS_MAX = 64
_COMMIT = "SELECT fleetgate_commit(%s, %s, %s, %s::json)"
# Of writers that are gone: one that finds out what became of a batch does so within seconds.
FORGET_RECEIPTS = "DELETE FROM receipt WHERE at < now() - interval '1 day'"
_DURABLY = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
# Text that JSON carries and PostgreSQL does not, and index values that are too long.
_UNSTORABLE = frozenset(("22P05", "54000"))


@dataclass(frozen=True, slots=True)
class _Packed:
    """json: as ``fleetgate_commit`` takes a unit."""

    unit: Unit
    json: bytes


class PostgresCommits:
    """Lives on one event loop. Each instance is one writer, whose last batch the database remembers."""

    def __init__(self, options: PostgresOptions, schema: int) -> None:
        self._options = options
        self._schema = schema
        self._link = Link(options, _DURABLY)
        self._groups: Groups[_Packed, int] = Groups(self._write, UNITS_MAX)
        self._writer = uuid.uuid4().hex
        self._batch = 0

    async def commit(self, unit: Unit) -> int:
        """As the port says. An empty unit tells that a commit would succeed now."""
        return await self._groups.outcome(_Packed(unit, _packed(unit)))

    async def close(self) -> None:
        """Finish what waits."""
        await self._groups.settled()
        await self._link.close()

    async def _write(self, units: Sequence[_Packed]) -> Sequence[int | Exception]:
        self._batch += 1
        batch = b"[" + b",".join(unit.json for unit in units) + b"]"
        ((outcomes,),) = await self._sent((self._writer, self._batch, self._schema, batch.decode()))
        return [self._outcome(unit, outcome) for unit, outcome in zip(units, outcomes, strict=True)]

    async def _sent(self, values: tuple[object, ...]) -> Rows:
        """Send the batch until its outcomes are known: the receipt keeps it from being applied twice.

        Raises Unavailable when nothing of it was applied, and after ``settle_s`` also when nobody knows."""
        clock = asyncio.get_running_loop().time
        lost_at_s: float | None = None
        while True:
            try:
                return await self._link.ask(_COMMIT, values)
            except Lost as error:
                if lost_at_s is None:
                    lost_at_s = clock()
                    _log.warning("%s during a commit: asking what became of it", error)
                    continue  # a connection that had been idle for long costs nobody a commit
            except Unavailable as error:
                if lost_at_s is None:
                    raise
                self._groups.refuse_waiting(error)
            if clock() - lost_at_s > self._options.settle_s:
                raise Unavailable(
                    f"the {self._options.place} has been away for {self._options.settle_s:g} s since a connection "
                    "broke during a commit: whether it was made is not known"
                )
            await asyncio.sleep(RETRY_S)

    def _outcome(self, packed: _Packed, text: str) -> int | Exception:
        verdict, *facts = text.split(" ", 3)
        if verdict == "stale":
            kind, version, id = facts
            return StaleVersion(f"{kind} {id} is not at version {version}")
        if verdict == "taken":
            return _duplicate(packed.unit, *text.split(" ", 4)[1:])
        if verdict == "failed":
            return self._failure(facts[0])
        return int(verdict)

    def _failure(self, sqlstate: str) -> Exception:
        if sqlstate in _UNSTORABLE:
            rule = "must have ids and index values without NUL that are not too long for an index"
            return InvalidInput([Problem("unit", rule, f"SQLSTATE {sqlstate}")])
        _log.error("the database could not apply a unit: SQLSTATE %s", sqlstate)
        return Unavailable(f"the {self._options.place} could not commit: {reason(sqlstate)}; nothing was changed")


def _duplicate(unit: Unit, kind: str, index: str, change: str, holder: str | None = None) -> Duplicate:
    """The holder may be another record of the same unit, which the database no longer knows when it is asked."""
    refused = unit.changes[int(change) - 1].noun
    value = refused.unique()[index]
    for earlier in reversed(unit.changes[: int(change) - 1]):
        noun = earlier.noun
        if isinstance(earlier, Put) and (noun.kind, noun.unique().get(index)) == (kind, value):
            return Duplicate(kind, index, noun.id)
    return Duplicate(kind, index, holder or refused.id)


def _packed(unit: Unit) -> bytes:
    """Raises InvalidInput for what JSON cannot carry."""
    fields: list[rows.Value] = [str(len(unit.changes))]
    for change in unit.changes:
        noun = change.noun
        fields += (noun.kind, noun.id, str(noun.version))
        fields += rows.as_put(noun)[2:] if isinstance(change, Put) else (None,)
    # The database gives the seq, in a column of its own.
    fields += (rows.as_audit(records.stamped(event, "seq", 0) if event.seq else event) for event in unit.audit)
    try:
        return orjson.dumps(fields)
    except TypeError as error:
        raise InvalidInput([Problem("unit", "must have ids that are plain text", str(error))]) from None
