"""What must hold of a store whose writer was killed, or whose disk failed, amid commits of ``walk_unit``."""

from collections import Counter
from collections.abc import Awaitable

from provisioner.model.device import Device
from provisioner.model.effect import Effect
from provisioner.model.ports import Noun, Store
from provisioner.model.request import ProvisionRequest
from provisioner.model.user import AccountUser
from tests.contracts.store_values import all_audit

PARTS = (ProvisionRequest, Device, AccountUser, Effect)


async def whole_units(opening: Awaitable[Store]) -> set[int]:
    """Numbers of the units in a store, after checking that each is whole and its audit rows are there once."""
    store = await opening
    found = [_numbers(await _ids(store, kind)) for kind in PARTS]
    audit = await all_audit(store)
    await store.close()
    assert all(numbers == found[0] for numbers in found)
    assert Counter(row.subject for row in audit) == {f"req-{n:06d}": 2 for n in found[0]}
    assert [row.seq for row in audit] == list(range(1, len(audit) + 1))
    return found[0]


async def _ids(store: Store, kind: type[Noun]) -> list[str]:
    ids: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await store.page(kind, after=after, limit=1000)
        ids += [noun.id for noun in page.items]
        after = page.after
    return ids


def _numbers(ids: list[str]) -> set[int]:
    return {int("".join(filter(str.isdigit, id))) for id in ids}
