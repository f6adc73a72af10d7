"""A gate in a thread with an application that writes down what it hears, and blocking peers that talk to it raw."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.access import Admission, Close, Connection, Denial, DenialKind, Incident, Login
from broker.decoding import Decoder
from broker.encoding import encode
from broker.gate import Gate
from broker.limits import GateLimits
from broker.listener import Listener
from broker.loop import new_event_loop
from broker.packets import V5, V311, ConnAck, Connect, Packet, PubAck, Publish, SubAck, Subscribe, Subscription, Version
from broker.tls import TlsFiles
from provisioner.model.topics import TopicRights

T = TypeVar("T")
DEADLINE_S: Final = 8.0
PASSWORD: Final = b"right-password"


def until(condition: Callable[[], bool], what: str) -> None:
    """Poll with a deadline."""
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, f"did not happen in time: {what}"
        time.sleep(0.005)


_dialled: list[socket.socket] = []  # closed with the gate that they were dialled for


def dial(port: int) -> socket.socket:
    """A blocking connection that is closed at the latest when the running gate ends."""
    connection = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    _dialled.append(connection)
    return connection


def request_topic(client_id: str) -> str:
    return f"prov/v1/{client_id}/request"


def response_topic(client_id: str) -> str:
    return f"prov/v1/{client_id}/response"


class Recorder:
    """Admits the right password; the payload of a message says what to do with it.

    ``engage``, ``release``, ``permit``, ``finish``, ``raise``, ``wait`` (until ``go_on`` is set), anything else is
    answered with ``answer:<payload>``, or with ``conflict`` while another connection is engaged. The username is the
    tenant: identity is username/client id. Logins of user ``broken`` raise, those of ``slow`` wait for ``go_on``.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []
        self.incidents: list[Incident] = []
        self.logins: list[Login] = []
        self.open: list[Connection] = []
        self.unsent = 0
        self.under_way = 0
        self.under_way_max = 0
        self.go_on = asyncio.Event()

    def heard(self, kind: str) -> list[tuple[str, str]]:
        return [(client_id, what) for call, client_id, what in self.calls if call == kind]

    def reasons(self, action: str) -> list[str]:
        return [one.reason for one in self.incidents if one.action == action]

    def count(self, action: str) -> int:
        """Incidents of an action, those that were summed up included."""
        return sum(one.count for one in self.incidents if one.action == action)

    async def admit(self, login: Login) -> Admission | Denial:
        self.logins.append(login)
        if login.username == "broken":
            raise RuntimeError(f"leaked {login.password!r}")
        if login.username == "slow":
            await self.go_on.wait()
        if login.password != PASSWORD:
            return Denial(DenialKind.NOT_AUTHORIZED, "password")
        name = login.client_id
        rights = TopicRights(
            publish=frozenset((request_topic(name), f"prov/v1/{name}/ack")),
            subscribe=frozenset((response_topic(name),)),
            below=f"$EDC/provision/{name}/",
            wills=frozenset((f"$EDC/provision/{name}/MQTT/LWT",)),
        )
        return Admission(f"{login.username}/{name}", name, login.username or "", rights)

    def opened(self, connection: Connection) -> None:
        self.open.append(connection)
        self.calls.append(("opened", connection.client_id, connection.id))

    async def received(self, connection: Connection, topic: str, payload: bytes, dup: bool) -> None:
        self.calls.append(("received", connection.client_id, payload.decode()))
        self.under_way += 1
        self.under_way_max = max(self.under_way_max, self.under_way)
        try:
            await self._obey(connection, payload)
        finally:
            self.under_way -= 1

    async def _obey(self, connection: Connection, payload: bytes) -> None:
        match payload:
            case b"engage":
                connection.engage()
            case b"release":
                connection.release()
            case b"permit":
                connection.permit(frozenset(("$EDC/provision/me/CONF-V1/REPLY/1",)))
            case b"finish":
                connection.finish(0.05)
            case b"raise":
                raise RuntimeError("the payload would stand here")
            case b"wait":
                await self.go_on.wait()
        answer = b"conflict" if connection.contended else b"answer:" + payload
        if not connection.send(response_topic(connection.client_id), answer):
            self.unsent += 1

    def acknowledged(self, connection: Connection, topic: str) -> None:
        self.calls.append(("acknowledged", connection.client_id, topic))

    def closed(self, connection: Connection, reason: Close) -> None:
        self.open.remove(connection)
        self.calls.append(("closed", connection.client_id, reason))

    def foresaw(self, incident: Incident) -> bool:
        return False

    def observed(self, incident: Incident) -> None:
        self.incidents.append(incident)


