"""What nobody told: who was connected to an account broker before it was not heard for a while is noted anew.

A pass over all devices, a page at a time, in the background. What is found out about a device takes its turn among the
sightings of it, so that it never hides one that came later.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from provisioner.model.device import Device
from provisioner.model.errors import Unavailable
from provisioner.model.ports import Gap, Sighting
from provisioner.model.presence import ConnectionStatus
from provisioner.model.user import AccountUser, account_user_id
from provisioner.services.platform import Platform
from provisioner.services.turns import Place

log = logging.getLogger(__name__)

PAGE_DEVICES = 200
WAITING_MAX = 100  # sightings before ours: those who come now go first
AGAIN_S = 1.0
_LOOK_S = 0.02
_REST_S_MAX = 0.5


@dataclass(slots=True)
class _Open:
    """since: the places of which something was heard after the gap, at whichever broker."""

    gap: Gap
    since: set[Place] = field(default_factory=set)


class Gaps:
    """Stands between the account brokers and whoever notes their sightings."""

    def __init__(self, platform: Platform, see: Callable[[Sighting], None], waiting: Callable[[], int]) -> None:
        """see: takes a sighting and never blocks. waiting: how many of them are not noted yet."""
        self._platform, self._see, self._waiting = platform, see, waiting
        self._open: dict[str, _Open] = {}
        self._is_due = asyncio.Event()

    def begin(self, gap: Gap) -> None:
        """Never blocks. What was seen at that broker so far says nothing of who is there."""
        self._open[gap.broker] = _Open(gap)
        self._is_due.set()

    def seen(self, sighting: Sighting) -> None:
        """Never blocks."""
        for each in self._open.values():
            each.since.add((sighting.account, sighting.client_id))
        self._see(sighting)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            passed = dict(self._open)
            try:
                await self._pass()
            except Unavailable as error:
                log.warning("who is connected is not looked through yet: %s", error)
                await asyncio.sleep(AGAIN_S)
                self._is_due.set()
                continue
            for broker, each in passed.items():
                if self._open.get(broker) is each:
                    del self._open[broker]

    async def _pass(self) -> None:
        """All devices once; between two pages it rests for as long as the last one took."""
        noted, after, loop = 0, None, asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            page = await self._platform.store.page(Device, after=after, limit=PAGE_DEVICES)
            for device in page.items:
                if device.connection.status is ConnectionStatus.CONNECTED:
                    noted += await self._note(device)
            if (after := page.after) is None:
                break
            await asyncio.sleep(min(loop.time() - began_s, _REST_S_MAX))
        log.info("%d devices are not taken for connected any more", noted)

    async def _note(self, device: Device) -> bool:
        """False: it is on a broker that was heard all the time, or something was heard of it since. One whose user is
        gone has to leave, and at which broker nobody knows."""
        username, _, connection = (device.connection.newest or device.connection.user).partition(" ")
        user = await self._platform.store.get(AccountUser, account_user_id(device.account, username))
        while self._waiting() >= WAITING_MAX:  # noqa: ASYNC110  # nobody tells when sightings were noted
            await asyncio.sleep(_LOOK_S)
        # From here on nothing is waited for: whoever comes now takes its turn behind this.
        each = self._open.get(user.broker) if user is not None else next(iter(self._open.values()))
        if each is None or (device.account, device.client_id) in each.since:
            return False
        self._see(
            Sighting(
                account=device.account,
                username=username,
                client_id=device.client_id,
                address=None,
                connected=False,
                unheard=user is None or not each.gap.all_left,
                connection=connection or None,
            )
        )
        return True
