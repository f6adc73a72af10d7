"""Several gates on one host: a parent that keeps its workers running. It holds no listener and no record itself."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Callable, Iterator, Sequence

from provisioner.doors import systemd

log = logging.getLogger(__name__)

PAUSE_S, PAUSE_S_MAX = 1.0, 30.0
SETTLED_S = 10.0  # one that ran so long is no failing start
HOPELESS = frozenset((2, 6))  # exit statuses that no second try makes better: usage and settings
NOT_BEGUN = 71  # EX_OSERR of sysexits.h
LAST_WORDS_S = 5.0  # beyond what a worker has for its drain
TICK_S, SILENT_S = 1.0, 10.0  # a worker says every second that it lives
_SIGN = b"."


class Workers:
    """command: the program and arguments of worker 1, 2 ... stop_s: how long each may take to end by itself.

    A worker has a line to the parent as its standard input, on which it hears nothing: it ends when the parent does. It
    says on it that it lives (``live``). The parent alone tells systemd, as long as no worker that spoke once is silent:
    one that begins again stops nobody, and one that stands still is not hidden by the others."""

    def __init__(self, command: Callable[[int], Sequence[str]], count: int, stop_s: float) -> None:
        self._command, self._count, self._stop_s = command, count, stop_s + LAST_WORDS_S
        self._running: dict[int, Process] = {}
        self._heard_s: dict[int, float] = {}  # worker -> when it said last that it lives
        self._spoke, self._stop = asyncio.Event(), asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        """Until SIGTERM or SIGINT, which every worker gets; so do they SIGHUP. The exit status: not 0 when a worker
        could not be started for a reason that stays."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._tell, signal.SIGHUP)
        keeping = [asyncio.create_task(self._keep(number)) for number in range(1, self._count + 1)]
        telling = asyncio.create_task(self._tell_systemd())
        try:
            await self._stop.wait()
        finally:
            telling.cancel()
            self._tell(signal.SIGTERM)
            _, late = await asyncio.wait(keeping, timeout=self._stop_s)
            if late:
                log.warning("%d workers did not end in time", len(late))
                self._tell(signal.SIGKILL)
                await asyncio.wait(late)
        return self._status

    async def _keep(self, number: int) -> None:
        """One worker after the other in this place, until all are to stop."""
        pause_s, loop = PAUSE_S, asyncio.get_running_loop()
        while not self._stop.is_set():
            since_s = loop.time()
            status = await self._run(number)
            if self._stop.is_set():
                return
            if status in HOPELESS:
                self._status = status
                self._stop.set()
                return
            pause_s = PAUSE_S if loop.time() - since_s >= SETTLED_S else min(pause_s * 2, PAUSE_S_MAX)
            log.error("worker %d ended with status %d and is started again in %.0f s", number, status, pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stop.wait()

    async def _run(self, number: int) -> int:
        """One worker from its beginning to its end; its exit status."""
        try:
            with self._line(number) as stdin:
                # Without systemd's address: it hears of the workers from their parent.
                environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
                process = await asyncio.create_subprocess_exec(
                    *self._command(number), stdin=stdin.fileno(), env=environment
                )
                stdin.close()
                self._running[number] = process
                if self._stop.is_set():  # it was told to all while this one began
                    process.terminate()
                status = await process.wait()
                del self._running[number]
                return status
        except OSError as error:  # no memory, no more processes: it may be another time
            log.error("worker %d cannot begin: %s", number, error.strerror)
            return NOT_BEGUN

    @contextlib.contextmanager
    def _line(self, number: int) -> Iterator[socket.socket]:
        """The worker's end; ours is listened to."""
        ours, its = socket.socketpair()
        loop = asyncio.get_running_loop()

        def hear() -> None:
            if ours.recv(1_024):
                self._heard_s[number] = loop.time()
                self._spoke.set()
            else:
                loop.remove_reader(ours)

        with ours, its:
            loop.add_reader(ours, hear)
            try:
                yield its
            finally:
                loop.remove_reader(ours)
                self._heard_s.pop(number, None)

    async def _tell_systemd(self) -> None:
        await self._spoke.wait()
        systemd.notify(systemd.READY)
        loop = asyncio.get_running_loop()
        while True:
            if self._heard_s and min(self._heard_s.values()) > loop.time() - SILENT_S:
                systemd.notify(systemd.ALIVE)
            await asyncio.sleep(TICK_S)

    def _tell(self, number: signal.Signals) -> None:
        for process in list(self._running.values()):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)


def live(line: int) -> None:
    """Said by a worker to its parent, on its standard input. Never blocks and never raises."""
    with contextlib.suppress(OSError):
        os.set_blocking(line, False)
        os.write(line, _SIGN)
