"""One grant: the credentials of a device, fixed by one commit, then made true at its account broker (D6, D7)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from provisioner.authority.local_ca import DeviceCertificate, csr_key_digest
from provisioner.dialects.limits import METADATA_ENTRIES_MAX
from provisioner.model import device_config
from provisioner.model.account import Account, CertificateMode
from provisioner.model.audit import AuditEvent
from provisioner.model.decision import Circumstances
from provisioner.model.device import Device, DeviceConnection, DeviceMove, move
from provisioner.model.effect import Effect
from provisioner.model.errors import InvalidInput, Problem
from provisioner.model.messages import Answer, Delivery, ProvisionMessage, Status
from provisioner.model.ports import Put, Unit
from provisioner.model.request import Grant, ProvisionRequest, RequestMove
from provisioner.model.request import move as request_move
from provisioner.model.user import AccountUser, account_user_id
from provisioner.services import sealed
from provisioner.services.crashpoints import reach
from provisioner.services.effects import Effects
from provisioner.services.platform import USER_PURPOSE, Platform
from provisioner.vault import generate


def _papers(source: DeviceCertificate | Delivery | None) -> dict[str, Any]:
    """The fields of a delivery that come of a certificate, new or as it was delivered before."""
    return {name: getattr(source, name) for name in _PAPERS} if source else {}


_PAPERS = ("certificate", "ca", "private_key", "renew_after")


def username_of(request: ProvisionRequest) -> str:
    """The account user's name where any is as good, derived, so that doing it twice makes one user and not two."""
    return f"dev-{request.id.removeprefix('req-')}-{request.arm}"


def request_ids_of(username: str) -> tuple[str, str]:
    """The request and the device that a derived name was made for; of any other name none that exist."""
    stem = username.removeprefix("dev-").rpartition("-")[0]
    return f"req-{stem}", f"dev-{stem}"


