"""Figures of what is stored, for whoever asks often: counted at most every few seconds, and certificates every hour."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from provisioner.model.device import Device, DeviceState
from provisioner.model.effect import Effect
from provisioner.model.errors import Unavailable
from provisioner.model.request import ProvisionRequest, RequestState
from provisioner.services.platform import Platform

log = logging.getLogger(__name__)

COUNTED_S = 30.0  # a million requests in SQLite are a fifth of a second of another thread
TALLIED_S, AGAIN_S = 3600.0, 60.0
PAGE, PAUSE_S = 200, 0.02  # a million devices take two minutes, and nobody waits for more than a page of them
DAYS_LEFT = (0, 7, 14, 30, 60)
LONGER = "more"


@dataclass(frozen=True, slots=True)
class Figures:
    """requests: stored state -> how many. effects: what still has to be told to account brokers."""

    requests: Mapping[str, int]
    effects: int


class Counting:
    """``figures`` counts anew when what it has is older than COUNTED_S."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._figures: Figures | None = None
        self._counted_s = 0.0
        self._alone = asyncio.Lock()

    async def figures(self) -> Figures | None:
        """The former ones while the store cannot count; None before it ever could."""
        async with self._alone:
            if self._figures is None or time.monotonic() - self._counted_s >= COUNTED_S:
                try:
                    self._figures = await self._count()
                    self._counted_s = time.monotonic()
                except Unavailable as error:
                    log.debug("nothing can be counted: %s", error)
            return self._figures

    async def _count(self) -> Figures:
        store = self._platform.store
        requests = {each.value: await store.count(ProvisionRequest, where={"state": each}) for each in RequestState}
        return Figures(requests, await store.count(Effect))


class CertificateTally:
    """How many devices' newest certificates end within so many days. ``left`` is None until they were counted."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.left: Mapping[str, int] | None = None

    async def run(self) -> None:
        """Count now and every hour, until cancelled."""
        while True:
            try:
                await self.count()
                await asyncio.sleep(TALLIED_S)
            except Unavailable as error:
                log.debug("certificates cannot be counted: %s", error)
                await asyncio.sleep(AGAIN_S)

    async def count(self) -> None:
        """Count now. Raises Unavailable; then ``left`` stays what it was."""
        found: Counter[str] = Counter({str(days): 0 for days in DAYS_LEFT} | {LONGER: 0})
        after: str | None = None
        while True:
            page = await self._platform.store.page(Device, after=after, limit=PAGE)
            now = self._platform.now()
            found.update(within(end, now) for each in page.items if (end := _certificate_end(each)) is not None)
            if (after := page.after) is None:
                self.left = found
                return
            await asyncio.sleep(PAUSE_S)


def _certificate_end(device: Device) -> datetime | None:
    """None where there is none to be renewed."""
    return device.certificate_ends_at if device.state is not DeviceState.REVOKED else None


def within(ends_at: datetime, now: datetime) -> str:
    """The least of DAYS_LEFT within which it ends ("0": it has ended), or LONGER."""
    left = (ends_at - now).total_seconds() / 86_400
    return next((str(days) for days in DAYS_LEFT if left <= days), LONGER)
