"""Those who look on: what they are told, how often, and that it costs no accuracy where rows are summed up."""

import asyncio
import logging
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.model.account import Account
from provisioner.model.audit import AuditEvent
from provisioner.model.device import Device, DeviceState
from provisioner.model.errors import Conflict, Unavailable
from provisioner.model.messages import Status
from provisioner.model.observer import NOBODY
from provisioner.model.ports import Page, Put, Store, Unit
from provisioner.model.request import ProvisionRequest
from provisioner.services import figures, readiness
from provisioner.services.figures import CertificateTally, Counting, within
from provisioner.services.journal import SINGLE_ROWS_MAX, AuditTrail
from provisioner.services.observing import EventLog, Observers, observed
from provisioner.services.subject import about, current
from provisioner.store.tinydb_store import TinyDbStore
from tests.contracts.store_contract import in_loop
from tests.faults.disks import FailingDisk
from tests.rules.nouns import NOON, a_device, an_account
from tests.services.world import World, in_world


class Onlooker:
    """Remembers everything."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, Status]] = []
        self.happenings: list[AuditEvent] = []
        self.rows: list[AuditEvent] = []
        self.verbs: list[tuple[str, bool]] = []
        self.took_s: list[float] = []

    def answered(self, dialect: str, status: Status, took_s: float) -> None:
        self.answers.append((dialect, status))
        self.took_s.append(took_s)

    def happened(self, event: AuditEvent) -> None:
        self.happenings.append(event)

    def recorded(self, event: AuditEvent) -> None:
        self.rows.append(event)

    def stored(self, verb: str, took_s: float, *, failed: bool) -> None:
        self.verbs.append((verb, failed))
        self.took_s.append(took_s)


def an_event(**changes: Any) -> AuditEvent:
    return replace(AuditEvent(at=NOON, actor="gate", action="connect.refused", outcome="refused"), **changes)


@in_world
async def test_the_store_tells_what_it_did(world: World) -> None:
    """A look-up, a search and a commit are told once with their time, its audit rows as well; the rest passes as is."""
    onlooker = Onlooker()
    store = observed(world.store, onlooker)
    account, event = an_account(id="other"), an_event(action="account.create", outcome="ok")
    await store.commit(Unit(changes=[Put(account)], audit=[event]))
    assert (await store.get(Account, "other")) is not None
    assert await store.find(ProvisionRequest, "account", "other") == []
    assert onlooker.verbs == [("commit", False), ("get", False), ("find", False)]
    assert onlooker.happenings == onlooker.rows == [event]
    assert all(0 <= took_s < 5 for took_s in onlooker.took_s)
    assert await store.count(Account) == await world.store.count(Account)
    assert len((await store.page(Account)).items) == await store.count(Account)
    assert await store.audit_page() == await world.store.audit_page()


@in_world
async def test_what_was_not_committed_did_not_happen(world: World) -> None:
    """A refusal is no failure of the store and no event; an unavailable store is a failure and no event."""
    onlooker = Onlooker()
    store = observed(world.store, onlooker)
    twice = Unit(changes=[Put(an_account(id="other"))], audit=[an_event()])
    await store.commit(twice)
    with pytest.raises(Conflict):
        await store.commit(twice)
    await world.store.close()
    with pytest.raises(Unavailable):
        await store.commit(twice)
    with pytest.raises(Unavailable):
        await store.get(Account, "other")
    with pytest.raises(Unavailable):
        await store.find(Account, "x", "y")
    assert onlooker.verbs == [("commit", False), ("commit", True), ("get", True), ("find", True)]
    assert len(onlooker.happenings) == 1


def test_everybody_is_told() -> None:
    """Each of those who look on hears everything, and who does not care is not asked to."""
    first, second = Onlooker(), Onlooker()
    both, event = Observers(first, NOBODY, second, EventLog()), an_event()
    both.answered("json_v1", Status.BUSY, 0.1)
    both.happened(event)
    both.recorded(event)
    both.stored("get", 0.1, failed=True)
    for each in (first, second):
        assert each.answers == [("json_v1", Status.BUSY)]
        assert (each.happenings, each.rows, each.verbs) == ([event], [event], [("get", True)])


class Sink:
    """As much of a store as the trail needs."""

    async def commit(self, unit: Unit) -> int:
        return 0


@given(st.lists(st.tuples(st.sampled_from(("gw1", "gw2")), st.integers(1, 50)), max_size=60))
def test_f_35_each_refusal_counts_though_rows_are_few(steps: list[tuple[str, int]]) -> None:
    """F-35: what is told as happened adds up to all of them, however the gate and the trail sum up; the rows that are
    told add up to the same and are few."""
    onlooker = Onlooker()

    async def noted() -> None:
        trail = AuditTrail(cast(Store, Sink()), lambda: NOON, lambda: 0.0, onlooker)
        for client_id, count in steps:
            details = {"count": count} if count > 1 else {}
            trail.note(an_event(client_id=client_id, details=details))
        await trail.flush(close_windows=True)

    asyncio.run(noted())
    expected: Counter[str] = Counter()
    for client_id, count in steps:
        expected[client_id] += count
    for told in (onlooker.happenings, onlooker.rows):
        found: Counter[str] = Counter()
        for event in told:
            found[event.client_id or ""] += event.count
        assert found == expected
    assert len(onlooker.rows) <= len(expected) * (SINGLE_ROWS_MAX + 1)


@in_world
async def test_counting_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is asked, the store counts once within the time; what it had stays while it cannot count."""
    counted = 0
    count = world.store.count

    async def counting_count(*args: Any, **kwargs: Any) -> int:
        nonlocal counted
        counted += 1
        return await count(*args, **kwargs)

    monkeypatch.setattr(world.store, "count", counting_count)
    await world.request("gw1")
    counting = Counting(world.platform)
    found = await asyncio.gather(*(counting.figures() for _ in range(50)))
    assert counted == 5  # four states and the effects
    assert {each.requests["pending"] for each in found if each} == {1}
    monkeypatch.setattr(figures, "COUNTED_S", 0.0)
    await world.request("gw2")
    now = await counting.figures()
    assert now is not None
    assert now.requests["pending"] == 2
    await world.store.close()
    assert await counting.figures() == now
    assert await Counting(world.platform).figures() is None


