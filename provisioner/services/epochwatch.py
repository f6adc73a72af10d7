"""Notices when the store of a running service became another one's source or target: then the service must end.

A store of one process is locked against that; one that processes share is not.
"""

import asyncio

from provisioner.model.errors import Conflict, Unavailable
from provisioner.services.copying import usable_epoch
from provisioner.services.platform import Platform

PERIOD_S = 0.5
NOTICED_S = 3.0  # after this long every service that can reach its store has noticed, and answers nobody any more


async def watch_epoch(platform: Platform, *, period_s: float = PERIOD_S) -> None:
    """Until cancelled. Raises Conflict, which says what was done to the store, and then nothing writes to it any more:
    devices that still ask are told ``busy``."""
    while True:
        await asyncio.sleep(period_s)
        try:
            await _check(platform)
        except Unavailable:
            continue
        except Conflict:
            await platform.store.close()
            raise


async def _check(platform: Platform) -> None:
    epoch = await usable_epoch(platform.store)
    if epoch.number != platform.epoch:
        raise Conflict(f"the store was restored: it is in epoch {epoch.number}, not in {platform.epoch}; start again")
