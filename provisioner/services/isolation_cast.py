"""Who takes part in a trial: two throw-away devices with their logins, made as those of real devices are made."""

import ssl
from collections.abc import Iterable, Sequence

from provisioner.authority.local_ca import DeviceCertificate, LocalAuthority
from provisioner.link.probe import Login, trusting
from provisioner.model.ports import AccountBroker, BrokerUser
from provisioner.model.request import ProvisionRequest
from provisioner.model.topics import DeviceTopics, TopicRights
from provisioner.model.user import ProvisionUser, account_user_id
from provisioner.services.admission import rights_of
from provisioner.services.isolation import ACCOUNT_PREFIX, Party
from provisioner.services.isolation_trial import Cast
from provisioner.services.platform import USER_PURPOSE, Platform
from provisioner.vault import generate

Stranger = tuple[ProvisionUser, ProvisionRequest, TopicRights]
"""What the gate must know of one of them, in memory."""


async def cast_at_gate(platform: Platform) -> tuple[Cast, Sequence[Stranger]]:
    account, ids = _names()
    strangers: list[Stranger] = []
    parties = []
    for number, client_id in enumerate(ids[:2]):
        rights, login = rights_of(platform.dialects, client_id), Login(f"{account}-{number}", generate.password())
        now = platform.now()
        user = ProvisionUser(
            id=login.username,
            account=account,
            verifier=await platform.passwords.verifier(login.username, login.password),
            created_at=now,
        )
        request = ProvisionRequest(
            id=generate.record_id("selftest", now),
            account=account,
            client_id=client_id,
            client_id_claim=client_id,
            username=login.username,
            activates_on=now,
            created_at=now,
            created_by="selftest",
        )
        strangers.append((user, request, rights))
        parties.append(_at_gate(client_id, login, rights))
    return _cast(parties, ids, _by_passwords(parties)), strangers


def cast_at_broker(
    platform: Platform, broker: AccountBroker, control_prefix: str, trusted: Iterable[str]
) -> tuple[Cast, Sequence[BrokerUser]]:
    """trusted: PEM texts, for logins that are certificates."""
    account, ids = _names()
    capabilities = broker.capabilities()
    certified = _Certified(platform, tuple(trusted)) if capabilities.certificate_logins else None
    users, parties = [], []
    for number, client_id in enumerate(ids[:2]):
        topics = DeviceTopics(account, client_id, control_prefix)
        username = capabilities.home_username(account, client_id) or f"{account}-{number}"
        password = generate.password()
        made = certified.certificate(username, topics) if certified else None
        users.append(
            BrokerUser(
                account=account,
                username=username,
                client_id=client_id,
                verifier=platform.ring.verifier(password, USER_PURPOSE, account_user_id(account, username)),
                password=password,
                certificates=(made.serial,) if made else (),
            )
        )
        shown = certified.context(made) if certified and made else None
        parties.append(_at_broker(topics, Login(username, password, shown)))
    impostors = certified.impostors(parties, account) if certified else _by_passwords(parties)
    return _cast(parties, ids, impostors), users


def _by_passwords(parties: Sequence[Party]) -> Sequence[Login]:
    """As the holder with a password of nobody, and with the spy's."""
    spy, holder = parties
    name = holder.login.username
    return Login(name, generate.password()), Login(name, spy.login.password)


class _Certified:
    """Logins for a broker that knows a device by its certificate (``Capabilities.certificate_logins``)."""

    def __init__(self, platform: Platform, trusted: Sequence[str]) -> None:
        self._platform, self._trusted = platform, trusted

    def certificate(self, device_id: str, topics: DeviceTopics) -> DeviceCertificate:
        return self._signed(self._platform.authority, device_id, topics)

    def context(self, made: DeviceCertificate) -> ssl.SSLContext:
        shown = (made.certificate, made.private_key) if made.private_key is not None else None
        return trusting(self._trusted, by_name=True, shown=shown)

    def impostors(self, parties: Sequence[Party], account: str) -> Sequence[Login]:
        """As the holder, by a certificate that somebody else signed under the name of our authority."""
        holder = parties[1]
        name = self._platform.authority.certificate.subject.rfc4514_string().removeprefix("CN=")
        forger = LocalAuthority.create(name, self._platform.now())
        made = self._signed(forger, holder.login.username, DeviceTopics(account, holder.client_id))
        return (Login(holder.login.username, generate.password(), self.context(made)),)

    def _signed(self, authority: LocalAuthority, device_id: str, topics: DeviceTopics) -> DeviceCertificate:
        return authority.with_new_key(device_id, topics.account, self._platform.now(), topics.home)


def _names() -> tuple[str, Sequence[str]]:
    """A fresh account, and client ids of the spy, the holder and a stranger; the spy's begins the others'.

    Account and client id have 58 characters with the "/" between: a common name holds 64."""
    first = f"selftest-{generate.letters(12)}"
    return f"{ACCOUNT_PREFIX}{generate.letters(16)}", (first, f"{first}2", f"{first}3")


def _cast(parties: Sequence[Party], ids: Sequence[str], impostors: Sequence[Login]) -> Cast:
    spy, holder = parties
    return Cast(holder=holder, spy=spy, impostors=impostors, stranger=ids[2], run=generate.letters(16))


def _at_broker(topics: DeviceTopics, login: Login) -> Party:
    below = (topics.home, f"{topics.control_prefix}/{topics.home}")
    said = tuple(f"{each}/selftest" for each in below)
    return Party(
        client_id=topics.client_id,
        login=login,
        speaks=said,
        hears=tuple(f"{each}/#" for each in below),
        topics=(said[0], topics.home, said[1]),
    )


def _at_gate(client_id: str, login: Login, rights: TopicRights) -> Party:
    said, answered = tuple(sorted(rights.publish)), tuple(sorted(rights.subscribe))
    return Party(
        client_id=client_id,
        login=login,
        speaks=said,
        hears=(*answered, *((f"{rights.below}#",) if rights.below else ())),
        topics=(*said, *answered),
    )
