"""The server side of TLS as a layer. The half-open connections are ours to count and to time, and an idle one holds
no buffers of its own, whichever event loop carries it."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from broker.layers import LayerBroken

# Of TLS 1.2; forward secrecy and authenticated encryption alone. Those of 1.3 have both.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_READ_BYTES = 16_384  # one TLS record [RFC 8446 5.1]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the certificate with its chain, and its private key without a pass phrase."""

    certificate: Path
    private_key: Path


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 or newer, no renegotiation. Raises ssl.SSLError or OSError when the files are not a pair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.num_tickets = 0  # a device comes once; a ticket costs more than it can bring back
    context.load_cert_chain(files.certificate, files.private_key)
    return context


def reload_context(context: ssl.SSLContext, files: TlsFiles) -> None:
    """New handshakes use what the files hold now. When they are not a pair, it raises and changes nothing."""
    server_context(files)
    context.load_cert_chain(files.certificate, files.private_key)


class TlsLayer:
    """See ``Layer``."""

    __slots__ = ("_incoming", "_is_ended", "_is_ready", "_outgoing", "_said_goodbye", "_tls")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_ready = False
        self._is_ended = False
        self._said_goodbye = False

    @property
    def is_ready(self) -> bool:
        return self._is_ready

    @property
    def is_ended(self) -> bool:
        return self._is_ended

    def receive(self, data: bytes) -> bytes:
        self._incoming.write(data)
        try:
            if not self._is_ready:
                self._tls.do_handshake()
                self._is_ready = True
            return self._read()
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLError as error:
            self._is_ended = self._said_goodbye = True
            raise LayerBroken(f"tls_{(error.reason or 'failed').lower()}") from None

    def send(self, data: bytes) -> None:
        if self._said_goodbye or not self._is_ready:
            return
        try:
            self._tls.write(data)
        except ssl.SSLError:
            self._is_ended = self._said_goodbye = True

    def end(self) -> None:
        """close_notify [RFC 8446 6.1]; the peer's own is not waited for."""
        if not self._is_ready or self._said_goodbye:
            return
        self._is_ended = self._said_goodbye = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            return

    def take_output(self) -> bytes:
        return self._outgoing.read() if self._outgoing.pending else b""

    def _read(self) -> bytes:
        parts: list[bytes] = []
        while True:
            try:
                part = self._tls.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                part = b""
            if not part:
                self._is_ended = True
                break
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
