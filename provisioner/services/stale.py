"""Verbs of administrators against records that devices keep changing."""

import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from provisioner.model.errors import StaleVersion

P = ParamSpec("P")
R = TypeVar("R")

TRIES = 20


def again_when_stale(verb: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Read, decide and commit anew when a record moved on in between, so that a busy device cannot ward off its
    revocation (F-08). For verbs whose only commit is what raises StaleVersion; raises it after TRIES."""

    @functools.wraps(verb)
    async def tried(*args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(TRIES - 1):
            with contextlib.suppress(StaleVersion):
                return await verb(*args, **kwargs)
        return await verb(*args, **kwargs)

    return tried
