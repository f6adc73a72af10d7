"""How long a device waits: time-outs, and the back-off that keeps a fleet from coming back all at once (F-31)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

RETRY_SPREAD = 0.1  # of retry_after_s: who is told the same hour shall not come in the same second


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """All in seconds but fall_back_after, which counts failed connects to the account broker (None: never, F-30).

    linger_s: a longer wait than this is spent disconnected. apply_delay_s: between a gateway's 200 and its applying.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    reply_s: float = 30.0
    backoff_base_s: float = 1.0
    backoff_cap_s: float = 300.0
    linger_s: float = 10.0
    ack_s: float = 5.0
    apply_delay_s: float = 1.0
    connect_s: float = 10.0
    connack_s: float = 10.0
    keep_alive_s: int = 30
    fall_back_after: int | None = None

    def __post_init__(self) -> None:
        for name in ("reply_s", "backoff_base_s", "backoff_cap_s", "ack_s", "connect_s", "connack_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0")
        if self.linger_s < 0 or self.apply_delay_s < 0:
            raise ValueError("linger_s and apply_delay_s must not be negative")
        if not 1 <= self.keep_alive_s <= 65535:
            raise ValueError("keep_alive_s must be 1 to 65535")
        if self.fall_back_after is not None and self.fall_back_after < 1:
            raise ValueError("fall_back_after must be at least 1")


def wait_s(timeouts: Timeouts, failures: int, draw: Callable[[], float], retry_after_s: float = 0.0) -> float:
    """Full jitter: anywhere in [0, min(cap, base * 2**failures)), on top of what the gate asked for, never below it.

    failures: earlier ones in a row, from 0. draw: uniform in [0, 1)."""
    ceiling_s = timeouts.backoff_base_s * 2.0 ** min(failures, 60)
    return retry_after_s + draw() * min(timeouts.backoff_cap_s, max(ceiling_s, retry_after_s * RETRY_SPREAD))
