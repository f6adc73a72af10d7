"""Audit events: who did what to whom, with what outcome. They hold no secret, ever."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One row of the audit log.

    seq: position in the log, given by the store at commit; 0 before that.
    actor: ``device``, ``gate``, ``effects`` or ``admin:<name>``.
    action: noun and verb, ``request.create``, ``connect.refused``, ``provision.granted``, ...
    outcome: ``ok`` or ``refused`` or ``failed``; reason: a code, true even where the device was told less.
    """

    kind: ClassVar[str] = "audit"

    at: datetime
    actor: str
    action: str
    outcome: str = "ok"
    reason: str | None = None
    account: str | None = None
    client_id: str | None = None
    username: str | None = None
    subject: str | None = None
    address: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)
    seq: int = 0

    @property
    def count(self) -> int:
        """How many like it this row stands for."""
        count = self.details.get("count", 1)
        return count if isinstance(count, int) else 1
