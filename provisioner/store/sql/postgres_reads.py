"""Reading from PostgreSQL: look-ups by one index that wait go out together, as one statement for all their values."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

from provisioner.model.errors import Unavailable
from provisioner.model.ports import N, Noun
from provisioner.store.sql import rows
from provisioner.store.sql.names import INDEXES
from provisioner.store.sql.postgres_link import Link, Lost, Rows, Values
from provisioner.store.sql.postgres_options import PostgresOptions

_log = logging.getLogger(__name__)

TOGETHER_MAX = 100  # values that one statement looks up
# More connections would only take values away from each other's statements.
_LOOKING_UP_MAX = 2


@dataclass(slots=True, eq=False)
class _Question:
    statement: str
    values: Values
    answer: asyncio.Future[Rows]


@dataclass(slots=True, eq=False)
class _Lookups:
    """Of one column. values: what is looked for, and who waits for it."""

    noun: type[Noun]
    values: dict[str, asyncio.Future[Sequence[Noun]]] = field(default_factory=dict)


class PostgresReads:
    """Lives on one event loop. Callers who give up leave the connections as usable as before.

    A read whose connection broke is asked once more on a new one, so a restarted server costs nobody a refusal."""

    def __init__(self, options: PostgresOptions) -> None:
        self._idle = [Link(options) for _ in range(options.readers_max)]
        # One connection stays for look-ups, however long the questions take that come in pages.
        self._asking_max = max(1, options.readers_max - 1)
        self._questions: deque[_Question] = deque()
        self._lookups: dict[tuple[str, str], _Lookups] = {}  # (kind, column) -> what waits
        self._asking: set[asyncio.Task[None]] = set()
        self._looking_up: set[asyncio.Task[None]] = set()

    async def lookup(self, noun: type[N], column: str, value: str) -> Sequence[N]:
        """The records whose column has this value, ordered by id."""
        if not storable(value):
            return []
        waiting = self._lookups.setdefault((noun.kind, column), _Lookups(noun)).values
        found = waiting.get(value)
        if found is None:
            found = waiting[value] = asyncio.get_running_loop().create_future()
            self._start()
        # Others may wait for the same value.
        return cast("Sequence[N]", await asyncio.shield(found))

    async def ask(self, statement: str, values: Values = ()) -> Rows:
        """Planned for its values each time: for statements whose best plan depends on them."""
        answer: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        self._questions.append(_Question(statement, values, answer))
        self._start()
        return await answer

    async def close(self) -> None:
        """Finish what waits."""
        while tasks := self._asking | self._looking_up:
            await asyncio.wait(tasks)
        for link in self._idle:
            await link.close()

    def _start(self) -> None:
        if self._lookups and self._idle and len(self._looking_up) < _LOOKING_UP_MAX:
            self._run(self._looking_up, self._look_up)
        if self._questions and self._idle and len(self._asking) < self._asking_max:
            self._run(self._asking, self._answer)

    def _run(self, tasks: set[asyncio.Task[None]], work: Callable[[Link], Awaitable[None]]) -> None:
        link = self._idle.pop()

        async def run() -> None:
            try:
                await work(link)
            finally:
                tasks.discard(task)
                self._idle.append(link)
                self._start()

        task = asyncio.create_task(run())
        tasks.add(task)

    async def _answer(self, link: Link) -> None:
        while self._questions:
            question = self._questions.popleft()
            if question.answer.done():
                continue
            try:
                told = await _asked(link, question.statement, question.values, prepared=False)
            # Whatever went wrong, the caller that waits must hear of it.
            except Exception as error:
                _fail([question.answer], error)
            else:
                if not question.answer.done():
                    question.answer.set_result(told)

    async def _look_up(self, link: Link) -> None:
        while self._lookups:
            kind, column = next(iter(self._lookups))
            waiting = self._lookups.pop((kind, column))
            values = {value: waiting.values.pop(value) for value in list(waiting.values)[:TOGETHER_MAX]}
            if waiting.values:
                self._lookups[kind, column] = waiting
            try:
                found = await _found(link, waiting.noun, column, values)
            # As above.
            except Exception as error:
                _fail(values.values(), error)
                continue
            for value, future in values.items():
                if not future.done():
                    future.set_result(found.get(value, []))


async def _found(link: Link, noun: type[Noun], column: str, values: Mapping[str, Any]) -> Mapping[str, list[Noun]]:
    """value -> records, ordered by id."""
    found: dict[str, list[Noun]] = {}
    if len(values) == 1:
        (value,) = values
        answered = await _asked(link, _one(noun.kind, column), (value,))
        found[value] = [rows.loaded(noun, record) for (record,) in answered]
        return found
    for value, record in await _asked(link, _several(noun.kind, column), (list(values),)):
        found.setdefault(value, []).append(rows.loaded(noun, record))
    return found


async def _asked(link: Link, statement: str, values: Values, *, prepared: bool = True) -> Rows:
    try:
        return await link.ask(statement, values, prepared=prepared)
    except Lost:
        return await link.ask(statement, values, prepared=prepared)


def _fail(futures: Any, error: Exception) -> None:
    if not isinstance(error, Unavailable):
        _log.error("a read failed: %s", type(error).__name__)
    for future in futures:
        if not future.done():
            future.set_exception(error)
            future.exception()  # whoever asked may have given up


def storable(value: str) -> bool:
    """Whether PostgreSQL can have such a text at all."""
    return "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)


def checked_column(kind: str, index: str) -> str:
    """The column of an index, which becomes part of a statement. Raises KeyError when there is none."""
    if index not in INDEXES[kind].names:
        raise KeyError(f"{kind} has no index {index}")
    return index


@cache
def _one(kind: str, column: str) -> str:
    return f"SELECT record FROM {kind} WHERE {_column(kind, column)} = %s ORDER BY id"


@cache
def _several(kind: str, column: str) -> str:
    column = _column(kind, column)
    return f"SELECT {column}, record FROM {kind} WHERE {column} = ANY(%s) ORDER BY id"


def _column(kind: str, column: str) -> str:
    return column if column == "id" else checked_column(kind, column)
