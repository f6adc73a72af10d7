"""A small HTTP/1.1 server for callbacks and for those who watch: h11 over streams, with limits on what is brought."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import h11

from provisioner.account_brokers.callback_values import HttpRequest, HttpResponse

Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """request_s: from its first byte to our answer's last. idle_s: between two requests of one connection."""

    head_bytes_max: int = 16_384
    body_bytes_max: int = 65_536
    connections_max: int = 1_000
    request_s: float = 5.0
    idle_s: float = 120.0


class HttpServer:
    """Serves ``handler``; what it raises becomes a 500, which no broker takes for a yes."""

    def __init__(
        self,
        host: str,
        port: int,
        handler: Handler,
        tls: ssl.SSLContext | None = None,
        limits: HttpLimits | None = None,
        *,
        shared_port: bool = False,
    ) -> None:
        """shared_port: other processes listen there as well (SO_REUSEPORT)."""
        self._host, self._port, self._handler, self._tls, self._shared = host, port, handler, tls, shared_port
        self._limits = limits or HttpLimits()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; the configured port until it does."""
        if self._server is None:
            return self._host, self._port
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def start(self) -> None:
        """Raises OSError when the address cannot be had."""
        self._server = await asyncio.start_server(
            self._accepted,
            self._host,
            self._port,
            ssl=self._tls,
            limit=_CHUNK_BYTES,
            reuse_port=self._shared or None,
        )

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._server = None

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._limits.connections_max:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await _Connection(reader, writer, self._handler, self._limits).serve()
        except (OSError, TimeoutError, asyncio.CancelledError, h11.RemoteProtocolError) as error:
            _log.debug("a caller's connection ended: %s", type(error).__name__)
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()


class _Connection:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler, limits: HttpLimits
    ) -> None:
        self._reader, self._writer, self._handler, self._limits = reader, writer, handler, limits
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes_max)

    async def serve(self) -> None:
        """One request after the other until the caller closes, errs or says nothing more."""
        while True:
            if not self._protocol.trailing_data[0]:
                async with asyncio.timeout(self._limits.idle_s):
                    self._protocol.receive_data(await self._reader.read(_CHUNK_BYTES))
            async with asyncio.timeout(self._limits.request_s):
                if not await self._one():
                    return

    async def _one(self) -> bool:
        """False when nothing can follow."""
        try:
            request = await self._request()
        except h11.RemoteProtocolError as error:
            await self._send(HttpResponse(error.error_status_hint))
            return False
        if request is None:
            return False
        whole = isinstance(request, HttpRequest)
        await self._send(await self._handled(request) if isinstance(request, HttpRequest) else request)
        if not whole or self._protocol.our_state is h11.MUST_CLOSE:
            return False
        self._protocol.start_next_cycle()
        return True

    async def _request(self) -> HttpRequest | HttpResponse | None:
        """None: the caller left. A response: why it is not read any further."""
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > self._limits.body_bytes_max:
                return HttpResponse(413)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        path = head.target.decode("latin-1").partition("?")[0]
        return HttpRequest(head.method.decode("latin-1"), path, headers, bytes(body))

    async def _event(self) -> object:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            if self._protocol.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(self._protocol.send(go_on) or b"")
            self._protocol.receive_data(await self._reader.read(_CHUNK_BYTES))
        return event

    async def _handled(self, request: HttpRequest) -> HttpResponse:
        try:
            return await self._handler(request)
        except Exception:
            _log.exception("a request failed")
            return HttpResponse(500)

    async def _send(self, response: HttpResponse) -> None:
        headers = [
            ("content-type", response.content_type),
            ("content-length", str(len(response.body))),
            *response.headers.items(),
        ]
        head = h11.Response(status_code=response.status, headers=headers)
        parts = [self._protocol.send(each) for each in (head, h11.Data(data=response.body), h11.EndOfMessage())]
        self._writer.write(b"".join(part or b"" for part in parts))
        await self._writer.drain()
