"""What every store must do. An adapter's test class inherits ``StoreContract`` and gives a fixture ``place``."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from provisioner.model.audit import AuditEvent
from provisioner.model.device import Device
from provisioner.model.effect import Effect
from provisioner.model.errors import Conflict, Duplicate, InvalidInput, StaleVersion, Unavailable
from provisioner.model.ports import Delete, Put, Store, Unit
from provisioner.model.request import ProvisionRequest, RequestState
from tests.contracts.store_copies import CopiesContract
from tests.contracts.store_stage import StorePlace, in_loop, opened, put, stored, with_store
from tests.contracts.store_values import all_audit, device, effect, event, one_of_each, request, walk_unit


class StoreContract(CopiesContract):
    @with_store
    async def test_a_record_is_got_as_it_was_put(self, store: Store) -> None:
        """Every kind comes back equal, one version on."""
        for noun in one_of_each():
            await put(store, noun)
            assert await store.get(type(noun), noun.id) == replace(noun, version=1)  # type: ignore[type-var]  # a Noun is a dataclass

    @with_store
    async def test_an_absent_record_is_none(self, store: Store) -> None:
        """Reading what is not there is no error."""
        assert await store.get(ProvisionRequest, "req-none") is None
        assert await store.find(ProvisionRequest, "login", "lobby/none") == []

    @in_loop
    async def test_a_reopened_store_holds_what_was_committed(self, place: StorePlace) -> None:
        """Records, versions and audit rows survive a close, and the log goes on where it ended."""
        async with opened(place) as store:
            await put(store, *one_of_each())
            await store.commit(Unit(audit=[event("a"), event("b")]))
        async with opened(place) as store:
            for noun in one_of_each():
                assert await store.get(type(noun), noun.id) == replace(noun, version=1)  # type: ignore[type-var]  # as above
            assert [(row.seq, row.subject) for row in await all_audit(store)] == [(1, "a"), (2, "b")]
            assert await store.commit(Unit(audit=[event("c")])) == 3

    @with_store
    async def test_a_stale_put_is_refused(self, store: Store) -> None:
        """Of two changes made from one reading the second is refused and changes nothing."""
        await put(store, request(1))
        read = await stored(store, 1)
        await put(store, replace(read, attempts=1))
        with pytest.raises(StaleVersion):
            await put(store, replace(read, attempts=7))
        assert (await stored(store, 1)).attempts == 1

    @with_store
    async def test_version_zero_means_new(self, store: Store) -> None:
        """A record that exists is not overwritten by one that claims to be new, nor a missing one updated."""
        await put(store, request(1))
        with pytest.raises(StaleVersion):
            await put(store, request(1))
        with pytest.raises(StaleVersion):
            await put(store, request(2, version=1))

    @with_store
    async def test_delete(self, store: Store) -> None:
        """A delete needs the version that was read, frees the unique values and lets the id begin anew."""
        await put(store, request(1))
        read = await stored(store, 1)
        with pytest.raises(StaleVersion):
            await store.commit(Unit([Delete(replace(read, version=9))]))
        await store.commit(Unit([Delete(read)]))
        assert await store.get(ProvisionRequest, read.id) is None
        assert await store.find(ProvisionRequest, "account", "acme") == []
        with pytest.raises(StaleVersion):
            await store.commit(Unit([Delete(read)]))
        await put(store, request(1))
        assert (await stored(store, 1)).version == 1

    @with_store
    async def test_a_unique_value_has_one_holder(self, store: Store) -> None:
        """EC-07: two open requests never share a client id; the refusal names index and holder."""
        await put(store, request(1))
        with pytest.raises(Duplicate) as refused:
            await put(store, request(2, client_id="gw1", client_id_claim="gw1"))
        assert (refused.value.holder, refused.value.index) in {("req-000001", "login"), ("req-000001", "client_id")}

    @with_store
    async def test_a_unique_value_is_free_when_its_holder_lets_go(self, store: Store) -> None:
        """A closed request gives its client id up and is still found by the index that many may share."""
        await put(store, request(1))
        await put(store, replace(await stored(store, 1), state=RequestState.REVOKED))
        await put(store, request(2, client_id="gw1", client_id_claim="gw1"))
        assert [r.id for r in await store.find(ProvisionRequest, "login", "lobby/gw1")] == ["req-000002"]
        assert [r.id for r in await store.find(ProvisionRequest, "any_client_id", "gw1")] == [
            "req-000001",
            "req-000002",
        ]
        with pytest.raises(Duplicate):
            await put(store, replace(await stored(store, 1), state=RequestState.PENDING))

    @with_store
    async def test_changes_of_a_unit_apply_in_order(self, store: Store) -> None:
        """One unit may free a unique value and take it again, or change one record twice."""
        await put(store, request(1))
        heir = request(2, client_id="gw1", client_id_claim="gw1")
        await store.commit(Unit([Delete(await stored(store, 1)), Put(heir), Put(replace(heir, version=1, attempts=5))]))
        assert (await stored(store, 2)).attempts == 5
        assert (await stored(store, 2)).version == 2
        assert await store.count(ProvisionRequest) == 1

    @with_store
    async def test_a_unit_is_all_or_nothing(self, store: Store) -> None:
        """When its last change is refused, none of its records, unique values or audit rows stays."""
        await put(store, request(1))
        claims_gw2_first = Unit(
            [Put(request(2)), Put(device(2)), Delete(await stored(store, 1)), Put(request(3, version=4))],
            [event("never")],
        )
        with pytest.raises(StaleVersion):
            await store.commit(claims_gw2_first)
        assert await store.get(ProvisionRequest, "req-000002") is None
        assert await store.get(Device, "dev-000002") is None
        assert (await stored(store, 1)).version == 1
        assert await store.audit_page() == []
        await put(store, request(5, client_id="gw2", client_id_claim="gw2"))
        assert await store.commit(Unit(audit=[event("first")])) == 1

    @with_store
    async def test_what_is_no_json_is_refused(self, store: Store) -> None:
        """A value that cannot be kept is an InvalidInput and leaves nothing behind."""
        for value in (2**80, "\ud800", {1: 2}, object()):
            with pytest.raises(InvalidInput):
                await store.commit(Unit([Put(request(1, configuration={"x": value}))], [event("x")]))
        await put(store, request(1))
        assert await store.audit_page() == []

    @with_store
    async def test_one_of_many_concurrent_claims_wins(self, store: Store) -> None:
        """F-43, EC-07: of twenty simultaneous requests for one client id exactly one is stored."""
        claims = [put(store, request(n, client_id="gw", client_id_claim="gw")) for n in range(20)]
        outcomes = await asyncio.gather(*claims, return_exceptions=True)
        assert sorted(map(type, outcomes), key=str) == sorted([Duplicate] * 19 + [type(None)], key=str)
        assert await store.count(ProvisionRequest) == 1

    @with_store
    async def test_concurrent_changes_lose_nothing(self, store: Store) -> None:
        """Twenty callers who add one each, reading again when refused, add twenty."""
        await put(store, request(1))

        async def add_one() -> None:
            while True:
                read = await stored(store, 1)
                try:
                    return await put(store, replace(read, attempts=read.attempts + 1))
                except StaleVersion:
                    continue

        await asyncio.gather(*(add_one() for _ in range(20)))
        assert (await stored(store, 1)).attempts == 20

    @with_store
    async def test_an_abandoned_commit_harms_nobody(self, store: Store) -> None:
        """A caller that is cancelled while it waits leaves the store as usable as before."""
        waiting = asyncio.create_task(store.commit(walk_unit(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await store.commit(walk_unit(2))
        assert await store.get(Device, "dev-000002") is not None
        half = await store.get(ProvisionRequest, "req-000001"), await store.get(Effect, "acme/user-1")
        assert half[0] is None if half[1] is None else half[0] is not None

    @with_store
    async def test_find_orders_by_id(self, store: Store) -> None:
        """A shared index gives all holders in the order of their ids."""
        await put(store, *(request(n) for n in (3, 1, 2)))
        await put(store, request(4, account="other"))
        found = await store.find(ProvisionRequest, "account", "acme")
        assert [r.id for r in found] == ["req-000001", "req-000002", "req-000003"]

    @with_store
    async def test_pages_hold_every_record_once(self, store: Store) -> None:
        """Key-set paging visits each record once, in order, also when records come and go meanwhile."""
        await put(store, *(request(n) for n in range(10)))
        first = await store.page(ProvisionRequest, limit=4)
        assert [r.id for r in first.items] == [f"req-{n:06d}" for n in range(4)]
        await store.commit(Unit([Delete(await stored(store, 3)), Put(request(99))]))
        seen = list(first.items)
        after = first.after
        while after is not None:
            page = await store.page(ProvisionRequest, after=after, limit=4)
            seen += page.items
            after = page.after
        assert [r.id for r in seen] == [f"req-{n:06d}" for n in [*range(10), 99]]

    @with_store
    async def test_a_full_last_page_ends_the_listing(self, store: Store) -> None:
        """``after`` is None exactly when nothing follows."""
        await put(store, *(request(n) for n in range(4)))
        assert (await store.page(ProvisionRequest, limit=4)).after is None
        assert (await store.page(ProvisionRequest, limit=3)).after == "req-000002"
        assert (await store.page(Device)).items == []

    @with_store
    async def test_page_and_count_filter_by_all_given_indexes(self, store: Store) -> None:
        """Every index named in ``where`` must match; unique ones may be among them."""
        await put(store, *(request(n, account="even" if n % 2 == 0 else "odd") for n in range(8)))
        await put(store, replace(await stored(store, 2), state=RequestState.REVOKED))
        where = {"account": "even", "state": "pending"}
        first = await store.page(ProvisionRequest, where=where, limit=2)
        rest = await store.page(ProvisionRequest, where=where, limit=2, after=first.after)
        assert [r.id for r in [*first.items, *rest.items]] == ["req-000000", "req-000004", "req-000006"]
        assert await store.count(ProvisionRequest, where=where) == 3
        assert await store.count(ProvisionRequest, where={"account": "odd", "client_id": "gw3"}) == 1
        assert await store.count(ProvisionRequest, where={"account": "even", "client_id": "gw3"}) == 0
        assert await store.count(ProvisionRequest) == 8

    @with_store
    async def test_a_page_has_a_size(self, store: Store) -> None:
        """Limits outside 1 to 1,000 are refused."""
        for limit in (0, -1, 1001):
            with pytest.raises(InvalidInput):
                await store.page(ProvisionRequest, limit=limit)

    @with_store
    async def test_audit_rows_are_numbered_without_gaps(self, store: Store) -> None:
        """A commit returns the seq of its last row; one without rows that of the log; a refused unit takes none."""
        assert await store.commit(Unit([Put(request(1))])) == 0
        assert await store.commit(Unit([Put(request(2))], [event("a"), event("b")])) == 2
        with pytest.raises(Conflict):
            await store.commit(Unit([Put(request(2))], [event("refused")]))
        assert await store.commit(Unit(audit=[event("c", details={"n": 1}, reason="why")])) == 3
        assert await store.commit(Unit([Put(effect(1))])) == 3
        assert await all_audit(store) == [
            event("a", seq=1),
            event("b", seq=2),
            event("c", seq=3, details={"n": 1}, reason="why"),
        ]

    @with_store
    async def test_audit_pages(self, store: Store) -> None:
        """Rows after a seq in order, or the newest ones first."""
        await store.commit(Unit(audit=[event(str(n)) for n in range(1, 11)]))

        async def seqs(**how: Any) -> list[int]:
            return [row.seq for row in await store.audit_page(**how)]

        assert await seqs(after=7) == [8, 9, 10]
        assert await seqs(after=2, limit=2) == [3, 4]
        assert await seqs(limit=3, newest_first=True) == [10, 9, 8]
        assert await seqs(after=9, newest_first=True) == [10]
        assert await seqs(after=10) == []

    @with_store
    async def test_changes_tell_the_past_and_then_what_comes(self, store: Store) -> None:
        """A feed gives every row after a seq once, in order, and waits for the next."""
        await store.commit(Unit(audit=[event("a"), event("b"), event("c")]))
        seen: list[AuditEvent] = []
        caught_up, done = asyncio.Event(), asyncio.Event()

        async def follow() -> None:
            async with aclosing(store.changes(1)) as feed:  # type: ignore[type-var]  # the feed is an async generator
                async for row in feed:
                    seen.append(row)
                    if len(seen) == 2:
                        caught_up.set()
                    if len(seen) == 1203:
                        done.set()
                        break

        following = asyncio.create_task(follow())
        await asyncio.wait_for(caught_up.wait(), 10)
        await store.commit(Unit(audit=[event("d")]))
        await asyncio.gather(*(store.commit(Unit(audit=[event("e")] * 3)) for _ in range(400)))
        await asyncio.wait_for(done.wait(), 10)
        await following
        assert [row.seq for row in seen] == list(range(2, 1205))
        assert [row.subject for row in seen[:3]] == ["b", "c", "d"]

    @with_store
    async def test_health_of_a_good_store(self, store: Store) -> None:
        """A store that can commit says so, and asking changes nothing."""
        await store.health()
        await asyncio.gather(*(store.health() for _ in range(5)), put(store, request(1)))
        assert await store.count(ProvisionRequest) == 1

    @in_loop
    async def test_a_closed_store_serves_nobody(self, place: StorePlace) -> None:
        """After close every verb raises Unavailable; closing again is harmless; feeds end."""
        store = await place.open()
        await store.commit(Unit(audit=[event("a")]))
        feed = aiter(store.changes(1))
        waiting = asyncio.ensure_future(anext(feed, None))
        await asyncio.sleep(0)
        await store.close()
        await store.close()
        assert await asyncio.wait_for(waiting, 10) is None
        for refused in (
            store.get(ProvisionRequest, "x"),
            store.find(ProvisionRequest, "login", "x"),
            store.page(ProvisionRequest),
            store.count(ProvisionRequest),
            store.commit(Unit()),
            store.audit_page(),
            store.health(),
            store.adopt([request(1)]),
        ):
            with pytest.raises(Unavailable):
                await refused
        with pytest.raises(Unavailable):
            async with store.moment():
                raise AssertionError("a moment of a closed store")

    @in_loop
    async def test_commits_under_way_survive_a_close(self, place: StorePlace) -> None:
        """What was asked for before the close is committed by it."""
        store = await place.open()
        commits = [asyncio.create_task(store.commit(walk_unit(n))) for n in range(5)]
        await asyncio.sleep(0)
        await store.close()
        assert sorted(await asyncio.gather(*commits)) == [2, 4, 6, 8, 10]
        async with opened(place) as store:
            assert await store.count(Device) == 5
