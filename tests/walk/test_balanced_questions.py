"""What account brokers ask goes through HAProxy to whichever gate can answer, by TLS on both sides (D12)."""

import http.client
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from broker.tls import TlsFiles, server_context
from provisioner.account_brokers.callback_values import HttpRequest, HttpResponse
from provisioner.account_brokers.http_server import HttpServer
from tests.contracts.account_broker_stage import LoopThread
from tests.support.haproxy import Haproxy
from tests.support.many_gates import haproxy_example
from tests.support.ports import free_ports
from tests.walk.gate_house import trusting, write_certificate

QUESTIONS = 30


class Endpoint:
    """A gate's, that answers with its number, or cannot know."""

    def __init__(self, loop: LoopThread, files: TlsFiles, number: int) -> None:
        self._loop, self._number = loop, number
        self.knows = True
        self.asked = 0
        self.server = HttpServer("127.0.0.1", 0, self._answer, server_context(files))
        loop.run(self.server.start())
        self.port = self.server.address[1]

    def stop(self) -> None:
        self._loop.run(self.server.stop())

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        self.asked += 1
        return HttpResponse(200, str(self._number).encode()) if self.knows else HttpResponse(503)


@contextmanager
def balanced(folder: Path, files: TlsFiles, endpoints: list[Endpoint]) -> Iterator[http.client.HTTPSConnection]:
    """A connection to HAProxy as the page sets it up, in front of these; the gates themselves are not there."""
    questions, devices, nobody = free_ports(3)
    both = folder / "questions.pem"
    both.write_bytes(files.certificate.read_bytes() + files.private_key.read_bytes())
    text = haproxy_example().replace("maxconn 50000", "maxconn 2000")
    text = text.replace("/etc/haproxy/questions.pem", str(both)).replace("/etc/haproxy/ca.pem", str(files.certificate))
    text = text.replace("10.0.0.10:8886", f"127.0.0.1:{questions}").replace("10.0.0.10:8883", f"127.0.0.1:{devices}")
    for number, endpoint in enumerate(endpoints, 1):
        text = text.replace(f"10.0.0.1{number}:8886", f"127.0.0.1:{endpoint.port}")
        text = text.replace(f"10.0.0.1{number}:8883", f"127.0.0.1:{nobody}")
    with Haproxy(folder, text, [questions]):
        connection = http.client.HTTPSConnection("127.0.0.1", questions, timeout=10, context=trusting(files))
        try:
            yield connection
        finally:
            connection.close()


@pytest.fixture
def endpoints(tmp_path: Path) -> Iterator[tuple[TlsFiles, list[Endpoint]]]:
    files, loop = write_certificate(tmp_path), LoopThread()
    with ExitStack() as stack:
        stack.callback(loop.close)
        made = [Endpoint(loop, files, number) for number in range(1, 4)]
        for each in made:
            stack.callback(each.stop)
        yield files, made


def ask(connection: http.client.HTTPSConnection, username: str) -> tuple[int, bytes]:
    form = {"content-type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/user", f"username={username}&password=x", form)
    response = connection.getresponse()
    return response.status, response.read()


def test_d12_questions_are_spread(endpoints: tuple[TlsFiles, list[Endpoint]], tmp_path: Path) -> None:
    """All gates have their part, and the brokers' form reaches them whole."""
    files, gates = endpoints
    with balanced(tmp_path, files, gates) as connection:
        answers = [ask(connection, f"user-{number}") for number in range(QUESTIONS)]
    assert set(answers) == {(200, b"1"), (200, b"2"), (200, b"3")}
    assert sum(gate.asked for gate in gates) == QUESTIONS


def test_f_24_a_gate_that_dies_or_cannot_know_is_not_the_last_word(
    endpoints: tuple[TlsFiles, list[Endpoint]], tmp_path: Path
) -> None:
    """One gate says 503 and another one is gone: every question is answered by the third."""
    files, gates = endpoints
    with balanced(tmp_path, files, gates) as connection:
        gates[0].knows = False
        gates[1].stop()
        assert {ask(connection, f"user-{number}") for number in range(QUESTIONS)} == {(200, b"3")}
    assert gates[0].asked > 0
