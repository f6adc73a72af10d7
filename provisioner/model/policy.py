"""The platform's choices that decisions depend on, with the defaults of the design."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class AtStart(StrEnum):
    """What becomes of the proof of isolation at the start. refuse: a broker is used once it has passed."""

    OFF = "off"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Policy:
    """Units are in the names."""

    shared_credentials_require_key: bool = True
    client_id_scope: Literal["platform", "account"] = "platform"  # EC-07: where one is taken once
    strict_mqtt31: bool = False
    refuse_case_variants: bool = True  # F-10: "Dev1" beside "dev1" in one account
    key_failures_backoff: int = 5  # F-18: from here on the request is throttled
    key_failures_lock: int = 10  # F-18: from here on only an administrator re-opens it
    key_backoff_s: int = 30
    retry_after_waiting_s: int = 60
    retry_after_busy_s: int = 5
    retry_after_conflict_s: int = 10
    retry_after_max_s: int = 3600
    confirm_within_s: int = 300
    two_addresses_window_s: int = 60  # F-22: one client id from two addresses within this alerts
