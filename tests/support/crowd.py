"""Many devices at once: their requests by one import, their factory settings in a file that the simulator reads."""

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from device_sim.actions import Log
from tests.support.installation import Installation


def crowd(installation: Installation, folder: Path, count: int, prefix: str = "crowd", **fields: Any) -> dict[str, Any]:
    """Fleet settings of that many devices, each with a request and generated credentials of its own.

    fields: of every request beside its names."""
    rows = [
        (n, {"account": "acme", "client_id": f"{prefix}-{n}", "username": f"user-{prefix}-{n}", **fields})
        for n in range(count)
    ]
    with installation.client() as client:
        made = list(client.send_rows(rows))
    devices = [
        {"client_id": row["client_id"], "username": row["username"], "password": row["secrets"]["password"]}
        for row in made
    ]
    path = folder / f"{prefix}.json"
    path.write_text(json.dumps(devices))
    return {"name": prefix, "devices_file": str(path)}


def await_confirmed(installation: Installation, count: int, timeout_s: float = 10.0) -> None:
    """Until that many requests are confirmed and no other one is left."""
    until_s = time.monotonic() + timeout_s
    while (left := _not_confirmed(installation, count)) != 0:
        assert time.monotonic() < until_s, f"{left} of {count} are not confirmed"
        time.sleep(0.05)


def _not_confirmed(installation: Installation, count: int) -> int:
    states = installation.ask("status")["requests"]
    assert sum(states.values()) == count
    return count - int(states["confirmed"])


class Chronicle:
    """What every device did and when: an observer of a fleet. Times are of ``time.monotonic``."""

    def __init__(self) -> None:
        self.events: dict[str, list[tuple[float, str, str]]] = defaultdict(list)

    def __call__(self, client_id: str, log: Log) -> None:
        self.events[client_id].append((time.monotonic(), log.event, log.detail))

    def await_events(self, event: str, count: int, timeout_s: float = 60.0) -> None:
        """Until so many devices had it; for another thread than the one that writes."""
        until_s = time.monotonic() + timeout_s
        while sum(any(name == event for _, name, _ in list(each)) for each in list(self.events.values())) < count:
            assert time.monotonic() < until_s, f"{event} of {count} devices does not come"
            time.sleep(0.05)

    def times(self, event: str) -> list[float]:
        return sorted(at for events in self.events.values() for at, name, _ in events if name == event)

    def counts(self, event: str) -> Counter[str]:
        """How often each device had it."""
        return Counter(who for who, events in self.events.items() for _, name, _ in events if name == event)

    def walks_s(self) -> list[float]:
        """From switched on to at home, of each device that got there, ascending."""
        walks = []
        for events in self.events.values():
            home = [at for at, name, _ in events if name == "CONNECTED"]
            walks += [at - events[0][0] for at in home[:1]]
        return sorted(walks)

    def reached_s(self) -> list[float]:
        """From switched on to the connect after which the gate served it, of each device, ascending."""
        tries = ([at for at, name, _ in each if name == "CONNECT(gate)"] for each in self.events.values())
        return sorted(each[-1] - each[0] for each in tries)


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """The work beside the block, in a thread; what it raises is raised at the end of the block."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]
