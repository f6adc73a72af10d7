"""Listings of the administrators' door: filters, and pages cut so that an answer passes one connection."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from provisioner.doors import views
from provisioner.model.audit import AuditEvent
from provisioner.model.errors import InvalidInput, Problem, shape
from provisioner.model.ports import Noun, Page, Store
from provisioner.model.request import ProvisionRequest, RequestState

PAGE_BYTES_MAX = 262_144  # half of what a connection may have unacknowledged
RESTORED = "restored"  # computed too, of any open request
PHASES = ("active", "scheduled", "waiting", "rejected", "expired")  # computed; all of them are stored as pending (D5)

N = TypeVar("N", bound=Noun)
Keep = Callable[[N], bool]


def size(view: Mapping[str, Any]) -> int:
    return len(json.dumps(view))


def bounded(page: Page[N], view: Callable[[N], views.View], keep: Keep[N] | None = None) -> views.View:
    """The page's records that ``keep`` accepts, as many as fit. A page may be empty and still go on."""
    items: list[views.View] = []
    bytes_left = PAGE_BYTES_MAX
    after: str | None = None
    for noun in page.items:
        if keep is None or keep(noun):
            item = view(noun)
            bytes_left -= size(item)
            if items and bytes_left < 0:
                return views.page(items, after)
            items.append(item)
        after = noun.id
    return views.page(items, page.after)


def where(filters: Mapping[str, str | None]) -> dict[str, str]:
    """The given filters by the name of the index that answers each."""
    given = {name: value for name, value in filters.items() if value is not None}
    client_id = given.pop("client_id", None)
    return given if client_id is None else {**given, "any_client_id": client_id}


def request_filters(
    filters: Mapping[str, str | None], now: datetime, epoch: int
) -> tuple[dict[str, str], Keep[ProvisionRequest] | None]:
    """``state`` is a stored state or a phase; a phase is told apart record by record."""
    asked = filters.get("state")
    if asked == RESTORED:
        return where({**filters, "state": None}), lambda request: request.is_restored(epoch)
    if asked not in PHASES:
        check_state(asked, (*RequestState, *PHASES, RESTORED))
        return where(filters), None
    return where({**filters, "state": RequestState.PENDING}), lambda request: request.phase(now, epoch) == asked


def check_state(asked: str | None, known: Sequence[str]) -> None:
    """Raises InvalidInput; an unknown state would otherwise list nothing, and say nothing."""
    if asked is not None and asked not in known:
        raise InvalidInput([Problem("state", f"must be one of: {', '.join(known)}", shape(asked))])


def audit(rows: Sequence[AuditEvent], limit: int, filters: Mapping[str, str | None]) -> views.View:
    """The rows that match, in order. ``action`` also names a noun (``request``) for all its actions."""
    items: list[views.View] = []
    bytes_left = PAGE_BYTES_MAX
    after = rows[-1].seq if len(rows) == limit else None
    for row in rows:
        if not _matches(row, filters):
            continue
        item = views.audit(row)
        bytes_left -= size(item)
        if items and bytes_left < 0:
            return views.page(items, items[-1]["seq"])
        items.append(item)
    return views.page(items, after)


async def audit_after(store: Store, after: int | None, wait_s: int, limit: int) -> views.View:
    """Rows after ``after`` (None: from now on), waiting for the first of them; the next call takes ``after`` of it."""
    start = await newest_seq(store) if after is None else after
    if not await store.audit_page(after=start, limit=1):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):  # not wait_for: in Python 3.11 it can lose a cancellation
                await _next(store, start)
    found = audit(await store.audit_page(after=start, limit=limit), limit, {})
    last = found["items"][-1]["seq"] if found["items"] else start
    return views.page(found["items"], last)


async def newest_seq(store: Store) -> int:
    rows = await store.audit_page(limit=1, newest_first=True)
    return rows[0].seq if rows else 0


async def _next(store: Store, after: int) -> None:
    changes = store.changes(after)
    try:
        await anext(changes, None)
    finally:
        if isinstance(changes, AsyncGenerator):
            await changes.aclose()


def _matches(row: AuditEvent, filters: Mapping[str, str | None]) -> bool:
    action = filters.get("action")
    if action is not None and row.action != action and not row.action.startswith(f"{action}."):
        return False
    return all(
        getattr(row, name) == filters[name] for name in ("account", "client_id") if filters.get(name) is not None
    )
