"""The endpoint itself: what a caller cannot do to it, and who gets as far as a question."""

import http.client
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import pytest

from provisioner.account_brokers.callback_rabbitmq import RabbitMq
from provisioner.account_brokers.callback_values import HttpRequest, HttpResponse
from provisioner.account_brokers.http_callback import HttpCallbackBroker
from provisioner.account_brokers.http_server import Handler, HttpLimits, HttpServer
from provisioner.authority.local_ca import LocalAuthority
from tests.contracts.account_broker_stage import LoopThread, user, verify
from tests.contracts.callback_site import BASIC, LOGIN, SECRET, Site, site
from tests.contracts.mqtt_device import until

TIGHT = HttpLimits(head_bytes_max=2_000, body_bytes_max=2_000, connections_max=3, request_s=0.3, idle_s=0.6)


@pytest.fixture
def rabbit() -> Iterator[Site]:
    with site(RabbitMq()) as made:
        made.loop.run(made.broker.put_user(user(1)))
        yield made


def test_a_connection_serves_many_questions(rabbit: Site) -> None:
    """Brokers keep their connections; what they send ahead is answered in order."""
    connection = http.client.HTTPConnection("127.0.0.1", rabbit.port, timeout=5)
    for password in ("Pass-word-1", "Wrong-word-1", "Pass-word-1"):
        connection.request("POST", "/user?x=1", urlencode(LOGIN | {"password": password}), BASIC)
        assert connection.getresponse().read() == (b"allow" if password == "Pass-word-1" else b"deny")
    connection.close()
    one = urlencode(LOGIN)
    fields = (f"authorization: Bearer {SECRET}", "host: x", f"content-length: {len(one)}")
    head = "\r\n".join(("POST /user HTTP/1.1", *fields, "", one))
    with socket.create_connection(("127.0.0.1", rabbit.port), 5) as raw:
        raw.sendall((head * 3).encode())
        received = b""
        while received.count(b"allow") < 3:
            data = raw.recv(4096)
            assert data
            received += data


HOSTILE = {
    "no http": (b"\x10\x20\x00\x04MQTT\r\n\r\n", b"400"),
    "a long head": (b"POST / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 5_000, b"431"),
    "a long body": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n" + b"z" * 5_000, b"413"),
    "a lying length": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", b"400"),
    "two lengths": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", b"400"),
    "half a head": (b"POST / HT", b""),
    "half a body": (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1", b""),
    "silence": (b"", b""),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_bad_caller_is_dropped_and_the_next_is_served(what: str) -> None:
    """F-14: sizes and times are bounded, whatever a caller does; nobody else notices."""
    sent, status = HOSTILE[what]
    with site(RabbitMq(), TIGHT) as tight:
        tight.loop.run(tight.broker.put_user(user(1)))
        with socket.create_connection(("127.0.0.1", tight.port), 5) as raw:
            raw.sendall(sent)
            started_s, answer = time.monotonic(), b""
            while data := _received(raw):
                answer += data
            assert time.monotonic() - started_s < 2.0
        assert answer[9:12] == status
        assert tight.form("/user", **LOGIN) == b"allow"


def test_no_more_connections_than_allowed() -> None:
    """One too many is closed at once; when others end there is room again."""
    with site(RabbitMq(), replace(TIGHT, idle_s=5.0)) as tight:
        held = [socket.create_connection(("127.0.0.1", tight.port), 5) for _ in range(3)]
        with socket.create_connection(("127.0.0.1", tight.port), 5) as excess:
            assert _received(excess) == b""
        for each in held:
            each.close()
        assert until(lambda: _is_served(tight))


def test_a_handler_that_fails_is_no_yes(caplog: pytest.LogCaptureFixture) -> None:
    """What breaks inside becomes a 500, and the log has no body of the request."""

    async def broken(request: HttpRequest) -> HttpResponse:
        raise ValueError("inside")

    loop = LoopThread()
    server = HttpServer("127.0.0.1", 0, broken)
    try:
        loop.run(server.start())
        with caplog.at_level(logging.DEBUG):
            connection = http.client.HTTPConnection(*server.address, timeout=5)
            connection.request("POST", "/user", b"password=Secret-word-1")
            assert connection.getresponse().status == 500
            connection.close()
        loop.run(server.stop())
    finally:
        loop.close()
    assert "a request failed" in caplog.text
    assert "Secret-word-1" not in caplog.text


def _received(raw: socket.socket) -> bytes:
    try:
        return raw.recv(4096)
    except ConnectionResetError:
        return b""


def _is_served(tight: Site) -> bool:
    try:
        return tight.ask("/user", b"username=x")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_a_certificate_can_stand_for_the_secret(tmp_path: Path) -> None:
    """Mutual TLS: who brings a certificate of the authority is answered, who brings none gets no answer."""
    now = datetime.now(UTC)
    authority = LocalAuthority.create("test", now)
    server_pem, server_key = authority.server(["localhost"], now)
    caller = authority.with_new_key("rabbit", "acme", now)
    assert caller.private_key is not None
    for name, text in (
        ("ca", authority.pem),
        ("server", server_pem + server_key.reveal()),
        ("caller", caller.certificate + caller.private_key.reveal()),
    ):
        (tmp_path / name).write_text(text)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca")
    context.load_cert_chain(tmp_path / "server")
    context.verify_mode = ssl.CERT_REQUIRED
    servers: list[HttpServer] = []

    def serve(handler: Handler) -> HttpServer:
        servers.append(HttpServer("127.0.0.1", 0, handler, tls=context))
        return servers[0]

    broker = HttpCallbackBroker("asked", RabbitMq(), serve, verify, lambda: now, secret=None)
    loop = LoopThread()
    try:
        loop.run(broker.start(lambda sighting: None))
        loop.run(broker.put_user(user(1)))
        known, stranger = (ssl.create_default_context(cafile=tmp_path / "ca") for _ in range(2))
        known.load_cert_chain(tmp_path / "caller")
        assert _asked(servers[0].address[1], known) == b"allow"
        with pytest.raises((ssl.SSLError, OSError)):
            _asked(servers[0].address[1], stranger)
        loop.run(broker.stop())
    finally:
        loop.close()
    assert broker.capabilities().kicks is False


def _asked(port: int, context: ssl.SSLContext) -> bytes:
    connection = http.client.HTTPSConnection("localhost", port, timeout=5, context=context)
    try:
        connection.request("POST", "/user", urlencode(LOGIN))
        return connection.getresponse().read()
    finally:
        connection.close()
