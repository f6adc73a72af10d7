"""Users: those of the provision account (one per provision username) and those of the accounts."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from provisioner.model.account import Coupling

BROKER_CONNECT = "broker:connect"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionUser:
    """A user of the provision account (EC-11): ``id`` is the username, owned by one account.

    verifier: self-describing digest of the password, see ``vault.keyring``; never the password.
    link_verifier: the digest in the form of the broker that stands in the place of the gate (``provision_link``);
    None when there was none at the time: no digest can be made into another one.
    """

    kind: ClassVar[str] = "provision_user"

    id: str
    account: str
    verifier: str
    created_at: datetime
    link_verifier: str | None = None
    version: int = 0

    def unique(self) -> dict[str, str]:
        return {}

    def indexed(self) -> dict[str, str]:
        return {"account": self.account}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountUser:
    """A user of a target account, made for one device with exactly ``broker:connect`` (EC-31).

    id: ``<account>/<username>``. client_id: of the device that it was made for.
    broker: name of the account broker that it was made on.
    coupling: STRICT or LOOSE, the inheritance resolved when it was made.
    certificates: serials of what was signed for it, lower-case hex; all but the last are replaced ones.
    """

    kind: ClassVar[str] = "account_user"

    id: str
    account: str
    username: str
    client_id: str
    broker: str
    device_id: str
    verifier: str
    created_at: datetime
    permissions: tuple[str, ...] = (BROKER_CONNECT,)
    reserved: bool = False
    coupling: Coupling = Coupling.STRICT
    enabled: bool = True
    certificates: tuple[str, ...] = ()
    version: int = 0

    def unique(self) -> dict[str, str]:
        return {}

    def indexed(self) -> dict[str, str]:
        return {"account": self.account, "device": self.device_id}


def account_user_id(account: str, username: str) -> str:
    return f"{account}/{username}"
