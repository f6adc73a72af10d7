"""Notices when the server's clock jumps: windows are decided by it, so people should know (F-32)."""

import asyncio
import logging
import time

from provisioner.model.audit import AuditEvent
from provisioner.services.platform import Platform

log = logging.getLogger(__name__)

PERIOD_S = 5.0
JUMP_S = 2.0


def jump_s(wall_before: float, wall_now: float, monotonic_before: float, monotonic_now: float) -> float:
    """How far the wall clock moved beyond the time that passed; 0.0 for what is ordinary adjustment."""
    moved = (wall_now - wall_before) - (monotonic_now - monotonic_before)
    return moved if abs(moved) >= JUMP_S else 0.0


async def watch_clock(platform: Platform, *, period_s: float = PERIOD_S) -> None:
    """Until cancelled: one audit row and one log line for every jump."""
    wall, monotonic = platform.now().timestamp(), time.monotonic()
    while True:
        await asyncio.sleep(period_s)
        wall_now, monotonic_now = platform.now().timestamp(), time.monotonic()
        moved_s = jump_s(wall, wall_now, monotonic, monotonic_now)
        wall, monotonic = wall_now, monotonic_now
        if moved_s:
            log.warning("the server's clock jumped by %+.1f s", moved_s)
            details = {"moved_s": round(moved_s, 1)}
            platform.audit.note(
                AuditEvent(at=platform.now(), actor="gate", action="clock.jumped", outcome="failed", details=details)
            )
