"""Any store against a trivial model: a hypothesis state machine that a store's test subclasses.

A subclass opens its store, adds what can happen to it besides commits, and says how it judges units that come at once.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from provisioner.model.audit import AuditEvent
from provisioner.model.device import Device
from provisioner.model.errors import Conflict, Duplicate, LimitReached, StaleVersion
from provisioner.model.ports import Delete, Noun, Put, Store, Unit
from provisioner.model.request import ProvisionRequest, RequestState
from tests.contracts.store_values import all_audit, device, event, request

T = TypeVar("T")
KINDS: tuple[type[Noun], ...] = (ProvisionRequest, Device)
Refused = type[Conflict] | type[LimitReached]
Draft = tuple[list[tuple[Noun, str, int]], int]


class Model:
    """All that a store is, as slow and plain as can be. requests_max: None where it has no such limit."""

    def __init__(self, requests_max: int | None = None) -> None:
        self.requests_max = requests_max
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
        full = self.requests_max is not None and len(same_kind) >= self.requests_max
        if noun.kind == "request" and not current and full:
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


class StoreMachine(RuleBasedStateMachine):
    """open: opens the store, again after each close; every subclass has one."""

    open: Callable[[], Coroutine[Any, Any, Store]]
    requests_max: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = Model(self.requests_max)
        self.prepare()
        self.store = self.run(self.open())

    def prepare(self) -> None:
        """Make the place where the store will be."""

    def verdicts(self, units: list[Unit]) -> list[Refused | int]:
        """What units that are committed at once return or raise."""
        return [self.model.commit(unit) for unit in units]

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(what)

    def unit(self, draft: Draft, ahead: Model) -> Unit:
        """A unit whose versions fit what the model holds, as far as the draft wants that."""
        after = Model(ahead.requests_max)
        after.records = dict(ahead.records)
        changes: list[Put | Delete] = []
        for noun, verb, off in draft[0]:
            current = after.records.get((noun.kind, noun.id))
            noun = replace(noun, version=(current.version if current else 0) + off)  # type: ignore[type-var]  # as above
            changes.append(Put(noun) if verb == "p" else Delete(noun))
            after.commit(Unit([changes[-1]]))
        return Unit(changes, [event(str(len(ahead.audit)))] * draft[1])

    @rule(draft=drafts)
    def commit(self, draft: Draft) -> None:
        """One commit returns or raises what the model says."""
        unit = self.unit(draft, self.model)
        assert self.run(outcomes(self.store, [unit])) == [self.model.commit(unit)]

    @rule(several=st.lists(drafts, min_size=2, max_size=5))
    def commit_at_once(self, several: list[Draft]) -> None:
        """Commits that meet in one group are judged in order."""
        units = [self.unit(draft, self.model) for draft in several]
        expected = self.verdicts(units)
        assert self.run(outcomes(self.store, units)) == expected

    @rule()
    def reopen(self) -> None:
        """A close and an open change nothing."""
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


async def outcomes(store: Store, units: list[Unit]) -> list[Any]:
    """What each of these commits returns, or the class of what it raises."""
    results = await asyncio.gather(*(store.commit(unit) for unit in units), return_exceptions=True)
    return [type(result) if isinstance(result, BaseException) else result for result in results]


def thorough(machine: type[StoreMachine], examples: int = 40) -> Any:
    """The test case of the machine."""
    case: Any = machine.TestCase
    case.settings = settings(
        max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return case
