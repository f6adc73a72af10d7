"""The default store against a trivial model: committed, refused, closed, copied or cut short, both agree."""

import asyncio
import shutil
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from provisioner.model.audit import AuditEvent
from provisioner.model.device import Device
from provisioner.model.errors import Conflict, Duplicate, LimitReached, StaleVersion
from provisioner.model.ports import Delete, Noun, Put, Unit
from provisioner.model.request import ProvisionRequest, RequestState
from provisioner.store.disk import Disk
from provisioner.store.tinydb_store import TinyDbStore
from tests.contracts.store_values import all_audit, device, event, request

KINDS: tuple[type[Noun], ...] = (ProvisionRequest, Device)
REQUESTS_MAX = 5
Refused = type[Conflict] | type[LimitReached]


class PhotographedDisk(Disk):
    """A disk that can be copied between two of its operations, as a crash would leave it."""

    def __init__(self) -> None:
        self.still = threading.RLock()

    def write(self, fd: int, data: bytes) -> None:
        with self.still:
            super().write(fd, data)

    def fsync(self, fd: int) -> None:
        with self.still:
            super().fsync(fd)

    def truncate(self, fd: int, length: int) -> None:
        with self.still:
            super().truncate(fd, length)

    def replace(self, source: Path, target: Path) -> None:
        with self.still:
            super().replace(source, target)


