"""Importing provision requests: the rows of a file, each made or reported by its line."""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from provisioner.model import draft, names
from provisioner.model.draft import RequestDraft
from provisioner.model.errors import Conflict, Duplicate, FleetgateError, InvalidInput, LimitReached, Unavailable
from provisioner.model.ports import Unit
from provisioner.services.accounts import no_account
from provisioner.services.request_making import Made, Prepared, RequestMaking


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """What became of one row. line: as people count, in the file. made or error, never both."""

    line: int
    made: Made | None = None
    error: FleetgateError | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of an import that was read. place: among the rows; line: as people count, in the file."""

    place: int
    line: int
    wanted: RequestDraft


@dataclass(slots=True)
class _Batch:
    """Rows that one commit makes, for none of them changes what another one was checked against."""

    rows: list[tuple[_Row, Prepared]] = field(default_factory=list)
    _client_ids: set[str] = field(default_factory=set)
    _usernames: set[str] = field(default_factory=set)
    _delicate_usernames: set[str] = field(default_factory=set)  # new, changed, or used without a key

    def meets(self, wanted: RequestDraft) -> bool:
        """Whether this row has to see what an earlier one of the batch makes."""
        names_met = self._delicate_usernames if wanted.activation_key else self._usernames
        return wanted.username in names_met or names.case_folded(wanted.client_id) in self._client_ids

    def add(self, row: _Row, prepared: Prepared) -> None:
        self.rows.append((row, prepared))
        self._client_ids.add(names.case_folded(row.wanted.client_id))
        self._usernames.add(row.wanted.username)
        if prepared.touches_user or not row.wanted.activation_key:
            self._delicate_usernames.add(row.wanted.username)

    def unit(self) -> Unit:
        units = [prepared.unit for _, prepared in self.rows]
        return Unit(
            changes=[change for unit in units for change in unit.changes],
            audit=[event for unit in units for event in unit.audit],
        )


def _are_strangers(rows: Sequence[_Row]) -> bool:
    """No two have a username or a client id in common, not even but for its case."""
    client_ids = {names.case_folded(row.wanted.client_id) for row in rows}
    return len(client_ids) == len({row.wanted.username for row in rows}) == len(rows)


class RequestImport:
    def __init__(self, making: RequestMaking, now: Callable[[], datetime]) -> None:
        self._making, self._now = making, now

    async def make_all(
        self, actor: str, rows: Sequence[tuple[int, Mapping[str, Any]]], *, dry_run: bool = False
    ) -> list[RowResult]:
        """Each row by itself; a bad one stops no other. Rows that have nothing to do with each other share a commit.

        Raises Unavailable when nothing was made; when the store fails later, the rows behind that have no result."""
        if dry_run:
            return await self._try_all(actor, rows)
        results: dict[int, RowResult] = {}
        wanted: list[_Row] = []
        for place, (line, raw) in enumerate(rows):
            try:
                wanted.append(_Row(place, line, draft.read_request(raw, self._now())))
            except InvalidInput as error:
                results[place] = RowResult(line=line, error=error)
        try:
            await (self._make_together if _are_strangers(wanted) else self._make_in_turn)(actor, wanted, results)
        except Unavailable:
            if not any(result.made for result in results.values()):
                raise
        return [results[place] for place in itertools.takewhile(results.__contains__, range(len(rows)))]

    async def _make_together(self, actor: str, rows: Sequence[_Row], results: dict[int, RowResult]) -> None:
        """Rows that have no name in common: what each needs to know is asked for at the same time."""
        asked = (self._making.prepare(actor, row.wanted) for row in rows)
        batch = _Batch()
        for row, prepared in zip(rows, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if isinstance(prepared, Prepared):
                batch.add(row, prepared)
            elif isinstance(prepared, FleetgateError) and not isinstance(prepared, Unavailable):
                results[row.place] = RowResult(line=row.line, error=prepared)
            else:
                raise prepared
        await self._make_batch(batch, results)

    async def _make_in_turn(self, actor: str, rows: Sequence[_Row], results: dict[int, RowResult]) -> None:
        """Rows that may have to see what an earlier one makes."""
        batch = _Batch()
        for row in rows:
            try:
                if batch.meets(row.wanted):
                    whole, batch = batch, _Batch()
                    await self._make_batch(whole, results)
                batch.add(row, await self._making.prepare(actor, row.wanted))
            except Unavailable:
                raise
            except FleetgateError as error:
                results[row.place] = RowResult(line=row.line, error=error)
        await self._make_batch(batch, results)

    async def _try_all(self, actor: str, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> list[RowResult]:
        """Nothing is stored, so that rows which collide with each other are found here."""
        results = []
        seen: set[str] = set()
        for line, raw in rows:
            try:
                wanted = draft.read_request(raw, self._now())
                made = await self._making.make(actor, wanted, dry_run=True)
                if wanted.client_id in seen:
                    raise Duplicate("request", "client_id", "an earlier row")
                seen.add(wanted.client_id)
                results.append(RowResult(line=line, made=made))
            except Unavailable:
                raise
            except FleetgateError as error:
                results.append(RowResult(line=line, error=error))
        return results

    async def _make_batch(self, batch: _Batch, results: dict[int, RowResult]) -> None:
        """All in one commit; where that is refused, one by one, so that only those fail that must."""
        if not batch.rows:
            return
        try:
            gone = await self._making.commit(batch.unit())
        except (Conflict, LimitReached):
            for row, prepared in batch.rows:
                results[row.place] = await self._make_row(row.line, prepared)
        else:
            for row, prepared in batch.rows:
                results[row.place] = _outcome(row.line, prepared, gone)

    async def _make_row(self, line: int, prepared: Prepared) -> RowResult:
        try:
            gone = await self._making.commit(prepared.unit)
        except (Conflict, LimitReached) as error:
            return RowResult(line=line, error=error)
        return _outcome(line, prepared, gone)


def _outcome(line: int, prepared: Prepared, gone: frozenset[str]) -> RowResult:
    """Of a row that was committed. gone: accounts that were deleted meanwhile."""
    account = prepared.made.request.account
    if account in gone:
        return RowResult(line=line, error=no_account(account))
    return RowResult(line=line, made=prepared.made)
