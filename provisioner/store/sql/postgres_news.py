"""What other processes tell over NOTIFY: that there are new audit rows, and short messages."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

import psycopg

from provisioner.model.errors import Unavailable
from provisioner.store.fanout import Fanout
from provisioner.store.sql.postgres_link import connect
from provisioner.store.sql.postgres_options import PostgresOptions

_log = logging.getLogger(__name__)

SIGNALS = "fleetgate_signal"
_AUDIT = "fleetgate_audit"  # named by the commit function
_RETRY_S = 0.2, 2.0  # first and longest wait between two attempts


class PostgresNews:
    """A connection that only listens, made again when it breaks.

    rows: called when there may be new audit rows. messages: gets every message, and None after each break."""

    def __init__(self, options: PostgresOptions, rows: Callable[[], None], messages: Fanout) -> None:
        self._options = options
        self._rows = rows
        self._messages = messages
        self._listening = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def listening(self) -> None:
        """Wait until whatever is told from now on is heard."""
        await self._listening.wait()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        first_s, longest_s = _RETRY_S
        wait_s = first_s
        while True:
            try:
                await self._listen()
            except (psycopg.Error, OSError, Unavailable) as error:
                if self._listening.is_set():
                    _log.warning("no news from other processes: %s", type(error).__name__)
                    self._listening.clear()
                    wait_s = first_s
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, longest_s)

    async def _listen(self) -> None:
        connection = await connect(self._options, f"LISTEN {_AUDIT}", f"LISTEN {SIGNALS}")
        async with connection:
            self._listening.set()
            # Whatever was told before is not heard any more.
            self._rows()
            self._messages.send(None)
            async for told in connection.notifies():
                if told.channel == SIGNALS:
                    self._messages.send(told.payload)
                else:
                    self._rows()
