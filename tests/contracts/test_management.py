"""Cutting connections through EMQX's REST interface, as it is documented; RabbitMQ's is in test_rabbitmq."""

import asyncio
import base64
import json
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from provisioner.account_brokers.callback_values import HttpRequest, HttpResponse
from provisioner.account_brokers.http_client import REQUEST_S, ManagementClient
from provisioner.account_brokers.http_server import HttpServer
from provisioner.account_brokers.management import EmqxManagement, RabbitManagement
from provisioner.model.errors import Unavailable
from provisioner.model.secret import Secret
from tests.contracts.account_broker_stage import LoopThread
from tests.support.papers import Paper


@pytest.mark.parametrize("kind", [EmqxManagement, RabbitManagement])
@pytest.mark.parametrize(("status", "fits"), [(200, True), (401, False), (503, False)])
def test_management_is_looked_at(kind: type[EmqxManagement] | type[RabbitManagement], status: int, fits: bool) -> None:
    """A key that is refused, or an interface that is not there, is told before anybody has to be cut."""

    async def rest(request: HttpRequest) -> HttpResponse:
        assert request.method == "GET"
        return HttpResponse(status, b"[]")

    loop = LoopThread()
    server = HttpServer("127.0.0.1", 0, rest)
    try:
        loop.run(server.start())
        client = ManagementClient((f"http://127.0.0.1:{server.address[1]}",), "key", Secret("secret-word"))
        if fits:
            loop.run(kind(client).reach())
        else:
            with pytest.raises(Unavailable):
                loop.run(kind(client).reach())
        loop.run(server.stop())
    finally:
        loop.close()


def test_a_node_that_hangs_costs_its_time_and_no_more(tmp_path: Path) -> None:
    """F-08: a node that is stopped after the handshake of TLS says no farewell; the next node is asked all the same."""
    authority = Paper.authority("Authority")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(authority.issue("localhost", hosts=("localhost",)).write(tmp_path / "server.pem"))
    over = threading.Event()

    def hang(listener: socket.socket) -> None:
        with listener.accept()[0] as line, serving.wrap_socket(line, server_side=True):
            over.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(4 * REQUEST_S)  # it may be that nobody comes
        hanging = pool.submit(hang, listener)
        url = f"https://localhost:{listener.getsockname()[1]}"
        trusting = ssl.create_default_context(cadata=authority.pem)
        began_s = time.monotonic()
        try:
            with pytest.raises(Unavailable, match="does not answer"):
                asyncio.run(ManagementClient((url,), "key", Secret("secret-word"), trusting).ask("GET", "/"))
            assert time.monotonic() - began_s < 4 * REQUEST_S
        finally:
            over.set()
        hanging.result()


@pytest.mark.parametrize("kind", [EmqxManagement, RabbitManagement])
@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"data":{}}', b"[1]", b'{"data":["gw1"]}', b"\xff"])
def test_what_is_no_management_interface_is_told(
    kind: type[EmqxManagement] | type[RabbitManagement], body: bytes
) -> None:
    """A page of a proxy in between, say, is Unavailable like an interface that is away: the cut is tried again."""

    async def page(request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, body)

    loop = LoopThread()
    server = HttpServer("127.0.0.1", 0, page)
    try:
        loop.run(server.start())
        client = ManagementClient((f"http://127.0.0.1:{server.address[1]}",), "key", Secret("secret-word"))
        with pytest.raises(Unavailable, match="no management interface"):
            loop.run(kind(client).cut("user-1", None))
        loop.run(server.stop())
    finally:
        loop.close()


@pytest.mark.parametrize(("status", "cut"), [(204, True), (404, False)])
def test_emqx_is_asked_to_kick(status: int, cut: bool) -> None:
    """EMQX's REST interface: DELETE of the client; the key goes along; a node that is down is passed over."""
    asked: list[tuple[str, str, str]] = []

    async def rest(request: HttpRequest) -> HttpResponse:
        asked.append((request.method, request.path, request.headers["authorization"]))
        return HttpResponse(status)

    loop = LoopThread()
    server = HttpServer("127.0.0.1", 0, rest)
    try:
        loop.run(server.start())
        urls = ("http://127.0.0.1:1", f"http://127.0.0.1:{server.address[1]}")
        management = EmqxManagement(ManagementClient(urls, "key", Secret("secret-word")))
        assert loop.run(management.cut("user-1", "gw 1")) is cut
        loop.run(server.stop())
        with pytest.raises(Unavailable):
            loop.run(management.cut("user-1", "gw1"))
    finally:
        loop.close()
    key = base64.b64encode(b"key:secret-word").decode()
    assert asked == [("DELETE", "/api/v5/clients/gw%201", f"Basic {key}")]


def test_emqx_cuts_every_client_of_a_user() -> None:
    """Removing a user asks EMQX for its clients first."""
    asked: list[tuple[str, str]] = []

    async def rest(request: HttpRequest) -> HttpResponse:
        asked.append((request.method, request.path))
        found = json.dumps({"data": [{"clientid": "gw1"}, {"clientid": "gw2"}], "meta": {}}).encode()
        return HttpResponse(200, found) if request.method == "GET" else HttpResponse(204)

    loop = LoopThread()
    server = HttpServer("127.0.0.1", 0, rest)
    try:
        loop.run(server.start())
        client = ManagementClient((f"http://127.0.0.1:{server.address[1]}",), "key", Secret("secret-word"))
        assert loop.run(EmqxManagement(client).cut("user-1", None))
        loop.run(server.stop())
    finally:
        loop.close()
    assert asked == [("GET", "/api/v5/clients"), ("DELETE", "/api/v5/clients/gw1"), ("DELETE", "/api/v5/clients/gw2")]
