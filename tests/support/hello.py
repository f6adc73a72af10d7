"""The first message of a TLS client, byte by byte: offers what no library of today still knows [RFC 5246 7.4.1.2]."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.device import Address

TLS_1_0, TLS_1_1, TLS_1_2 = (3, 1), (3, 2), (3, 3)
GOOD_SUITE = 0xC02B  # ECDHE-ECDSA with AES-128-GCM
_ALERT, _HANDSHAKE, _SERVER_HELLO = 21, 22, 2
_DEADLINE_S = 5.0


@dataclass(frozen=True, slots=True)
class Agreed:
    """What the server would go on with."""

    version: tuple[int, int]
    suite: int


def offer(address: Address, version: tuple[int, int], suites: Sequence[int]) -> Agreed | None:
    """What the server answers to a client that knows this version and these suites; None when it refuses."""
    with socket.create_connection((address.host, address.port), _DEADLINE_S) as line:
        line.sendall(_record(_client_hello(version, suites)))
        head = _read(line, 5)
        if head is None or head[0] == _ALERT:
            return None
        assert head[0] == _HANDSHAKE, head
        body = _read(line, int.from_bytes(head[3:5]))
        assert body is not None and body[0] == _SERVER_HELLO
        after_session = 39 + body[38]
        return Agreed((body[4], body[5]), int.from_bytes(body[after_session : after_session + 2]))


def _client_hello(version: tuple[int, int], suites: Sequence[int]) -> bytes:
    body = bytes(version) + os.urandom(32) + b"\x00"
    body += _vector(b"".join(suite.to_bytes(2) for suite in suites)) + b"\x01\x00"
    host = b"localhost"
    extensions = _extension(0, _vector(b"\x00" + _vector(host)))
    extensions += _extension(10, _vector(bytes.fromhex("001d00170018")))  # x25519, P-256, P-384
    extensions += _extension(11, b"\x01\x00")
    if version == TLS_1_2:  # ECDSA and RSA with SHA-256 and with SHA-1
        extensions += _extension(13, _vector(bytes.fromhex("0403040102030201")))
    body += _vector(extensions)
    return b"\x01" + len(body).to_bytes(3) + body


def _extension(number: int, body: bytes) -> bytes:
    return number.to_bytes(2) + _vector(body)


def _vector(body: bytes) -> bytes:
    return len(body).to_bytes(2) + body


def _record(message: bytes) -> bytes:
    return bytes((_HANDSHAKE, *TLS_1_0)) + _vector(message)


def _read(line: socket.socket, count: int) -> bytes | None:
    """None when the server closes first."""
    data = b""
    while len(data) < count:
        try:
            part = line.recv(count - len(data))
        except ConnectionResetError:
            return None
        if not part:
            return None
        data += part
    return data
