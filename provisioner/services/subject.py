"""Whom the work at hand is about, for every line that is logged meanwhile by whatever part."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

NOBODY: Mapping[str, str] = {}
_subject: ContextVar[Mapping[str, str]] = ContextVar("subject", default=NOBODY)


@contextmanager
def about(**subject: str | None) -> Iterator[None]:
    """Until the end of the block the work is also about this: request_id, client_id, account, address, actor."""
    former = _subject.get()
    _subject.set({**former, **{name: value for name, value in subject.items() if value}})
    try:
        yield
    finally:
        _subject.set(former)


def current() -> Mapping[str, str]:
    return _subject.get()
