"""Making provision requests: what a draft becomes, checked against the store."""

from dataclasses import dataclass, replace

from provisioner.model import device_config, names
from provisioner.model.account import Account
from provisioner.model.audit import AuditEvent
from provisioner.model.draft import RequestDraft
from provisioner.model.errors import (
    Conflict,
    Duplicate,
    InvalidInput,
    Problem,
    shape,
)
from provisioner.model.ports import Put, Unit
from provisioner.model.request import Approval, ProvisionRequest
from provisioner.model.secret import Secret
from provisioner.model.user import ProvisionUser
from provisioner.services.accounts import no_account, require_account
from provisioner.services.client_ids import check_free_at_broker
from provisioner.services.crashpoints import reach
from provisioner.services.effects import Effects
from provisioner.services.orphans import remove_orphans
from provisioner.services.platform import KEY_PURPOSE, Platform
from provisioner.vault import generate


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A new request with the secrets that are shown this once. password: None when it was not generated here."""

    request: ProvisionRequest
    password: Secret | None = None
    activation_key: Secret | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """Checked against the store, and not committed. touches_user: the unit makes or changes the provision user."""

    made: Made
    unit: Unit
    touches_user: bool


class RequestMaking:
    """Checks what only the store can tell, then commits request, provision user and audit row together."""

    def __init__(self, platform: Platform, effects: Effects) -> None:
        self._platform, self._effects = platform, effects

    async def make(self, actor: str, wanted: RequestDraft, *, dry_run: bool = False) -> Made:
        """Raises InvalidInput, Duplicate, Conflict or LimitReached; then nothing was stored."""
        prepared = await self.prepare(actor, wanted)
        if not dry_run and await self.commit(prepared.unit):
            raise no_account(wanted.account)
        return prepared.made

    async def prepare(self, actor: str, wanted: RequestDraft) -> Prepared:
        """All but the commit. Raises InvalidInput, Duplicate or Conflict."""
        account = require_account(await self._platform.store.get(Account, wanted.account), wanted.account)
        self._check_broker(wanted, account)
        stored = await self._platform.store.get(ProvisionUser, wanted.username)
        user, password = await self._user(wanted, account, stored)
        warnings = await self._check_client_id(wanted)
        await check_free_at_broker(self._platform, account.id, wanted.client_id, account.broker)
        await self._check_shared(wanted, user)
        warnings += tuple(
            f"configuration: {path} is overridden by the gate"
            for path in device_config.overridden(wanted.configuration)
        )
        key = generate.activation_key() if wanted.activation_key else None
        request = self._request(actor, wanted, key)
        made = Made(request=request, password=password, activation_key=key, warnings=warnings)
        unit = self._unit(actor, request, None if user is stored else user)
        return Prepared(made, unit, touches_user=user is not stored)

    async def commit(self, unit: Unit) -> frozenset[str]:
        """Of one prepared request or of many. Names the accounts that were deleted meanwhile: their requests are gone
        again, all others are made. Raises what ``Store.commit`` does."""
        reach("before_commit")
        await self._platform.store.commit(unit)
        reach("after_request_create")
        accounts = {change.noun.account for change in unit.changes if isinstance(change.noun, ProvisionRequest)}
        return frozenset([account for account in accounts if await self._is_gone(account, unit.audit[0].actor)])

    async def _is_gone(self, account: str, actor: str) -> bool:
        return await remove_orphans(self._platform, self._effects, actor, account) is not None

    async def _user(
        self, wanted: RequestDraft, account: Account, stored: ProvisionUser | None
    ) -> tuple[ProvisionUser, Secret | None]:
        """The provision user, new or the account's own (EC-11, EC-12), and the password if it was generated."""
        if stored is None:
            password = wanted.password or generate.password()
            verifier = await self._platform.passwords.verifier(wanted.username, password)
            created = ProvisionUser(
                id=wanted.username,
                account=account.id,
                verifier=verifier,
                created_at=self._platform.now(),
                link_verifier=await self._link_verifier(wanted.username, password),
            )
            return created, None if wanted.password else password
        if stored.account != account.id:
            raise Duplicate("account", "username", "username is unique across the platform")
        if wanted.password is not None and not await self._platform.passwords.verify(
            stored, wanted.password, wanted.username
        ):
            raise Conflict(
                f"username {wanted.username} exists with another password; leave the password out to reuse it"
            )
        return await self._with_link_verifier(stored, wanted.password), None

    async def _with_link_verifier(self, stored: ProvisionUser, password: Secret | None) -> ProvisionUser:
        """A user that was made before there was another broker in the place of the gate becomes known to it here, the
        first time that its password is told again."""
        if self._platform.link_logins is None or stored.link_verifier is not None:
            return stored
        if password is None:
            rule = f"is required: {stored.id} was made before provision_link, and only the password makes it known"
            raise InvalidInput([Problem("password", rule, "none")])
        return replace(stored, link_verifier=await self._link_verifier(stored.id, password))

    async def _link_verifier(self, username: str, password: Secret) -> str | None:
        logins = self._platform.link_logins
        return await logins.verifier(username, password) if logins is not None else None

    def _check_broker(self, wanted: RequestDraft, account: Account) -> None:
        """F-09: what a name may not contain on the broker where the device will live."""
        broker = self._platform.brokers.get(account.broker)
        if broker is not None and (rule := broker.capabilities().refuses(account.id, wanted.client_id)):
            rule = f"{rule}, as account broker {account.broker} cannot have it"
            raise InvalidInput([Problem("client_id", rule, shape(wanted.client_id))])

    async def _check_client_id(self, wanted: RequestDraft) -> tuple[str, ...]:
        """EC-07, EC-08, F-10; the unique index decides again at the commit."""
        policy, store = self._platform.policy, self._platform.store
        notes = tuple(f"client_id: {rule}" for rule in names.warn_client_id(wanted.client_id))
        if notes and policy.strict_mqtt31:
            rules = names.warn_client_id(wanted.client_id)
            raise InvalidInput([Problem("client_id", rule, shape(wanted.client_id)) for rule in rules])
        alike = await store.find(ProvisionRequest, "folded_client_id", names.case_folded(wanted.client_id))
        for other in alike:
            foreign = policy.client_id_scope == "account" and other.account != wanted.account
            if not other.is_open or foreign:
                continue
            if other.client_id == wanted.client_id:
                raise Duplicate("request", "client_id", other.id)
            if policy.refuse_case_variants:
                raise Conflict(f"client_id differs from that of {other.id} only in case or look-alike letters")
            notes += (f"client_id: differs from that of {other.id} only in case or look-alike letters",)
        return notes

    async def _check_shared(self, wanted: RequestDraft, user: ProvisionUser) -> None:
        """Shared credentials need a key on every request that they open (policy; F-22)."""
        if not self._platform.policy.shared_credentials_require_key or user.version == 0:
            return
        # A broker that lets the holder of a login speak for all of its requests does so for devices that are done, too.
        index = "open_username" if self._platform.link_logins is None else "username"
        rule = "shared credentials require an activation key (shared_credentials_require_key)"
        if not wanted.activation_key and await self._any_with(index, wanted.username) is not None:
            raise InvalidInput([Problem("activation_key", f"is required: {rule}", "no key wanted")])
        keyless = await self._any_with("open_keyless_username", wanted.username)
        if keyless is not None:
            raise Conflict(f"request {keyless.id} uses the same username without an activation key; {rule}")

    async def _any_with(self, index: str, value: str) -> ProvisionRequest | None:
        """One is enough: a username may be that of a hundred thousand devices."""
        page = await self._platform.store.page(ProvisionRequest, where={index: value}, limit=1)
        return page.items[0] if page.items else None

    def _request(self, actor: str, wanted: RequestDraft, key: Secret | None) -> ProvisionRequest:
        now = self._platform.now()
        id = generate.record_id("req", now)
        scope = wanted.account if self._platform.policy.client_id_scope == "account" else ""
        verifier = self._platform.ring.verifier(generate.normal_key(key), KEY_PURPOSE, id) if key else None
        return ProvisionRequest(
            id=id,
            account=wanted.account,
            client_id=wanted.client_id,
            client_id_claim=f"{scope}/{wanted.client_id}",
            username=wanted.username,
            activates_on=wanted.activates_on or now,
            expires_on=wanted.expires_on,
            key_verifier=verifier,
            endpoint=wanted.endpoint,
            reserve_user=wanted.reserve_user,
            coupling=wanted.coupling,
            configuration=wanted.configuration,
            packages=wanted.packages,
            max_attempts=wanted.max_attempts,
            approval=Approval.AWAITING if wanted.require_approval else Approval.NOT_REQUIRED,
            created_at=now,
            created_by=actor,
            epoch=self._platform.epoch,
        )

    def _unit(self, actor: str, request: ProvisionRequest, user: ProvisionUser | None) -> Unit:
        event = AuditEvent(
            at=request.created_at,
            actor=actor,
            action="request.create",
            account=request.account,
            client_id=request.client_id,
            username=request.username,
            subject=request.id,
            details={"activation_key": request.key_verifier is not None},
        )
        changes = [Put(request)] if user is None else [Put(user), Put(request)]
        return Unit(changes=changes, audit=[event])
