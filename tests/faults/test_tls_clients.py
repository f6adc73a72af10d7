"""F-45 from the other end: what a device, and the service itself, believe of a server. None of them says a word, its
login least of all, to one that is not who it should be."""

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from device_sim.actions import Connected, ConnectRefused, Disconnected, Event, Leg, Target
from device_sim.faults import Faults, FaultSettings
from device_sim.link import Link
from device_sim.link import LinkOptions as DeviceLinkOptions
from device_sim.timing import Timeouts
from device_sim.trust import Trust
from provisioner.account_brokers.http_client import ManagementClient
from provisioner.account_brokers.mosquitto_link import ControlAddress
from provisioner.account_brokers.mosquitto_link import MosquittoLink as AccountLink
from provisioner.doors.control_client import ControlClient, Unreachable
from provisioner.link.mosquitto import LinkOptions, MosquittoLink
from provisioner.model.errors import Unavailable
from provisioner.model.secret import Secret
from tests.support.papers import CLIENT, DAY, Paper

WITHIN_S = 10.0
SECRET = Secret("Never-to-be-told-1")
HERE = ("localhost", "127.0.0.1")
FAULTS: dict[str, Callable[[Paper], Paper]] = {
    "wrong name": lambda authority: authority.issue("localhost", hosts=("gate.example.org",)),
    "wrong common name": lambda authority: authority.issue("gate.example.org"),
    "expired": lambda authority: authority.issue("gate", hosts=HERE, life=(-2 * DAY, -timedelta(minutes=1))),
    "not yet valid": lambda authority: authority.issue("gate", hosts=HERE, life=(timedelta(hours=1), DAY)),
    "self-signed": lambda authority: authority.issue("localhost", hosts=HERE).self_signed(),
    "another CA": lambda authority: Paper.authority("Somebody").issue("gate", hosts=HERE),
    "our CA's name": lambda authority: Paper.authority("Authority").issue("gate", hosts=HERE),
    "for clients": lambda authority: authority.issue("gate", hosts=HERE, usage=CLIENT),
    "by a device": lambda authority: authority.issue("acme/gw1", usage=CLIENT).issue("gate", hosts=HERE),
}
BROKEN = ssl.SSLError, ConnectionError, TimeoutError


