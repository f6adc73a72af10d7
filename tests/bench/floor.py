"""The floor of the performance figures: the gate with an application that answers a constant.

``python -m tests.bench.floor PORT [--tls CERTIFICATE KEY] [--broker-url URL]`` serves on loopback until SIGTERM or
SIGINT. A second one can play the account broker: any login may publish on ``bench/<client id>``.
"""

import argparse
import asyncio
import itertools
import json
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

from broker.access import Admission, Close, Connection, Denial, Incident, Login
from broker.gate import Gate
from broker.limits import GateLimits
from broker.listener import Listener
from broker.loop import run
from broker.tls import TlsFiles

DRAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class BenchRights:
    """The native dialect's topics of one client id, and the one on which the second hop publishes."""

    publish: frozenset[str]
    subscribe: frozenset[str]
    below: str | None = None
    wills: frozenset[str] = frozenset()


def constant_answer(broker_url: str) -> bytes:
    """About as long as a real one."""
    answer = {
        "request_id": "bench",
        "status": "provisioned",
        "server_time": "2026-01-01T00:00:00Z",
        "broker_url": broker_url,
        "client_id": "bench",
        "username": "bench-user",
        "password": "constant-" * 4,
        "configuration": {"interval_s": 60},
    }
    return json.dumps(answer).encode()


class ConstantApplication:
    """Admits everybody and answers every message on the response topic with the same bytes."""

    def __init__(self, broker_url: str) -> None:
        self._identities = itertools.count()
        self._answer = constant_answer(broker_url)

    async def admit(self, login: Login) -> Admission | Denial:
        prefix = f"prov/v1/{login.client_id}"
        rights = BenchRights(
            frozenset((f"{prefix}/request", f"{prefix}/ack", f"bench/{login.client_id}")),
            frozenset((f"{prefix}/response",)),
        )
        # Every answer is the same, so all second hops have one client id: none of them may displace another.
        return Admission(str(next(self._identities)), login.client_id, login.username or "", rights)

    def opened(self, connection: Connection) -> None:
        return

    async def received(self, connection: Connection, topic: str, payload: bytes, dup: bool) -> None:
        if topic.endswith("/request"):
            connection.send(f"prov/v1/{connection.client_id}/response", self._answer)

    def acknowledged(self, connection: Connection, topic: str) -> None:
        return

    def closed(self, connection: Connection, reason: Close) -> None:
        return

    def foresaw(self, incident: Incident) -> bool:
        return False

    def observed(self, incident: Incident) -> None:
        return


async def serve(port: int, tls: TlsFiles | None, broker_url: str) -> None:
    """Print the port, serve until a signal, then print what it cost as JSON: CPU seconds and peak memory."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    gate = Gate(ConstantApplication(broker_url), [Listener(name="floor", port=port, tls=tls)], GateLimits())
    await gate.start()
    print(gate.ports["floor"], flush=True)
    await stop.wait()
    await gate.drain(DRAIN_S)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"cpu_s": usage.ru_utime + usage.ru_stime, "memory_kb_max": usage.ru_maxrss}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int, help="0: any free one")
    parser.add_argument("--tls", nargs=2, type=Path, metavar=("CERTIFICATE", "KEY"))
    parser.add_argument("--broker-url", default="mqtt://127.0.0.1:1883")
    arguments = parser.parse_args()
    tls = TlsFiles(*arguments.tls) if arguments.tls else None
    run(serve(arguments.port, tls, arguments.broker_url))


if __name__ == "__main__":
    main()
