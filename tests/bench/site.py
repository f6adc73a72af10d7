"""Where the figures are measured: certificates, the processes of every side, and the endpoint of the second hop."""

import json
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from broker.loop import run
from provisioner.app import utc_now
from provisioner.authority.local_ca import LocalAuthority
from tests.bench.figure import Round
from tests.bench.load import Device, LoadPlan, constant_devices, load
from tests.support.postgres import PostgresServer, running_postgres

DEVICES = 3_000  # a round: with fewer the burst of the beginning would be the tail
WARM_DEVICES = 200
IN_FLIGHT = 50
SECOND_TOPIC = "bench/{client_id}"
STORES = ("tinydb", "sqlite", "postgresql")

Side = tuple["Server", list[Device], ssl.SSLContext | None]


@dataclass(frozen=True, slots=True)
class Server:
    """A process that listens, ready."""

    pid: int
    ports: Mapping[str, int]
    port: int

    def cpu_s(self) -> float:
        """Of the process and of those that it started."""
        own = psutil.Process(self.pid)
        times = [each.cpu_times() for each in (own, *own.children(recursive=True))]
        return float(sum(each.user + each.system for each in times))

    def resident_bytes(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)

    def peak_bytes(self) -> int:
        """The most that it ever had resident."""
        (line,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.M)
        return int(line) * 1024


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
            child.communicate(timeout=60)


def endpoint(*arguments: str) -> AbstractContextManager[Server]:
    """The floor's process; it answers a constant."""
    return process("tests.bench.floor", "0", *arguments)


class Site:
    """Certificates, and the bare endpoint that plays the account broker for every side."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        authority = LocalAuthority.create("bench", utc_now())
        certificate, key = authority.server(["localhost", "127.0.0.1"], utc_now())
        (folder / "server.pem").write_text(certificate)
        (folder / "server.key").write_text(key.reveal())
        (folder / "ca.pem").write_text(authority.pem)
        self.broker_url = f"mqtt://127.0.0.1:{stack.enter_context(endpoint()).port}"
        self._products = 0
        self._postgres: PostgresServer | None = None

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.folder / "ca.pem")

    @contextmanager
    def floor(self, *, secure: bool, devices: int = DEVICES) -> Iterator[Side]:
        tls = ("--tls", str(self.folder / "server.pem"), str(self.folder / "server.key")) if secure else ()
        with endpoint(*tls, "--broker-url", self.broker_url) as server:
            yield server, list(constant_devices(devices + WARM_DEVICES)), self.context() if secure else None

    @contextmanager
    def mosquitto(self, *, secure: bool, devices: int = DEVICES) -> Iterator[Side]:
        """P3: mosquitto and a paho responder that answers a constant."""
        tls = ("--tls", str(self.folder)) if secure else ()
        with process("tests.bench.responder", str(self.new_folder()), "--broker-url", self.broker_url, *tls) as server:
            yield server, list(constant_devices(devices + WARM_DEVICES)), self.context() if secure else None

    @contextmanager
    def product(
        self,
        store: str = "tinydb",
        *,
        secure: bool,
        devices: int = DEVICES,
        stored: int = 0,
        place: "Place | None" = None,
    ) -> Iterator[Side]:
        """stored: requests that are there beside those of the devices. place: where a former product ran."""
        where = place or self.place(store)
        arguments = [str(where.folder), "--store", json.dumps(where.store), "--requests", str(devices + WARM_DEVICES)]
        arguments += ["--stored", str(stored), "--broker-url", self.broker_url]
        with process("tests.bench.product", *arguments) as server:
            context = ssl.create_default_context(cafile=where.folder / "ca/ca.pem") if secure else None
            yield (
                Server(server.pid, server.ports, server.ports["secure" if secure else "plain"]),
                devices_of(where.folder),
                context,
            )

    def place(self, store: str) -> "Place":
        """A folder for a new installation, and the settings of a store that is empty."""
        folder = self.new_folder()
        if store == "postgresql":
            return Place(folder, self.postgres(folder))
        path = {"tinydb": "data", "sqlite": "data/fleetgate.db"}[store]
        return Place(folder, {"kind": store, "path": path})

    def new_folder(self) -> Path:
        self._products += 1
        folder = self.folder / f"side-{self._products}"
        folder.mkdir()
        return folder

    def postgres(self, folder: Path) -> dict[str, Any]:
        """Settings of an empty database in a server of ours, which flushes as in production and is started once."""
        if self._postgres is None:
            self._postgres = self._stack.enter_context(running_postgres(durable=True))
        options = self._postgres.options(self._postgres.empty_database())
        assert options.password is not None
        password_file = folder.with_suffix(".password")
        password_file.touch(0o600)
        password_file.write_text(options.password.reveal())
        named = {"host": options.host, "port": options.port, "database": options.database, "user": options.user}
        return {"kind": "postgresql", **named, "password_file": str(password_file), "sslmode": "disable"}


@dataclass(frozen=True, slots=True)
class Place:
    """store: that part of the settings."""

    folder: Path
    store: Mapping[str, Any]


@dataclass(slots=True)
class Bench:
    """What every measurement is given. raw: numbers for the file, by name."""

    site: Site
    pairs: int
    stores: Sequence[str]
    raw: dict[str, Any] = field(default_factory=dict)


def devices_of(folder: Path) -> list[Device]:
    """Those that the product in this folder made requests for."""
    return [
        Device(each["client_id"], each["username"], each["password"].encode(), provision_message(number))
        for number, each in enumerate(json.loads((folder / "devices.json").read_text()))
    ]


def provision_message(number: int) -> bytes:
    """What a device asks."""
    return json.dumps({"request_id": f"r{number}", "device": {"model_id": "bench"}}).encode()


def measure(side: Side, *, in_flight: int = IN_FLIGHT, arrival_s: float | None = None) -> Round:
    """Warm with the first devices, then walk the rest; all of them must be provisioned."""
    server, devices, context = side
    host = "localhost" if context else "127.0.0.1"
    plan = LoadPlan(host=host, port=server.port, in_flight=IN_FLIGHT, tls=context, second_topic=SECOND_TOPIC)
    run(load(devices[:WARM_DEVICES], plan))
    before_s = server.cpu_s()
    crowd = LoadPlan(
        host=host,
        port=server.port,
        in_flight=in_flight,
        arrival_s=arrival_s,
        tls=context,
        second_topic=SECOND_TOPIC,
        walk_s_max=30.0 if arrival_s is None else 240.0,
    )
    result = run(load(devices[WARM_DEVICES:], crowd))
    return Round(result, server.cpu_s() - before_s)