class Model:
    """All that a store is, as slow and plain as can be."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], Noun] = {}
        self.audit: list[AuditEvent] = []

    def commit(self, unit: Unit) -> Refused | int:
        """The seq that the store returns, or what it raises."""
        records = dict(self.records)
        for change in unit.changes:
            refused = self._apply(records, change)
            if refused is not None:
                return refused
        self.records = records
        self.audit += [replace(row, seq=seq) for seq, row in enumerate(unit.audit, len(self.audit) + 1)]
        return len(self.audit)

    def _apply(self, records: dict[tuple[str, str], Noun], change: Put | Delete) -> Refused | None:
        noun = change.noun
        key = (noun.kind, noun.id)
        current = records.get(key)
        if noun.version != (current.version if current else 0) or (isinstance(change, Delete) and not current):
            return StaleVersion
        if isinstance(change, Delete):
            del records[key]
            return None
        same_kind = [other for other in records.values() if other.kind == noun.kind]
        if noun.kind == "request" and not current and len(same_kind) >= REQUESTS_MAX:
            return LimitReached
        taken = {item for other in same_kind if other.id != noun.id for item in other.unique().items()}
        if taken & set(noun.unique().items()):
            return Duplicate
        records[key] = replace(noun, version=noun.version + 1)  # type: ignore[type-var]  # every Noun is a dataclass
        return None

    def holding(self, kind: type[Noun], where: dict[str, str]) -> list[Noun]:
        found = [
            noun
            for noun in self.records.values()
            if noun.kind == kind.kind and where.items() <= (noun.indexed() | noun.unique()).items()
        ]
        return sorted(found, key=lambda noun: noun.id)


numbers = st.integers(0, 7)
requests = st.builds(
    lambda n, c, state: request(n, client_id=f"gw{c}", client_id_claim=f"gw{c}", state=state),
    numbers,
    numbers,
    st.sampled_from([RequestState.PENDING, RequestState.PENDING, RequestState.REVOKED]),
)
devices = st.builds(lambda n, c: device(n, client_id=f"gw{c}"), numbers, numbers)
# (the record, put or delete, how far its version is off): mostly right, sometimes not.
edits = st.lists(
    st.tuples(st.one_of(requests, devices), st.sampled_from("ppd"), st.sampled_from([0] * 8 + [1])), max_size=4
)
drafts = st.tuples(edits, st.integers(0, 3))


class StoreAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.home = Path(tempfile.mkdtemp())
        self.lives = 0
        self.model = Model()
        self.disk = PhotographedDisk()
        self.store = self.run(self.open())

    def run(self, what: Any) -> Any:
        return self.runner.run(what)

    async def open(self) -> TinyDbStore:
        return await TinyDbStore.open(
            self.home / str(self.lives),
            requests_max=REQUESTS_MAX,
            audit_rows_max=4,
            journal_bytes_max=1500,
            disk=self.disk,
        )

    def unit(self, draft: tuple[list[tuple[Noun, str, int]], int], ahead: Model) -> Unit:
        """A unit whose versions fit what the model holds, as far as the draft wants that."""
        after = Model()
        after.records = dict(ahead.records)
        changes: list[Put | Delete] = []
        for noun, verb, off in draft[0]:
            current = after.records.get((noun.kind, noun.id))
            noun = replace(noun, version=(current.version if current else 0) + off)  # type: ignore[type-var]  # as above
            changes.append(Put(noun) if verb == "p" else Delete(noun))
            after.commit(Unit([changes[-1]]))
        return Unit(changes, [event(str(len(ahead.audit)))] * draft[1])

    @rule(draft=drafts)
    def commit(self, draft: Any) -> None:
        """One commit returns or raises what the model says."""
        unit = self.unit(draft, self.model)
        assert self.run(_outcomes(self.store, [unit])) == [self.model.commit(unit)]

    @rule(several=st.lists(drafts, min_size=2, max_size=5))
    def commit_at_once(self, several: Any) -> None:
        """Commits that meet in one group are judged in order; one refused beside others is judged again after them."""
        units = [self.unit(draft, self.model) for draft in several]
        expected: list[Refused | int | None] = []
        others_on_the_way = False
        for unit in units:
            verdict = self.model.commit(unit)
            refused = not isinstance(verdict, int)
            expected.append(None if refused and others_on_the_way else verdict)
            others_on_the_way = others_on_the_way or not refused
        expected = [
            self.model.commit(unit) if verdict is None else verdict
            for unit, verdict in zip(units, expected, strict=True)
        ]
        assert self.run(_outcomes(self.store, units)) == expected

    @rule()
    def reopen(self) -> None:
        """A close and an open change nothing."""
        self.run(self.store.close())
        self.store = self.run(self.open())

    @rule(torn=st.binary(max_size=40))
    def crash(self, torn: bytes) -> None:
        """The files as they are at any moment, torn lines at their ends, hold all that was committed."""
        crashed, self.lives = self.home / str(self.lives), self.lives + 1
        with self.disk.still:
            shutil.copytree(crashed, self.home / str(self.lives))
        for name in ("store.log", "audit-archive.jsonl"):
            with (self.home / str(self.lives) / name).open("ab") as file:
                file.write(torn)
        self.run(self.store.close())
        self.store = self.run(self.open())

    @invariant()
    def agrees(self) -> None:
        """Every way of reading gives what the model holds."""
        self.run(self.compare())

    async def compare(self) -> None:
        for kind in KINDS:
            everything = self.model.holding(kind, {})
            assert (await self.store.page(kind)).items == everything
            assert await self.store.count(kind) == len(everything)
            for noun in everything:
                assert await self.store.get(kind, noun.id) == noun
                for index, value in (noun.unique() | noun.indexed()).items():
                    assert await self.store.find(kind, index, value) == self.model.holding(kind, {index: value})
            where = {"account": "acme", "state": "pending"}
            assert (await self.store.page(kind, where=where)).items == self.model.holding(kind, where)
            assert await self.store.count(kind, where=where) == len(self.model.holding(kind, where))
        assert await all_audit(self.store) == self.model.audit
        assert await self.store.audit_page(limit=7, newest_first=True) == self.model.audit[:-8:-1]

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()
        shutil.rmtree(self.home)


async def _outcomes(store: TinyDbStore, units: list[Unit]) -> list[Any]:
    results = await asyncio.gather(*(store.commit(unit) for unit in units), return_exceptions=True)
    return [type(result) if isinstance(result, BaseException) else result for result in results]


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