class Granting:
    """Commits grants and applies them."""

    def __init__(self, platform: Platform, effects: Effects) -> None:
        self._platform, self._effects = platform, effects

    async def grant(
        self,
        address: str,
        message: ProvisionMessage,
        case: Circumstances,
        former: Answer | None,
        told_to: str | None,
    ) -> Answer:
        """The answer to an authorised message. former: what was granted before and is not confirmed yet. told_to: see
        ``Grant``.

        Raises InvalidInput for a CSR that cannot be certified, Conflict when a record moved on, Unavailable."""
        request, account, device = case.request, case.account, case.device
        username = await self._username(request, account)
        before = await self._platform.store.get(AccountUser, account_user_id(account.id, username))
        if before is not None and before.broker in self._platform.brokers and former and former.delivery:
            account = _as_granted(account, before, former.delivery)
        answer, certificate = self._answer(message, request, account, device, former, username)
        assert answer.delivery is not None
        user = self._user(request, account, answer.delivery, before, certificate)
        unit = self._unit(address, message, case, answer, certificate, user, told_to)
        reach("before_commit")
        await self._platform.store.commit(unit)
        reach("after_commit")
        await self._effects.bring(user.id, answer.delivery.password)
        reach("after_apply")
        return answer

    async def finish(self, request: ProvisionRequest, granted: Delivery, told_to: str | None) -> None:
        """Make sure that what was granted is true at the broker, before it is said again: the first answer may
        still be waiting for it. Raises Conflict when somebody else was faster to be told."""
        if request.grant is not None and told_to is not None and request.grant.told_to != told_to:
            retold = replace(request, grant=replace(request.grant, told_to=told_to))
            await self._platform.store.commit(Unit(changes=[Put(retold)]))
        await self._effects.bring(account_user_id(granted.account, granted.username), granted.password)

    async def _username(self, request: ProvisionRequest, account: Account) -> str:
        """One for each grant. The name that the broker would rather have is taken while the user of a former grant has
        it: those credentials hold until the new ones are seen, and until the broker has really forgotten them."""
        if request.grant is not None:
            return request.grant.username
        broker, store = self._platform.brokers.get(account.broker), self._platform.store
        home = broker.capabilities().home_username(account.id, request.client_id) if broker else None
        if home is None:
            return username_of(request)
        id = account_user_id(account.id, home)
        is_taken = await store.get(AccountUser, id) is not None or await store.get(Effect, id) is not None
        return username_of(request) if is_taken else home

    def _answer(
        self,
        message: ProvisionMessage,
        request: ProvisionRequest,
        account: Account,
        device: Device | None,
        former: Answer | None,
        username: str,
    ) -> tuple[Answer, DeviceCertificate | None]:
        delivered = former.delivery if former else None
        password = delivered.password if delivered else generate.password()
        device_id = device.id if device else f"dev-{request.id.removeprefix('req-')}"
        certificate = self._certificate(message, request, account, device_id, delivered)
        repeated = delivered if certificate is None and self._certifies(message, account) else None
        endpoint = request.endpoint or account.broker_url
        generated = device_config.generated(endpoint, account.id, request.client_id, username, password)
        delivery = Delivery(
            device_id=device_id,
            account=account.id,
            broker_url=endpoint,
            client_id=request.client_id,
            username=username,
            password=password,
            configuration=device_config.merge(request.configuration, generated),
            packages=request.packages,
            **_papers(certificate or repeated),
        )
        now = self._platform.now()
        answer = Answer(status=Status.PROVISIONED, message_id=message.message_id, server_time=now, delivery=delivery)
        return answer, certificate

    def _certifies(self, message: ProvisionMessage, account: Account) -> bool:
        mode = account.certificates
        return mode is CertificateMode.SERVER_KEY or (mode is CertificateMode.CSR and message.csr is not None)

    def _certificate(
        self,
        message: ProvisionMessage,
        request: ProvisionRequest,
        account: Account,
        device_id: str,
        delivered: Delivery | None,
    ) -> DeviceCertificate | None:
        """A new certificate, or None when the account uses none or the device was already given this key's."""
        authority, now = self._platform.authority, self._platform.now()
        name = self._login_name(account, request.client_id)
        if not self._certifies(message, account):
            if name is not None:
                raise InvalidInput([Problem("csr", "is required: the certificate is the login there", "nothing")])
            return None
        if message.csr is not None:
            before = request.grant.csr_digest if request.grant and delivered else None
            if before == csr_key_digest(message.csr):
                return None
            return authority.for_csr(message.csr, device_id, account.id, now, name)
        if delivered is not None and delivered.private_key is not None:
            return None
        return authority.with_new_key(device_id, account.id, now, name)

    def _login_name(self, account: Account, client_id: str) -> str | None:
        """The common name where the certificate is the login; else None: the device's id will do."""
        broker = self._platform.brokers.get(account.broker)
        return f"{account.id}/{client_id}" if broker and broker.capabilities().certificate_logins else None

    def _unit(
        self,
        address: str,
        message: ProvisionMessage,
        case: Circumstances,
        answer: Answer,
        certificate: DeviceCertificate | None,
        user: AccountUser,
        told_to: str | None,
    ) -> Unit:
        """Request, device, account user and audit row, in one commit (AZ-08)."""
        request = case.request
        granted = self._granted(message, request, answer, certificate, told_to)
        event = AuditEvent(
            at=answer.server_time,
            actor="device",
            action="provision.regranted" if request.grant else "provision.granted",
            account=user.account,
            client_id=request.client_id,
            username=user.username,
            subject=request.id,
            address=address,
            details={"device": user.device_id, "attempt": granted.attempts, "dialect": message.dialect},
        )
        registered = self._device(message, granted, case.device, user)
        return Unit(changes=[Put(granted), Put(registered), Put(user)], audit=[event])

    def _granted(
        self,
        message: ProvisionMessage,
        request: ProvisionRequest,
        answer: Answer,
        certificate: DeviceCertificate | None,
        told_to: str | None,
    ) -> ProvisionRequest:
        before, delivery = request.grant, answer.delivery
        assert delivery is not None
        kept = before.csr_digest if before and delivery.certificate else None
        kept_serial = before.certificate_serial if before and delivery.certificate else None
        kept_end = before.certificate_ends_at if before and delivery.certificate else None
        grant = Grant(
            message_id=message.message_id,
            granted_at=answer.server_time,
            device_id=delivery.device_id,
            username=delivery.username,
            sealed=sealed.seal(self._platform.ring, request.id, answer),
            csr_digest=certificate.key_digest if certificate else kept,
            certificate_serial=certificate.serial if certificate else kept_serial,
            certificate_ends_at=certificate.ends_at if certificate else kept_end,
            told_to=told_to,
        )
        return replace(
            request,
            state=request_move(request.state, RequestMove.GRANT),
            attempts=request.attempts + 1,
            key_failures=0,
            key_blocked_until=None,
            grant=grant,
        )

    def _user(
        self,
        request: ProvisionRequest,
        account: Account,
        delivery: Delivery,
        former: AccountUser | None,
        certificate: DeviceCertificate | None,
    ) -> AccountUser:
        id = account_user_id(account.id, delivery.username)
        return AccountUser(
            id=id,
            account=account.id,
            username=delivery.username,
            client_id=request.client_id,
            broker=account.broker,
            device_id=delivery.device_id,
            verifier=self._platform.ring.verifier(delivery.password, USER_PURPOSE, id),
            created_at=former.created_at if former else self._platform.now(),
            reserved=request.reserve_user,
            coupling=request.coupling.within(account.coupling),
            certificates=(*(former.certificates if former else ()), *([certificate.serial] if certificate else ())),
            version=former.version if former else 0,
        )

    def _device(
        self, message: ProvisionMessage, granted: ProvisionRequest, former: Device | None, user: AccountUser
    ) -> Device:
        # What was seen of it stays: it has credentials of an earlier grant which still hold.
        connection = replace(
            former.connection if former else DeviceConnection(user=user.username),
            user=user.username,
            coupling=granted.coupling,
            reserved_user=user.username if user.reserved else None,
        )
        assert granted.grant is not None
        if former is not None:
            return replace(
                former,
                state=move(former.state, DeviceMove.PROVISION),
                metadata=_told_so_far(former.metadata, message.device),
                request=granted.id,
                connection=connection,
                certificate_serial=granted.grant.certificate_serial,
                certificate_ends_at=granted.grant.certificate_ends_at,
            )
        return Device(
            id=user.device_id,
            account=user.account,
            client_id=user.client_id,
            created_at=self._platform.now(),
            metadata=dict(message.device),
            request=granted.id,
            connection=connection,
            certificate_serial=granted.grant.certificate_serial,
            certificate_ends_at=granted.grant.certificate_ends_at,
        )


def _told_so_far(before: Mapping[str, object], now: Mapping[str, object]) -> dict[str, object]:
    """What a device said of itself lately; as many entries as it may say at once, the newest."""
    entries = {name: value for name, value in before.items() if name not in now} | dict(now)
    return dict(list(entries.items())[-METADATA_ENTRIES_MAX:])


def _as_granted(account: Account, before: AccountUser, delivered: Delivery) -> Account:
    """The account on the broker that the grant was made on: one grant keeps to it until it is re-armed (D7)."""
    if before.broker == account.broker:
        return account
    return replace(account, broker=before.broker, broker_url=delivered.broker_url)
