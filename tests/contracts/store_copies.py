"""The part of the store contract that whole copies need: a moment to read from, and adopting what was read."""

import asyncio
from dataclasses import replace

import pytest

from provisioner.model.device import Device
from provisioner.model.effect import Effect
from provisioner.model.errors import Conflict, Duplicate
from provisioner.model.ports import Delete, Put, Store, Unit
from provisioner.model.request import ProvisionRequest
from tests.contracts.store_stage import StorePlace, in_loop, opened, put, stored, with_store
from tests.contracts.store_values import all_audit, device, event, one_of_each, request, walk_unit


class CopiesContract:
    @with_store
    async def test_a_moment_holds_whole_units(self, store: Store) -> None:
        """A moment taken while commits go on has whole units, in the order of ids, and stays as it is."""
        await store.commit(walk_unit(1))
        commits = [asyncio.create_task(store.commit(walk_unit(n))) for n in range(2, 50)]
        await asyncio.sleep(0)
        async with store.moment() as moment:
            await asyncio.gather(*commits)
            await store.commit(walk_unit(100))
            devices = [noun.id async for batch in moment.nouns(Device) for noun in batch]
            requests = [noun.id async for batch in moment.nouns(ProvisionRequest) for noun in batch]
            effects = [noun.id async for batch in moment.nouns(Effect) for noun in batch]
        assert devices == sorted(devices)
        assert 1 <= len(devices) <= 49
        assert len(requests) == len(effects) == len(devices)
        assert moment.audit_seq == 2 * len(devices)

    @with_store
    async def test_a_moment_has_records_as_they_were(self, store: Store) -> None:
        """What is put and deleted meanwhile is not seen; a kind may have none, or more than a page."""
        await put(store, *map(request, range(1_200)))
        async with store.moment() as moment:
            first = await stored(store, 0)
            await store.commit(Unit([Put(replace(first, attempts=7)), Delete(await stored(store, 1))]))
            found = [noun async for batch in moment.nouns(ProvisionRequest) for noun in batch]
            none = [noun async for batch in moment.nouns(Device) for noun in batch]
        assert found == [replace(request(number), version=1) for number in range(1_200)]
        assert none == []

    @with_store
    async def test_adopted_records_stay_as_they_are(self, store: Store) -> None:
        """Versions and seqs are kept, whatever is adopted twice is there once, and commits go on behind it."""
        nouns = [replace(noun, version=7) for noun in one_of_each()]
        rows = [event(str(seq), seq=seq) for seq in range(4, 9)]
        for _ in range(2):
            await store.adopt(nouns, rows)
        await store.adopt([], [event(str(seq), seq=seq) for seq in range(7, 11)])
        for noun in nouns:
            assert await store.get(type(noun), noun.id) == noun
            assert await store.count(type(noun)) == sum(type(other) is type(noun) for other in nouns)
        assert await store.find(Device, "request", "req-000001") == [next(n for n in nouns if isinstance(n, Device))]
        assert [row.seq for row in await all_audit(store)] == list(range(4, 11))
        assert await store.commit(Unit([Put(await stored(store, 1))], [event("next")])) == 11
        assert (await stored(store, 1)).version == 8

    @with_store
    async def test_an_adoption_is_all_or_nothing(self, store: Store) -> None:
        """A record that contradicts another one, or audit rows that follow nothing, leave the store as it was."""
        await store.adopt([request(1)], [event("a", seq=1)])
        with pytest.raises(Duplicate):
            await store.adopt([device(1), request(2, client_id="gw1", client_id_claim="gw1")], [event("b", seq=2)])
        with pytest.raises(Conflict):
            await store.adopt([device(1)], [event("c", seq=3)])
        assert await store.count(Device) == 0
        assert await store.count(ProvisionRequest) == 1
        assert [row.subject for row in await all_audit(store)] == ["a"]

    @in_loop
    async def test_what_was_adopted_is_there_after_reopening(self, place: StorePlace) -> None:
        """Adopted records are as durable as committed ones."""
        nouns = [replace(noun, version=3) for noun in one_of_each()]
        async with opened(place) as store:
            await store.adopt(nouns, [event("a", seq=9)])
        async with opened(place) as store:
            assert [await store.get(type(noun), noun.id) for noun in nouns] == nouns
            assert [row.seq for row in await all_audit(store)] == [9]
            assert await store.commit(Unit(audit=[event("b")])) == 10
