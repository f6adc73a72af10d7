"""What an onlooker is told while the service works: for metrics and logs, which no service knows anything of."""

from typing import Protocol

from provisioner.model.audit import AuditEvent
from provisioner.model.messages import Status


class Observer(Protocol):
    """None of these may block or raise. What is told holds no secret."""

    def answered(self, dialect: str, status: Status, took_s: float) -> None:
        """A message of a device got its answer, so long after it came."""

    def happened(self, event: AuditEvent) -> None:
        """Once for everything that is audited; ``event.count`` of them when the gate has summed them up."""

    def recorded(self, event: AuditEvent) -> None:
        """A row for the audit log, where what strangers cause in masses is one row a minute."""

    def stored(self, verb: str, took_s: float, *, failed: bool) -> None:
        """The store did ``get``, ``find`` or ``commit``; failed: it was unavailable."""


class Nobody:
    """Nobody looks on."""

    def answered(self, dialect: str, status: Status, took_s: float) -> None:
        pass

    def happened(self, event: AuditEvent) -> None:
        pass

    def recorded(self, event: AuditEvent) -> None:
        pass

    def stored(self, verb: str, took_s: float, *, failed: bool) -> None:
        pass


NOBODY = Nobody()
