"""P9: how long a mosquitto with many account users stands still when it is told of more.

``python -m tests.bench.mosquitto_users USERS CONNECTED [--kind mosquitto-files|mosquitto-dynsec] [--second-names]``
prints the figures as JSON. The server is the real one, configured and told as in operation; a client of a process of
its own asks it without a pause (PINGREQ, then a PUBLISH with QoS 1), and the longest answer while it is told is the
stall.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from broker.encoding import encode
from broker.packets import V311, Connect, PingReq, Publish
from provisioner.account_brokers import mosquitto_files
from provisioner.account_brokers.mosquitto_passwords import password_digest
from provisioner.account_brokers.mosquitto_user_files import KnownUser, UserFiles
from provisioner.model.ports import AccountBroker, BrokerUser
from provisioner.model.secret import Secret
from tests.support.mosquitto import MosquittoServer, mosquitto_settings

WORD = "Pass-word-of-all-1"
ACCOUNT = "plant"
TOLD = 5
BATCH = 50
QUIET_S = 0.3
UP_S_MAX = 60.0
_CONNACK, _PINGRESP, _PUBACK = 4, 2, 4  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """stall_ms: the median over the times that it was told, of the longest answer each time; all of these are in
    stalls_ms. idle_ms: the longest answer while nothing is told. told_ms: until the users could connect, in the median.
    readings: how often mosquitto was told, for ``batches`` of ``BATCH`` users who come together; one each for dynsec
    would be BATCH."""

    kind: str
    users: int
    connected: int
    stall_ms: float
    stalls_ms: list[float]
    idle_ms: float
    told_ms: float
    batches: int
    readings: int


def stall_ms(users: int, connected: int, kind: str = "mosquitto-files", *, second_names: bool = False) -> Stall:
    """second_names: users are not named by their home, so that each has a section of its own in the access list."""
    allow_connections(connected)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        base = Path(folder)
        server = MosquittoServer(_settings(kind, base, users), base)
        _known_before(server, kind, users, second_names)
        stack.enter_context(server)
        names = [_name(number, second_names or kind != "mosquitto-files") for number in range(users)]
        for number in range(0, users, max(1, users // connected))[:connected]:
            stack.enter_context(connection(server.address, names[number], f"gw{number}"))
        probe = stack.enter_context(Probe.running(server.address, names[-1], f"gw{users - 1}"))
        return asyncio.run(_told(server, kind, users, connected, probe, second_names))


async def _told(
    server: MosquittoServer, kind: str, users: int, connected: int, probe: "Probe", second_names: bool
) -> Stall:
    broker = server.adapter()
    await broker.start(lambda _: None)
    try:
        await _until_known(broker, users)
        await asyncio.sleep(QUIET_S)
        probe.longest_ms()
        await asyncio.sleep(2 * QUIET_S)
        idle = probe.longest_ms()
        before, stalls, told = _readings(server), list[float](), list[float]()
        for turn in range(TOLD):
            began_s = time.monotonic()
            count = BATCH if kind == "mosquitto-files" else 1
            fresh = [_user(users + turn * BATCH + n, second_names or kind != "mosquitto-files") for n in range(count)]
            await asyncio.gather(*map(broker.put_user, fresh))
            told.append((time.monotonic() - began_s) * 1000)
            await asyncio.sleep(QUIET_S)
            stalls.append(round(probe.longest_ms(), 1))
        return Stall(
            kind=kind,
            users=users,
            connected=connected,
            stall_ms=statistics.median(stalls),
            stalls_ms=stalls,
            idle_ms=round(idle, 1),
            told_ms=round(statistics.median(told), 1),
            batches=TOLD,
            readings=_readings(server) - before,
        )
    finally:
        await broker.stop()


def _settings(kind: str, base: Path, users: int) -> dict[str, Any]:
    settings = mosquitto_settings(kind, users_max=users + TOLD * BATCH)
    if kind != "mosquitto-files":
        return settings
    sign = f"echo sign >> {base}/signs; kill -HUP $(cat {base / settings['pid_file']})"
    return settings | {"reload_command": ["sh", "-c", sign], "pid_file": settings["pid_file"]}


def _readings(server: MosquittoServer) -> int:
    with contextlib.suppress(FileNotFoundError):
        return (server.base / "signs").read_text().count("sign")
    return 0


def _name(number: int, second: bool) -> str:
    return f"dev-{number}" if second else f"{ACCOUNT}/gw{number}"


def _user(number: int, second: bool) -> BrokerUser:
    return BrokerUser(
        account=ACCOUNT, username=_name(number, second), client_id=f"gw{number}", verifier="", password=Secret(WORD)
    )


def _known_before(server: MosquittoServer, kind: str, users: int, second_names: bool) -> None:
    """What the adapter finds at its start, as if it had been told of them one after another."""
    server.folder.mkdir(parents=True)
    if kind == "mosquitto-files":
        digest = password_digest(Secret(WORD), iterations=mosquitto_files.ITERATIONS)
        files = UserFiles(server.folder)
        for number in range(users):
            files.put(KnownUser(ACCOUNT, _name(number, second_names), f"gw{number}", digest))
        files.write(files.lines(), frozenset(), "fleetgate", "none")
        return
    server.prepare()
    state = server.folder / "dynamic-security.json"
    known = json.loads(state.read_text())
    _, _, iterations, salt, derived = password_digest(Secret(WORD)).split("$")
    assert base64.b64decode(salt)
    for number in range(users):
        role, home = f"fleetgate/{ACCOUNT}/dev-{number}", f"{ACCOUNT}/gw{number}"
        rights = ("publishClientSend", "publishClientReceive", "subscribePattern")
        acls = [
            {"acltype": right, "topic": topic, "allow": True}
            for right in rights
            for topic in (f"{home}/#", f"$EDC/{home}/#")
        ]
        known["roles"].append({"rolename": role, "acls": acls})
        client = {"username": f"dev-{number}", "clientid": f"gw{number}", "roles": [{"rolename": role}]}
        client["textdescription"] = json.dumps({"account": ACCOUNT, "mark": "0"})
        known["clients"].append({**client, "password": derived, "salt": salt, "iterations": int(iterations)})
    state.write_text(json.dumps(known))


async def _until_known(broker: AccountBroker, users: int) -> None:
    deadline_s = time.monotonic() + UP_S_MAX
    while time.monotonic() < deadline_s:
        with contextlib.suppress(Exception):
            if len(await broker.users()) == users:
                return
        await asyncio.sleep(0.05)
    raise TimeoutError("the adapter does not know its users")


def allow_connections(connected: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, connected + 1_000), hard))


@contextmanager
def connection(
    address: tuple[str, int], username: str, client_id: str, tls: ssl.SSLContext | None = None
) -> Iterator[socket.socket]:
    """tls: where a certificate in it is the login."""
    with ExitStack() as stack:
        line = stack.enter_context(socket.create_connection(address))
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        login: dict[str, Any] = {"username": username, "password": WORD.encode()}
        if tls is not None:
            line, login = stack.enter_context(tls.wrap_socket(line, server_hostname="localhost")), {}
        hello = Connect(client_id, keep_alive_s=0, **login)
        line.sendall(encode(hello, V311))
        answer = _read(line, _CONNACK)
        if answer[3] != 0:
            raise ConnectionRefusedError(f"CONNACK {answer[3]}")
        yield line


def _read(line: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := line.recv(count - len(data))):
            raise ConnectionResetError("mosquitto closed the connection")
        data += more
    return data


def shown(authority: str | Path, paper: str | Path) -> ssl.SSLContext:
    """Trusts the authority alone, and shows the certificate of that file, which has its key, too."""
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(paper)
    return context


@dataclass(slots=True)
class Probe:
    """The asking client: a process of its own, so that it does not wait for this one."""

    process: subprocess.Popen[bytes]

    @classmethod
    @contextmanager
    def running(
        cls, address: tuple[str, int], username: str, client_id: str, papers: tuple[Path, Path] | None = None
    ) -> Iterator["Probe"]:
        """papers: of the authority, and of the device with its key, where they are the login."""
        command = [sys.executable, "-m", "tests.bench.mosquitto_users", "--probe", str(address[1]), username, client_id]
        command += map(str, papers or ())
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            yield cls(process)
        finally:
            process.kill()
            process.communicate()

    def longest_ms(self) -> float:
        """Since the last time that this was asked."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def _probe(port: int, username: str, client_id: str, *papers: str) -> None:
    """Ask until the standard input ends; for each line of it tell the longest answer since the last line, in ms."""
    import threading

    longest = [0.0]

    def tell() -> None:
        for _ in sys.stdin:
            print(longest[0] * 1000, flush=True)
            longest[0] = 0.0

    threading.Thread(target=tell, daemon=True).start()
    ping = encode(PingReq(), V311)
    message = encode(Publish(f"{ACCOUNT}/{client_id}/probe", b"x", qos=1, packet_id=1), V311)
    with connection(("127.0.0.1", port), username, client_id, shown(*papers) if papers else None) as line:
        while True:
            for packet, answer in ((ping, _PINGRESP), (message, _PUBACK)):
                began_s = time.perf_counter()
                line.sendall(packet)
                _read(line, answer)
                longest[0] = max(longest[0], time.perf_counter() - began_s)
                time.sleep(0.0005)


def main() -> None:
    if sys.argv[1:2] == ["--probe"]:
        _probe(int(sys.argv[2]), *sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("users", type=int)
    parser.add_argument("connected", type=int)
    parser.add_argument("--kind", choices=("mosquitto-files", "mosquitto-dynsec"), default="mosquitto-files")
    parser.add_argument("--second-names", action="store_true")
    given = parser.parse_args()
    print(json.dumps(asdict(stall_ms(given.users, given.connected, given.kind, second_names=given.second_names))))


if __name__ == "__main__":
    main()