class Impostor:
    """Takes one connection after the other. handshakes: how many were tried; heard: what was said to it behind one."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.handshakes = 0
        self.heard = b""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            line.settimeout(WITHIN_S)
            with contextlib.suppress(*BROKEN), self._secured(line) as secured:
                self.heard += secured.recv(4_096)
            self.handshakes += 1

    def _secured(self, line: socket.socket) -> ssl.SSLSocket:
        with line:  # of no use any more, in either case
            return self._context.wrap_socket(line, server_side=True)


@contextmanager
def impostor(paper: Paper, folder: Path, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Iterator[Impostor]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = min(version, ssl.TLSVersion.TLSv1_2)
    context.maximum_version = version
    context.load_cert_chain(paper.write(folder / "impostor.pem"))
    server = Impostor(context)
    try:
        yield server
    finally:
        server.close()


async def device(server: Impostor, ca: Path) -> None:
    """Of the simulator; its link ends once it was refused."""
    over = asyncio.Event()
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        if isinstance(event, ConnectRefused | Disconnected):
            over.set()

    with ThreadPoolExecutor(1) as pool:
        options = DeviceLinkOptions(pool=pool, trust=Trust(ca), timeouts=Timeouts(connack_s=0.5))
        link = Link(options, Faults(FaultSettings(), Random(1)), emit)
        url = f"mqtts://localhost:{server.port}"
        link.connect(Target(leg=Leg.GATE, url=url, client_id="gw1", username="meters", password=SECRET))
        await over.wait()
        await link.wait_closed()
    assert Connected() not in events


async def provision_link(server: Impostor, ca: Path) -> None:
    """To a broker in the place of the gate; it tries again and again."""
    context = ssl.create_default_context(cafile=ca)
    options = LinkOptions(
        host="localhost",
        port=server.port,
        tls=context,
        client_id="fleetgate",
        username="fleetgate",
        password=SECRET,
        filters=("x",),
    )

    async def never(topic: str, payload: bytes, retain: bool) -> None:
        raise AssertionError(topic)

    link = MosquittoLink(options, never)
    await link.start()
    await until(lambda: server.handshakes > 0)
    assert not link.is_up
    await link.stop(0.1)


async def account_link(server: Impostor, ca: Path) -> None:
    """To a mosquitto on another host."""
    address = ControlAddress(
        host="localhost", port=server.port, username="fleetgate", password=SECRET, client_id="fleetgate", ca=ca
    )
    link = AccountLink(address, ("x",))
    await link.start(lambda kept: None, lambda topic, payload: None)
    await until(lambda: server.handshakes > 0)
    assert not link.is_up
    await link.stop()


async def management(server: Impostor, ca: Path) -> None:
    """To the management interface of a broker that asks us."""
    urls = (f"https://localhost:{server.port}",)
    client = ManagementClient(urls, "operator", SECRET, ssl.create_default_context(cafile=ca))
    with pytest.raises(Unavailable):
        await client.ask("GET", "/api")


async def administrator(server: Impostor, ca: Path) -> None:
    """Of the command line."""

    def ask() -> None:
        with pytest.raises(Unreachable), ControlClient("localhost", server.port, "ada", SECRET, ca=ca) as client:
            client.ask("status")

    await asyncio.to_thread(ask)


CLIENTS: dict[str, Callable[[Impostor, Path], Awaitable[None]]] = {
    "device": device,
    "provision link": provision_link,
    "account link": account_link,
    "management": management,
    "administrator": administrator,
}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in another thread
            await asyncio.sleep(0.01)


async def meets(client: Callable[[Impostor, Path], Awaitable[None]], server: Impostor, ca: Path) -> None:
    async with asyncio.timeout(2 * WITHIN_S):
        await client(server, ca)


def authority_file(authority: Paper, folder: Path) -> Path:
    path = folder / "ca.pem"
    path.write_text(authority.pem)
    return path


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_f_45_nothing_is_said_to_a_server_with_a_wrong_certificate(tmp_path: Path, client: str, fault: str) -> None:
    """F-45: wrong name, out of date, vouched for by nobody, by somebody else or by a device, or no server's: it ends
    within the handshake."""
    authority = Paper.authority()
    with impostor(FAULTS[fault](authority), tmp_path) as server:
        asyncio.run(meets(CLIENTS[client], server, authority_file(authority, tmp_path)))
    assert server.handshakes > 0
    assert server.heard == b""


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_f_45_nothing_is_said_in_an_old_version(tmp_path: Path, client: str, version: ssl.TLSVersion) -> None:
    """F-45: a server with the right certificate that speaks nothing newer than TLS 1.0 or 1.1 hears nothing."""
    authority = Paper.authority()
    with impostor(authority.issue("gate", hosts=HERE), tmp_path, version) as server:
        asyncio.run(meets(CLIENTS[client], server, authority_file(authority, tmp_path)))
    assert server.heard == b""


@pytest.mark.parametrize("client", ["device", "provision link", "account link", "management"])
def test_f_45_a_right_certificate_is_believed(tmp_path: Path, client: str) -> None:
    """The measure of the tests above: the same server with a good certificate is told the login."""
    authority = Paper.authority()
    with impostor(authority.issue("gate", hosts=HERE), tmp_path) as server, contextlib.suppress(AssertionError):
        asyncio.run(meets(CLIENTS[client], server, authority_file(authority, tmp_path)))
        until_s = time.monotonic() + WITHIN_S
        while not server.heard and time.monotonic() < until_s:
            time.sleep(0.01)
    assert server.heard != b""
