"""fleetgate audit and fleetgate watch: what happened, and what is happening."""

import itertools
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import click

from provisioner.doors.cli_desk import Desk, at_service
from provisioner.doors.cli_frame import Noun

COLUMNS = ("seq", "at", "actor", "action", "outcome", "reason", "account", "client_id", "address")
WAIT_S = 10
LINE_FIELDS = ("outcome", "reason", "account", "client_id", "username", "subject", "address")

Event = Mapping[str, Any]


@click.group(cls=Noun)
def audit() -> None:
    """The audit log: who did what, and with what outcome."""


@audit.command("list", examples=("fleetgate audit list", "fleetgate audit list --action request.create --limit 5"))
@click.option("--after", type=click.IntRange(0), metavar="SEQ", help="Only rows behind this one, from the oldest on.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@click.option("--account")
@click.option("--client-id")
@click.option("--action", help="An action, or a noun for all of its actions.")
@at_service
def list_(desk: Desk, after: int | None, limit: int, **filters: str | None) -> None:
    """List the last rows that match, or the first ones behind --after; the oldest of them first."""
    rows = _rows(desk, after, limit, filters)
    kept = itertools.islice(rows, limit) if after is not None else deque(rows, maxlen=limit)
    desk.print.many(kept, COLUMNS, id="seq")


@click.command(
    cls=Noun.command_class,
    examples=("fleetgate watch --for 2", "fleetgate watch --after 0 --count 3 -o jsonl"),
)
@click.option("--after", type=click.IntRange(0), metavar="SEQ", help="Begin behind this row of the log, not now.")
@click.option("--count", type=click.IntRange(1), help="Leave after so many events.")
@click.option("--for", "for_s", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Leave after so long.")
@at_service
def watch(desk: Desk, after: int | None, count: int | None, for_s: float | None) -> None:
    """Show events as they happen, until interrupted."""
    deadline_s = None if for_s is None else time.monotonic() + for_s
    events = itertools.islice(_events(desk, after, deadline_s), count)
    try:
        desk.print.live(events, _line)
    except KeyboardInterrupt:
        return  # the way to leave


def _rows(desk: Desk, after: int | None, limit: int, filters: Mapping[str, str | None]) -> Iterator[Event]:
    """From ``after`` on; without it, from where the last rows certainly are."""
    start = after
    if start is None:
        filtered = any(filters.values())
        start = 0 if filtered else max(0, desk.ask("audit.wait")["after"] - limit)
    while start is not None:
        page = desk.ask("audit.page", after=start, limit=1_000, **filters)
        yield from page["items"]
        start = page["after"]


def _events(desk: Desk, after: int | None, deadline_s: float | None) -> Iterator[Event]:
    while deadline_s is None or time.monotonic() < deadline_s:
        left_s = WAIT_S if deadline_s is None else deadline_s - time.monotonic()
        wait_s = max(1, min(WAIT_S, round(left_s)))
        page = desk.connection.ask("audit.wait", patience_s=wait_s, after=after, wait_s=wait_s, limit=500)
        yield from page["items"]
        after = page["after"]


def _line(event: Event) -> str:
    told = " ".join(f"{name}={event[name]}" for name in LINE_FIELDS if event[name] is not None)
    return f"{event['at']} {event['seq']} {event['actor']} {event['action']} {told}"
