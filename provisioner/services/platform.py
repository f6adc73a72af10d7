"""What the services share: the ports, the vault, the policy and the clock. Built once, in ``app``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from provisioner.authority.local_ca import LocalAuthority
from provisioner.model.epoch import FIRST
from provisioner.model.errors import Unavailable
from provisioner.model.observer import NOBODY, Observer
from provisioner.model.policy import Policy
from provisioner.model.ports import AccountBroker, Dialect, LinkLogins, Store
from provisioner.services.gates import Gates
from provisioner.services.journal import AuditTrail
from provisioner.vault.keyring import KeyRing
from provisioner.vault.passwords import Passwords

KEY_PURPOSE = "activation key"
USER_PURPOSE = "account user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """now: the server's clock, UTC; the only clock that windows are decided by (F-32).

    brokers: name -> account broker; broker_urls: name -> where devices reach it.
    dialects: in the order in which they are asked.
    link_logins: None unless another broker stands in the place of the gate and checks the logins of devices.
    epoch: of the store, which never changes while it is open.
    gates: the others on the same store; None where there can be none.
    refused: account brokers that no device is let in at, name -> why; the self-test of isolation changes it.
    """

    store: Store
    ring: KeyRing
    passwords: Passwords
    authority: LocalAuthority
    brokers: Mapping[str, AccountBroker]
    broker_urls: Mapping[str, str]
    dialects: Sequence[Dialect]
    policy: Policy
    audit: AuditTrail
    now: Callable[[], datetime]
    observer: Observer = NOBODY
    link_logins: LinkLogins | None = None
    epoch: int = FIRST
    gates: Gates | None = None
    refused: dict[str, str] = field(default_factory=dict)

    def broker(self, name: str) -> AccountBroker:
        """The account broker of that name; Unavailable when the configuration has none."""
        try:
            return self.brokers[name]
        except KeyError:
            raise Unavailable(f"no account broker {name!r} is configured") from None

    def usable_broker(self, name: str) -> AccountBroker:
        """As ``broker``, to let a device in there; Unavailable also while the broker is refused."""
        if (why := self.refused.get(name)) is not None:
            raise Unavailable(f"account broker {name} is not used: {why}")
        return self.broker(name)
