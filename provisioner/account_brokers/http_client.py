"""One HTTP/1.1 request to a broker's management interface: h11 over asyncio streams, bounded in time and size."""

import asyncio
import base64
import contextlib
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import h11

from provisioner.account_brokers.callback_values import HttpResponse
from provisioner.model.errors import Unavailable
from provisioner.model.secret import Secret

REQUEST_S = 2.0
AT_ONCE_MAX = 8
_BODY_BYTES_MAX = 4_194_304
_CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class ManagementClient:
    """urls: ``http(s)://host:port`` of each node; the first that answers is enough. tls: for https."""

    urls: tuple[str, ...]
    username: str
    password: Secret
    tls: ssl.SSLContext | None = None
    _free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE_MAX), init=False, repr=False)

    async def ask(self, method: str, path: str) -> HttpResponse:
        """Its answer, whatever the status below 500. Raises Unavailable when no node gives one."""
        told = "no address is set"
        for url in self.urls:
            try:
                async with self._free, asyncio.timeout(REQUEST_S):
                    response = await self._ask(url, method, path)
            except (OSError, TimeoutError, h11.ProtocolError) as error:
                told = type(error).__name__
                continue
            if response.status < 500:
                return response
            told = f"status {response.status}"
        raise Unavailable(f"the broker's management interface does not answer: {told}")

    async def _ask(self, url: str, method: str, path: str) -> HttpResponse:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        tls = (self.tls or ssl.create_default_context()) if secure else None
        port = parts.port or (443 if secure else 80)
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=tls)
        try:
            return await self._exchange(reader, writer, parts.netloc, method, parts.path.rstrip("/") + path)
        finally:
            # Not close(): a server that hangs says no farewell of TLS either, and that is waited for for half a minute.
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, method: str, target: str
    ) -> HttpResponse:
        protocol = h11.Connection(h11.CLIENT)
        login = base64.b64encode(f"{self.username}:{self.password.reveal()}".encode()).decode()
        headers = [("host", host), ("authorization", f"Basic {login}"), ("connection", "close")]
        head = h11.Request(method=method, target=target, headers=headers)
        for event in (head, h11.EndOfMessage()):
            writer.write(protocol.send(event) or b"")
        status, body = 0, bytearray()
        while True:
            answer = protocol.next_event()
            if answer is h11.NEED_DATA:
                protocol.receive_data(await reader.read(_CHUNK_BYTES))
            elif isinstance(answer, h11.Response):
                status = answer.status_code
            elif isinstance(answer, h11.Data) and len(body) + len(answer.data) <= _BODY_BYTES_MAX:
                body += answer.data
            elif isinstance(answer, h11.EndOfMessage):
                return HttpResponse(status, bytes(body))
            elif not isinstance(answer, h11.InformationalResponse):
                raise h11.RemoteProtocolError("the answer ended early or is too long")
