"""Named points at which a test may kill the process, to prove that nothing is lost there.

Off unless the process was started with ``FLEETGATE_CRASH_AT=<name>[:<n>]``: the n-th time that the point is
reached the process ends at once, as by a power cut.
"""

import os
import signal

POINTS = (
    "before_commit",
    "after_commit",
    "after_apply",
    "after_answer",
    "before_confirm_commit",
    "after_confirm_commit",
    "before_effect_done",
    "after_request_create",
)
# Of a copy of a whole store.
COPY_POINTS = ("after_target_marked", "after_part", "after_verified", "after_source_left")

_name, _, _count = os.environ.get("FLEETGATE_CRASH_AT", "").partition(":")
_left = int(_count or 1)


def reach(point: str) -> None:
    """Mark that execution is at ``point``, one of ``POINTS`` or ``COPY_POINTS``."""
    global _left
    if point != _name:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