class House:
    """A running gate; ``call`` and ``do`` reach into its event loop from the test."""

    def __init__(self, gate: Gate, application: Recorder, loop: asyncio.AbstractEventLoop) -> None:
        self.gate = gate
        self.application = application
        self.loop = loop

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        async def on_the_loop() -> T:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(on_the_loop(), self.loop).result(DEADLINE_S)

    def drain(self, grace_s: float) -> None:
        asyncio.run_coroutine_threadsafe(self.gate.drain(grace_s), self.loop).result(DEADLINE_S)

    def go_on(self) -> None:
        self.call(self.application.go_on.set)

    def until_closed(self, client_id: str, reason: Close) -> None:
        heard = self.application.heard
        until(lambda: (client_id, reason.value) in heard("closed"), f"{client_id} closed: {reason}, {heard('closed')}")


@contextmanager
def running_gate(
    limits: GateLimits | None = None,
    listeners: Sequence[Listener] = (Listener(name="plain"),),
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop,
) -> Iterator[House]:
    """Start it in a thread and take it down again; an exception that nobody caught in the loop fails the test."""
    loop = loop_factory()
    escaped: list[str] = []
    loop.set_exception_handler(lambda _, context: escaped.append(str(context)))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    application = Recorder()
    gate = Gate(application, listeners, limits)
    house = House(gate, application, loop)
    try:
        asyncio.run_coroutine_threadsafe(gate.start(), loop).result(DEADLINE_S)
        yield house
    finally:
        while _dialled:
            _dialled.pop().close()
        house.go_on()
        house.drain(0.2)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert escaped == []


class Peer:
    """One blocking MQTT connection of a test."""

    def __init__(self, port: int, version: Version = V311, tls: ssl.SSLContext | None = None) -> None:
        self.socket = dial(port)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
            _dialled.append(self.socket)
        self.version: Version = version
        self._decoder = Decoder(version, packet_bytes_max=1_000_000)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *packets: Packet) -> None:
        self.socket.sendall(b"".join(encode(packet, self.version) for packet in packets))

    def next(self) -> Packet | None:
        """The next packet, None when the gate hung up."""
        while (packet := self._decoder.next_packet()) is None:
            try:
                data = self.socket.recv(65_536)
            except ConnectionError:
                return None
            if not data:
                return None
            self._decoder.feed(data)
        return packet

    def next_of(self, kind: type[T]) -> T:
        """The next packet of a type; others before it are dropped."""
        while not isinstance(packet := self.next(), kind):
            assert packet is not None, f"hung up instead of {kind.__name__}"
        return packet

    def until_hung_up(self) -> list[Packet]:
        """Everything that still comes until the gate hangs up."""
        rest: list[Packet] = []
        while (packet := self.next()) is not None:
            rest.append(packet)
        return rest

    def connect(self, client_id: str, username: str = "fleet", password: bytes = PASSWORD, **more: Any) -> int:
        """The code of the CONNACK."""
        self.send(Connect(client_id, username=username, password=password, **more))
        return self.next_of(ConnAck).code

    def ask(self, payload: bytes, client_id: str, packet_id: int = 7) -> bytes:
        """Publish to the request topic, take the answer behind its PUBACK and return it."""
        self.send(Publish(request_topic(client_id), payload, qos=1, packet_id=packet_id))
        assert self.next_of(PubAck).packet_id == packet_id
        answer = self.next_of(Publish)
        assert answer.packet_id is not None
        self.send(PubAck(answer.packet_id))
        return answer.payload


def device(house: House, client_id: str = "gw", username: str = "fleet", version: Version = V311) -> Peer:
    """A connected peer that subscribed to its answers."""
    peer = Peer(house.gate.ports["plain"], version)
    assert peer.connect(client_id, username) == 0
    peer.send(Subscribe(1, (Subscription(response_topic(client_id), 1),)))
    assert peer.next_of(SubAck).codes == (1,)
    return peer


def write_certificate(folder: Path, name: str = "127.0.0.1") -> TlsFiles:
    """A new self-signed P-256 certificate for 127.0.0.1 and localhost, written over the former one."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = TlsFiles(folder / "gate.crt", folder / "gate.key")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.private_key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def trusting(files: TlsFiles) -> ssl.SSLContext:
    """A client context that trusts this certificate and nothing else."""
    return ssl.create_default_context(cafile=str(files.certificate))


BOTH: Final = (V311, V5)
