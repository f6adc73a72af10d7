"""The event loop of a gate: uvloop where it is installed, the one of the standard library otherwise."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_FILES_MAX_UNKNOWN = 1_024


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop takes a third of the time off a device's walk; nothing else depends on it."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` on that loop."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


def open_files_max() -> int:
    """Raise the soft limit of open files to the hard one, and return it; a guess where there is no such limit."""
    try:
        import resource
    except ImportError:
        return _FILES_MAX_UNKNOWN
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard or hard == resource.RLIM_INFINITY:
        return soft if soft != resource.RLIM_INFINITY else 1 << 30
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
