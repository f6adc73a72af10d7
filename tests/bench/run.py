"""``make bench``: the figures, each as a ratio to its floor in the same run, one line a figure.

``python -m tests.bench.run [--only P1,P4] [--pairs N]`` prints ``P1 tinydb ratio=0.52 bar=0.40 ok`` and writes the raw
numbers to ``bench-results/latest.json``. Floor and product alternate, each in a process of its own; a pair counts only
as a pair, and the figure is the median over the pairs.
"""

import argparse
import asyncio
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from broker.encoding import encode
from broker.loop import run
from broker.packets import V311, Connect
from provisioner.app import utc_now
from provisioner.authority.local_ca import LocalAuthority
from tests.bench.load import Device, LoadPlan, LoadResult, constant_devices, load

STORED_REQUESTS = 1_000
WARM_DEVICES = 200
IN_FLIGHT = 50
AT_ONCE = 2_000
IDLE_CONNECTIONS = 1_000
SECOND_TOPIC = "bench/{client_id}"
RESULTS = Path("bench-results/latest.json")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line. is_floor_of: the bar is the least that is good (True) or the most (False)."""

    id: str
    what: str
    value: float
    bar: float
    at_least: bool
    unit: str = "ratio"

    @property
    def is_met(self) -> bool:
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def __str__(self) -> str:
        verdict = "ok" if self.is_met else "missed"
        return f"{self.id} {self.what} {self.unit}={self.value:.3g} bar={self.bar:g} {verdict}"


@dataclass(frozen=True, slots=True)
class Round:
    """One side of a pair. gate_cpu_s: of the gate's process alone, for all devices together."""

    load: LoadResult
    gate_cpu_s: float


class Site:
    """Certificates, and the bare endpoint that plays the account broker for both sides."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        authority = LocalAuthority.create("bench", utc_now())
        certificate, key = authority.server(["localhost", "127.0.0.1"], utc_now())
        (folder / "server.pem").write_text(certificate)
        (folder / "server.key").write_text(key.reveal())
        (folder / "ca.pem").write_text(authority.pem)
        self.broker_url = f"mqtt://127.0.0.1:{stack.enter_context(endpoint()).port}"
        self._products = 0

    @contextmanager
    def floor(self, *, secure: bool) -> Iterator[tuple["Server", list[Device], ssl.SSLContext | None]]:
        tls = ("--tls", str(self.folder / "server.pem"), str(self.folder / "server.key")) if secure else ()
        context = ssl.create_default_context(cafile=self.folder / "ca.pem") if secure else None
        with endpoint(*tls, "--broker-url", self.broker_url) as server:
            yield server, list(constant_devices(STORED_REQUESTS + WARM_DEVICES)), context

    @contextmanager
    def product(
        self, *, secure: bool, requests: int = STORED_REQUESTS + WARM_DEVICES
    ) -> Iterator[tuple["Server", list[Device], ssl.SSLContext | None]]:
        self._products += 1
        folder = self.folder / f"product-{self._products}"
        context = None
        arguments = (str(folder), "--requests", str(requests), "--broker-url", self.broker_url)
        with process("tests.bench.product", *arguments) as server:
            if secure:
                context = ssl.create_default_context(cafile=folder / "ca/ca.pem")
            devices = [
                Device(each["client_id"], each["username"], each["password"].encode(), _message(number))
                for number, each in enumerate(json.loads((folder / "devices.json").read_text()))
            ]
            yield Server(server.pid, server.ports, server.ports["secure" if secure else "plain"]), devices, context


@dataclass(frozen=True, slots=True)
class Server:
    """A process that listens, ready."""

    pid: int
    ports: dict[str, int]
    port: int

    def cpu_s(self) -> float:
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def resident_bytes(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)


def endpoint(*arguments: str) -> Any:
    """The floor's process; it answers a constant."""
    return process("tests.bench.floor", "0", *arguments)


@contextmanager
def process(module: str, *arguments: str) -> Iterator[Server]:
    """Run a module that prints its port, or its ports as JSON, once it listens; end it by SIGTERM."""
    with subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            said = json.loads(child.stdout.readline())
            ports = said if isinstance(said, dict) else {"plain": said}
            yield Server(child.pid, ports, next(iter(ports.values())))
        finally:
            child.terminate()
            child.communicate(timeout=30)


def _message(number: int) -> bytes:
    return json.dumps({"request_id": f"r{number}", "device": {"model_id": "bench"}}).encode()


def measure(
    server: Server, devices: list[Device], context: ssl.SSLContext | None, *, in_flight: int = IN_FLIGHT
) -> Round:
    """Warm with the first devices, then walk the rest."""
    host = "localhost" if context else "127.0.0.1"
    plan = LoadPlan(host=host, port=server.port, in_flight=in_flight, tls=context, second_topic=SECOND_TOPIC)
    run(load(devices[:WARM_DEVICES], plan))
    before_s = server.cpu_s()
    result = run(load(devices[WARM_DEVICES:], plan))
    assert result.provisioned == result.devices, result.outcomes
    return Round(result, server.cpu_s() - before_s)


def pairs(site: Site, count: int, *, secure: bool) -> list[tuple[Round, Round]]:
    """(floor, product), one after the other, that many times."""
    made = []
    for _ in range(count):
        with site.floor(secure=secure) as floor:
            below = measure(*floor)
        with site.product(secure=secure) as product:
            made.append((below, measure(*product)))
    return made


