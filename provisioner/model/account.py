"""An account: the tenant that owns devices, its broker and what its devices are given by default."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Self

from provisioner.model import names
from provisioner.model.errors import InvalidInput, Problem, shape


class Coupling(StrEnum):
    """How firmly a user is bound to a device connection (EC-26; kapua#663)."""

    INHERITED = "INHERITED"
    LOOSE = "LOOSE"
    STRICT = "STRICT"

    def within(self, account_default: "Coupling") -> "Coupling":
        """The mode that holds: INHERITED takes the account's, which is never INHERITED itself."""
        return account_default if self is Coupling.INHERITED else self


class CertificateMode(StrEnum):
    """Which certificates an answer carries: none, one for the device's CSR, or one with a key of ours."""

    OFF = "off"
    CSR = "csr"
    SERVER_KEY = "server-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """``id`` is the account's name, as devices see it in topics. ``broker`` names a configured account broker."""

    kind: ClassVar[str] = "account"

    id: str
    broker: str
    broker_url: str
    created_at: datetime
    coupling: Coupling = Coupling.STRICT
    certificates: CertificateMode = CertificateMode.OFF
    enabled: bool = True
    version: int = 0

    def __post_init__(self) -> None:
        problems = [Problem("name", rule, shape(self.id)) for rule in names.check_username(self.id)]
        problems += [Problem("broker_url", r, shape(self.broker_url)) for r in names.check_endpoint(self.broker_url)]
        if self.coupling is Coupling.INHERITED:
            problems.append(Problem("coupling", "an account's own mode is LOOSE or STRICT", "INHERITED"))
        if problems:
            raise InvalidInput(problems)

    def unique(self: Self) -> dict[str, str]:
        return {}

    def indexed(self: Self) -> dict[str, str]:
        return {"broker": self.broker}
