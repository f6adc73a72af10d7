"""The door for those who watch the service: metrics, whether it lives, whether it can do its work."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from cryptography import x509

from provisioner.account_brokers.callback_values import JSON, HttpRequest, HttpResponse
from provisioner.account_brokers.http_server import HttpServer
from provisioner.doors.metrics import CONTENT_TYPE, Metrics
from provisioner.model.errors import Unavailable
from provisioner.services.figures import CertificateTally, Counting
from provisioner.services.platform import Platform
from provisioner.services.readiness import Readiness, look

TICK_S = 0.25


class Entry(Protocol):
    """A door with connections, as far as it is looked at from here."""

    def fault(self) -> str | None: ...
    def standings(self) -> Mapping[str, int]: ...


class WatchDoor:
    """``/metrics``, ``/healthz`` and ``/readyz`` over HTTP. Nothing that it says is a secret, nor about one device."""

    def __init__(
        self,
        address: tuple[str, int],
        platform: Platform,
        metrics: Metrics,
        entries: Mapping[str, Entry],
        certificates: Mapping[str, Path],
    ) -> None:
        """entries: by name; ``gate`` is the one that devices come through. certificates: PEM files of our own."""
        self._platform, self._metrics, self._entries, self._certificates = platform, metrics, entries, certificates
        self._server = HttpServer(*address, self.answer)
        self._counting, self._tally = Counting(platform), CertificateTally(platform)
        self._started_s = time.monotonic()
        self._lag_s = 0.0

    @property
    def port(self) -> int:
        return self._server.address[1]

    async def start(self) -> None:
        """Raises Unavailable when the address cannot be had."""
        self.read_certificates()
        try:
            await self._server.start()
        except OSError as error:
            host, port = self._server.address
            raise Unavailable(f"metrics cannot be offered on {host}:{port}: {error.strerror}") from None

    async def stop(self) -> None:
        await self._server.stop()

    async def run(self) -> None:
        """Look at what nobody tells; until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tally.run())
            group.create_task(self._feel_the_pulse())

    def read_certificates(self) -> None:
        """Once more when they were renewed."""
        gauges = self._metrics.gauges
        gauges.own_certificate("authority", self._platform.authority.certificate.not_valid_after_utc)
        for name, path in self._certificates.items():
            gauges.own_certificate(name, x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc)

    async def answer(self, request: HttpRequest) -> HttpResponse:
        if request.method != "GET":
            return HttpResponse(405, headers={"allow": "GET"})
        pages: Mapping[str, Callable[[], Awaitable[HttpResponse]]] = {
            "/metrics": self._show_metrics,
            "/healthz": self._show_health,
            "/readyz": self._show_readiness,
        }
        page = pages.get(request.path)
        return await page() if page is not None else HttpResponse(404)

    async def _show_metrics(self) -> HttpResponse:
        gauges = self._metrics.gauges
        if (figures := await self._counting.figures()) is not None:
            gauges.stored(figures)
        if self._tally.left is not None:
            gauges.certified(self._tally.left)
        gauges.ready(await self._look())
        for name, entry in self._entries.items():
            gauges.connected(name, entry.standings())
        gauges.lagged(self._lag_s)
        self._lag_s = 0.0
        return HttpResponse(200, self._metrics.text(), CONTENT_TYPE)

    async def _show_health(self) -> HttpResponse:
        """That it is said at all is what counts: whoever hears nothing may end the process."""
        return _json(200, {"alive": True, "uptime_s": round(time.monotonic() - self._started_s)})

    async def _show_readiness(self) -> HttpResponse:
        readiness = await self._look()
        names: Iterable[str] = (part.name for part in (*readiness.core, *readiness.brokers) if part.fault is None)
        said = {"ready": readiness.ready, "red": readiness.red, "green": list(names)}
        return _json(200 if readiness.ready else 503, said)

    def _look(self) -> Awaitable[Readiness]:
        return look(self._platform, self._entries["gate"].fault)

    async def _feel_the_pulse(self) -> None:
        while True:
            due_s = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self._lag_s = max(self._lag_s, time.monotonic() - due_s)


def _json(status: int, value: Mapping[str, object]) -> HttpResponse:
    return HttpResponse(status, json.dumps(value).encode() + b"\n", JSON, {"cache-control": "no-store"})
