"""All records of a kind, however many there are: a page of them in memory at a time."""

from collections.abc import AsyncIterator, Mapping, Sequence

from provisioner.model.ports import N, Store

PAGE = 500


async def pages(store: Store, noun: type[N], where: Mapping[str, str] | None = None) -> AsyncIterator[Sequence[N]]:
    """Those of a filter, in the order of their ids; what is made meanwhile may be among them. Raises Unavailable."""
    after: str | None = None
    while True:
        page = await store.page(noun, where=where, after=after, limit=PAGE)
        yield page.items
        if (after := page.after) is None:
            return