@pytest.mark.parametrize(
    ("days", "expected"),
    [(-400, "0"), (0, "0"), (0.01, "7"), (7, "7"), (7.01, "14"), (14, "14"), (30, "30"), (31, "60"), (61, "more")],
)
def test_days_left(days: float, expected: str) -> None:
    """A certificate is in the bucket of the days within which it ends."""
    assert within(NOON + timedelta(days=days), NOON) == expected


@given(st.integers(-1_000, 5_000), st.integers(0, 500))
def test_days_left_only_shrink(days: int, later: int) -> None:
    """As time goes by a certificate moves towards the bucket of those that have ended."""
    order = [*map(str, figures.DAYS_LEFT), figures.LONGER]
    ends_at = NOON + timedelta(days=days)
    assert order.index(within(ends_at, NOON + timedelta(days=later))) <= order.index(within(ends_at, NOON))


class Registry:
    """Devices, a page at a time."""

    def __init__(self, devices: list[Device]) -> None:
        self.devices, self.pages = devices, 0

    async def page(self, noun: type[Device], *, after: str | None, limit: int) -> Page[Device]:
        self.pages += 1
        start = int(after or 0)
        end = start + limit
        return Page(self.devices[start:end], str(end) if end < len(self.devices) else None)


@in_world
async def test_the_certificates_of_a_whole_fleet_are_tallied(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page; devices without a certificate and revoked ones count nowhere, and no bucket is left out."""
    monkeypatch.setattr(figures, "PAUSE_S", 0.0)
    ends = [None, *(world.clock.now + timedelta(days=days) for days in (-1, 5, 20, 89))]
    registry = Registry([a_device(id=f"dev-{n}", certificate_ends_at=ends[n % len(ends)]) for n in range(1_001)])
    registry.devices.append(a_device(state=DeviceState.REVOKED, certificate_ends_at=world.clock.now))
    tally = CertificateTally(replace(world.platform, store=cast(Store, registry)))
    assert tally.left is None
    await tally.count()
    assert registry.pages == 6
    assert tally.left == {"0": 200, "7": 200, "14": 0, "30": 200, "60": 0, "more": 200}


@in_world
async def test_f_42_a_store_that_does_not_answer_is_red(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-42: neither a store that hangs nor one that is closed keeps readiness from being told."""

    async def never() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(readiness, "STORE_S_MAX", 0.05)
    monkeypatch.setattr(world.store, "health", never)
    seen = await readiness.look(world.platform, lambda: "does not listen")
    assert seen.red == {"store": "does not answer within 0.05 s", "gate": "does not listen"}
    assert not seen.ready
    monkeypatch.undo()
    assert (await readiness.look(world.platform, lambda: None)).red == {}
    await world.store.close()
    assert (await readiness.look(world.platform, lambda: None)).red == {"store": "the store is closed"}


class Subjects(logging.Handler):
    """Whom each line is about, as a form of the log would say."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append((record.getMessage(), dict(current())))


@in_loop
async def test_a_failing_disk_is_nobodys_own(tmp_path: Path) -> None:
    """What the store logs of a group of commits is not about the device that came first; what the device's own work
    logs afterwards is."""
    disk, subjects, logger = FailingDisk(), Subjects(), logging.getLogger("provisioner")
    store = await TinyDbStore.open(tmp_path, disk=disk)
    logger.addHandler(subjects)
    try:
        disk.broken = {"write"}
        with about(client_id="gw1"), pytest.raises(Unavailable):
            await store.commit(Unit(changes=[Put(an_account())]))
        with about(client_id="gw1"):
            logging.getLogger("provisioner.any").warning("busy")
    finally:
        logger.removeHandler(subjects)
        disk.broken = set()
        await store.close()
    assert [about for _, about in subjects.seen] == [{}, {"client_id": "gw1"}]
    assert subjects.seen[0][0].startswith("the store could not write")
