"""One connection to PostgreSQL that is made again when it broke, and never waits without end."""

import asyncio
import contextlib
import logging
import os
import select
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import pq

from provisioner.model.errors import Unavailable
from provisioner.store.sql.postgres_options import PostgresOptions

_log = logging.getLogger(__name__)

Rows = Sequence[tuple[Any, ...]]
Values = Sequence[Any] | Mapping[str, Any]
Connection = psycopg.AsyncConnection[tuple[Any, ...]]

# A server that has just been found away is not asked again before this is over.
RETRY_S = 0.2
GRACE_S = 2.0  # past the server's own time-out, before a statement is given up here

_REASONS = {
    "25006": "it is read-only",
    "53100": "its disk is full",
    "53200": "it is out of memory",
    "53300": "it has too many connections",
    "55P03": "other commits took too long",
    "57014": "the statement took too long",
    "FG002": "a newer program has migrated it: restart with that version",
}


class Lost(Unavailable):
    """The connection broke after the statement may have been sent: nobody knows what became of it."""


class Refused(Unavailable):
    """The server said no, so nothing was done."""

    def __init__(self, options: PostgresOptions, sqlstate: str) -> None:
        self.sqlstate = sqlstate
        super().__init__(f"{options.place} refused: {reason(sqlstate)}")


def reason(sqlstate: str) -> str:
    return _REASONS.get(sqlstate, f"SQLSTATE {sqlstate}")


class Link:
    """For one statement at a time. The connection is made when it is first needed."""

    def __init__(self, options: PostgresOptions, *setup: str) -> None:
        """setup: statements that begin each connection."""
        self._options = options
        self._setup = setup
        self._connection: Connection | None = None
        self._away_until_s = 0.0
        self._why_away = ""

    async def ask(self, statement: str, values: Values = (), *, prepared: bool = True) -> Rows:
        """Raises Lost, Refused, or Unavailable when there is no connection, so that nothing was sent."""
        connection = await self.connected()
        try:
            async with within(connection, self._options.statement_s + GRACE_S):
                cursor = await connection.execute(statement.encode(), values or None, prepare=prepared)
                return await cursor.fetchall() if cursor.description else ()
        except (psycopg.Error, OSError) as error:
            raise await self._told(connection, error) from None

    async def connected(self) -> Connection:
        """Raises Unavailable."""
        if self._connection is not None:
            if _alive(self._connection):
                return self._connection
            await self.close()
        now_s = asyncio.get_running_loop().time()
        if now_s < self._away_until_s:
            raise Unavailable(self._why_away)
        try:
            self._connection = await connect(self._options, *self._setup)
        except Unavailable as error:
            self._away_until_s, self._why_away = asyncio.get_running_loop().time() + RETRY_S, str(error)
            raise
        return self._connection

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _told(self, connection: Connection, error: psycopg.Error | OSError) -> Unavailable:
        sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
        # A server that goes away says so by an error too (57P01), and may do so after a commit.
        idle = not connection.closed and connection.pgconn.transaction_status == pq.TransactionStatus.IDLE
        if sqlstate is None or sqlstate.startswith("57P") or not idle:
            await self.close()
            return Lost(f"the connection to the {self._options.place} broke")
        if sqlstate == "25006":
            await self.close()  # it has become a standby: the next connection looks for the one that writes
        return Refused(self._options, sqlstate)


async def connect(options: PostgresOptions, *setup: str) -> Connection:
    """Raises Unavailable."""
    try:
        made = await psycopg.AsyncConnection.connect(**options.keywords(), autocommit=True)  # type: ignore[arg-type]  # the keywords are libpq's
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(made.close)
            async with within(made, options.statement_s + GRACE_S):
                for statement in setup:
                    await made.execute(statement.encode())
            undo.pop_all()
    except (psycopg.Error, OSError) as error:
        # What libpq says of a failed connection names host, port, user and database, and no password.
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise Unavailable(f"the {options.place} cannot be reached: {why[0]}") from None
    return made


def _alive(connection: Connection) -> bool:
    """Whether an idle connection has not been closed from afar: what is never sent is not Lost."""
    with contextlib.suppress(psycopg.Error, OSError, ValueError):
        # A farewell comes before the end of the stream.
        while not connection.closed and _readable(connection):
            connection.pgconn.consume_input()
        return not connection.closed
    return False


def _readable(connection: Connection) -> bool:
    asked = select.poll()  # select() knows no descriptor above 1,023
    asked.register(connection.fileno(), select.POLLIN)
    return bool(asked.poll(0))


@contextlib.asynccontextmanager
async def within(connection: Connection, seconds: float) -> AsyncIterator[None]:
    """Cut the connection when the block has not ended by then: a server that hangs tells nobody."""
    cutting = asyncio.get_running_loop().call_later(seconds, _cut, connection)
    try:
        yield
    finally:
        cutting.cancel()


def _cut(connection: Connection) -> None:
    _log.error("the database did not answer in time: its connection is cut")
    # The descriptor stays libpq's; shutting the socket down wakes whoever waits on it.
    with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as cut:
        cut.shutdown(socket.SHUT_RDWR)