def p1(site: Site, count: int, raw: dict[str, Any]) -> list[Figure]:
    """P1 and P4: rate and tail latency over the floor, plain."""
    measured = pairs(site, count, secure=False)
    raw["plain"] = [[asdict(floor), asdict(product)] for floor, product in measured]
    rate = statistics.median(product.load.devices_per_s / floor.load.devices_per_s for floor, product in measured)
    tail = statistics.median(product.load.p99_s / floor.load.p99_s for floor, product in measured)
    _say_rates("plain", measured)
    return [Figure("P1", "tinydb", rate, 0.4, True), Figure("P4", "tinydb p99", tail, 2.0, False)]


def p2(site: Site, count: int, raw: dict[str, Any]) -> list[Figure]:
    """P2: the same over TLS. Beside the rate stands CPU per device, since the generator is the slower side there."""
    measured = pairs(site, count, secure=True)
    raw["tls"] = [[asdict(floor), asdict(product)] for floor, product in measured]
    rate = statistics.median(product.load.devices_per_s / floor.load.devices_per_s for floor, product in measured)
    _say_rates("tls", measured)
    return [Figure("P2", "tinydb", rate, 0.9, True)]


def p5(site: Site, count: int, raw: dict[str, Any]) -> list[Figure]:
    """P5: many devices at once; none may be lost, and no two may get the same password."""
    with site.floor(secure=False) as (server, _, context):
        devices = list(constant_devices(WARM_DEVICES + AT_ONCE))
        floor = measure(server, devices, context, in_flight=AT_ONCE).load
    with site.product(secure=False, requests=WARM_DEVICES + AT_ONCE) as product:
        taken = measure(*product, in_flight=AT_ONCE).load
    raw["at_once"] = [asdict(floor), asdict(taken)]
    lost, duplicates = taken.devices - taken.provisioned, taken.provisioned - taken.passwords
    return [
        Figure("P5", f"tinydb {AT_ONCE:,} at once, lost", lost, 0, False, "devices"),
        Figure("P5", f"tinydb {AT_ONCE:,} at once, duplicate credentials", duplicates, 0, False, "devices"),
        Figure("P5", f"tinydb {AT_ONCE:,} at once, time over the floor's", taken.seconds / floor.seconds, 2.0, False),
    ]


def p6(site: Site, count: int, raw: dict[str, Any]) -> list[Figure]:
    """P6: what an idle provisioning connection over TLS costs in memory."""
    with site.product(secure=True, requests=IDLE_CONNECTIONS + WARM_DEVICES) as (server, devices, context):
        assert context is not None
        run(_idle(server, devices[:WARM_DEVICES], context))  # the allocator's first growth is nobody's
        before = server.resident_bytes()
        after = run(_idle(server, devices[WARM_DEVICES:], context))
    each_kb = (after - before) / IDLE_CONNECTIONS / 1000
    raw["idle_tls_kb"] = each_kb
    return [Figure("P6", "tinydb idle TLS connection", each_kb, 30, False, "kB")]


async def _idle(server: Server, devices: list[Device], context: ssl.SSLContext) -> int:
    """Resident bytes of the server while all of them are connected and silent."""
    writers = []
    for device in devices:
        reader, writer = await asyncio.open_connection("localhost", server.port, ssl=context)
        writer.write(encode(Connect(device.client_id, username=device.username, password=device.password), V311))
        assert (await reader.readexactly(4))[3] == 0
        writers.append(writer)
    held = server.resident_bytes()
    for writer in writers:
        writer.transport.abort()
    return held


def p10(site: Site, count: int, raw: dict[str, Any]) -> list[Figure]:
    """P10: how long the command line takes to say what it can."""
    took = []
    for _ in range(7):
        started_s = time.perf_counter()
        subprocess.run([sys.executable, "-m", "provisioner.doors.cli", "--help"], capture_output=True, check=True)
        took.append(time.perf_counter() - started_s)
    raw["help_s"] = took
    return [Figure("P10", "fleetgate --help", statistics.median(took), 0.2, False, "s")]


def _say_rates(name: str, measured: list[tuple[Round, Round]]) -> None:
    for floor, product in measured:
        for side, round_ in (("floor", floor), ("product", product)):
            cpu_ms = 1000 * round_.gate_cpu_s / round_.load.devices
            rate, tail_ms = round_.load.devices_per_s, 1000 * round_.load.p99_s
            print(f"   {name} {side}: {rate:,.0f} devices/s, p99 {tail_ms:.1f} ms, {cpu_ms:.3f} ms CPU a device")


MEASURES: dict[str, Callable[[Site, int, dict[str, Any]], list[Figure]]] = {
    "P1": p1,
    "P2": p2,
    "P4": p1,
    "P5": p5,
    "P6": p6,
    "P10": p10,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(MEASURES), help="ids, separated by commas")
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    wanted = [each.strip().upper() for each in arguments.only.split(",")]
    unknown = [each for each in wanted if each not in MEASURES]
    if unknown:
        parser.error(f"unknown {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    raw: dict[str, Any] = {}
    figures: list[Figure] = []
    with ExitStack() as stack:
        site = Site(Path(stack.enter_context(tempfile.TemporaryDirectory())), stack)
        for measure_ in dict.fromkeys(MEASURES[each] for each in wanted):
            figures += measure_(site, arguments.pairs, raw)
    figures = [each for each in figures if each.id in wanted]
    for figure in figures:
        print(figure)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"figures": [asdict(each) for each in figures], "raw": raw}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
