"""Administration of accounts and of the users in them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from provisioner.model import names
from provisioner.model.account import Account, CertificateMode, Coupling
from provisioner.model.audit import AuditEvent
from provisioner.model.device import Device
from provisioner.model.draft import Fields, read_coupling
from provisioner.model.effect import EffectVerb
from provisioner.model.errors import Conflict, Duplicate, InvalidInput, NotFound, Problem
from provisioner.model.ports import Delete, Noun, Page, Put, Unit
from provisioner.model.request import ProvisionRequest
from provisioner.model.user import AccountUser, ProvisionUser
from provisioner.services.client_ids import check_free_at_broker
from provisioner.services.effects import Effects
from provisioner.services.isolation import is_throw_away
from provisioner.services.orphans import remove_orphans
from provisioner.services.pages import pages
from provisioner.services.platform import Platform
from provisioner.services.stale import again_when_stale

FIELDS = frozenset(("name", "broker", "broker_url", "coupling", "certificates", "enabled"))


class Accounts:
    """Verbs of the noun account. actor: ``admin:<name>``, for the audit. cut: see ``Requests``."""

    def __init__(
        self, platform: Platform, effects: Effects, cut: Callable[[str], object], *, reserved: frozenset[str]
    ) -> None:
        """reserved: names that no account may take: the provision account and the control prefix."""
        self._platform, self._effects, self._cut, self._reserved = platform, effects, cut, reserved

    async def create(self, actor: str, raw: Mapping[str, Any], *, dry_run: bool = False) -> Account:
        """Raises InvalidInput with every problem, Duplicate when the name is taken."""
        fields = Fields(raw, FIELDS)
        name = fields.text("name", names.check_username, required=True) or ""
        if name in self._reserved or is_throw_away(name):
            fields.problem("name", "is reserved for the platform", name)
        broker = self._broker(fields)
        default_url = self._platform.broker_urls.get(broker)
        is_unknown = bool(broker) and broker not in self._platform.brokers  # where it is, nobody can say then
        needs_url = default_url is None and not is_unknown
        url = fields.text("broker_url", names.check_endpoint, required=needs_url) or default_url or ""
        coupling, certificates = self._coupling(fields), self._certificates(fields)
        enabled = fields.flag("enabled") if fields.given("enabled") else True
        self._check_login(fields, broker, certificates)
        fields.finish()
        account = Account(
            id=name,
            broker=broker,
            broker_url=url,
            coupling=coupling,
            certificates=certificates,
            enabled=enabled,
            created_at=self._platform.now(),
        )
        if await self._platform.store.get(Account, name):
            raise Duplicate("account", "name", name)
        await self._commit(actor, "account.create", account, [Put(account)], dry_run)
        return account

    @again_when_stale
    async def update(self, actor: str, name: str, raw: Mapping[str, Any], *, dry_run: bool = False) -> Account:
        """Fields that are not named stay as they are. Disabling cuts every device of the account, at the gate too.

        Another broker is for grants from now on (AZ-14): devices stay where they are until they are re-armed."""
        account = await self.show(name)
        fields = Fields(raw, FIELDS - {"name"})
        readers: dict[str, Callable[[], Any]] = {
            "broker": lambda: self._broker(fields),
            "broker_url": lambda: fields.text("broker_url", names.check_endpoint, required=True),
            "coupling": lambda: self._coupling(fields),
            "certificates": lambda: self._certificates(fields),
            "enabled": lambda: fields.flag("enabled"),
        }
        changed = {key: read() for key, read in readers.items() if raw.get(key) is not None}
        if changed.get("broker", account.broker) != account.broker and "broker_url" not in changed:
            changed["broker_url"] = self._platform.broker_urls.get(changed["broker"], account.broker_url)
        self._check_login(
            fields, changed.get("broker", account.broker), changed.get("certificates", account.certificates)
        )
        fields.finish()
        if "broker" in changed:
            await self._check_carried(name, changed["broker"])
        updated = replace(account, **changed)
        changes: list[Put | Delete] = [Put(updated)]
        users = await self._users(name) if updated.enabled != account.enabled else []
        changes += [await self._effects.plan(EffectVerb.APPLY, user) for user in users]
        await self._commit(actor, "account.update", updated, changes, dry_run, fields=sorted(changed))
        if not dry_run:
            if account.enabled and not updated.enabled:
                users += await self._late(name, frozenset(user.id for user in users))
            if not updated.enabled:
                await self._cut_at_gate(name)
            await self._effects.apply_all(user.id for user in users)
        return updated

    async def delete(self, actor: str, name: str, *, dry_run: bool = False) -> Account:
        """Only an account without requests and users can go. Its provision users go with it: their names are free; so
        do devices that nothing but the registry knows any more, and requests that were made in this very moment."""
        account = await self.show(name)
        for noun, what in ((ProvisionRequest, "requests; delete them"), (AccountUser, "users; revoke their devices")):
            if count := await self._platform.store.count(noun, where={"account": name}):
                raise Conflict(f"account {name} still has {count} {what} first")
        changes: list[Put | Delete] = [Delete(account)]
        changes += map(Delete, await self._platform.store.find(ProvisionUser, "account", name))
        changes += map(Delete, await self._platform.store.find(Device, "account", name))
        await self._commit(actor, "account.delete", account, changes, dry_run)
        if not dry_run:
            for request in await remove_orphans(self._platform, self._effects, actor, name) or ():
                self._cut(request.id)
        return account

    async def show(self, name: str) -> Account:
        account = await self._platform.store.get(Account, name)
        if account is None:
            raise NotFound("account", name)
        return account

    async def page(self, *, after: str | None = None, limit: int = 100) -> Page[Account]:
        return await self._platform.store.page(Account, after=after, limit=limit)

    async def page_users(self, account: str, *, after: str | None = None, limit: int = 100) -> Page[Any]:
        """Users of an account (EC-31), or of the provision account by its name (EC-11)."""
        noun: type[Noun] = ProvisionUser if account in self._reserved else AccountUser
        where = {} if noun is ProvisionUser else {"account": account}
        if noun is AccountUser:
            await self.show(account)
        return await self._platform.store.page(noun, where=where, after=after, limit=limit)

    async def show_user(self, account: str, username: str) -> ProvisionUser | AccountUser:
        if account in self._reserved:
            found: ProvisionUser | AccountUser | None = await self._platform.store.get(ProvisionUser, username)
        else:
            found = await self._platform.store.get(AccountUser, f"{account}/{username}")
        if found is None:
            raise NotFound("user", f"{account}/{username}")
        return found

    def _broker(self, fields: Fields) -> str:
        broker = fields.text("broker", required=True) or ""
        if broker and broker not in self._platform.brokers:
            fields.problem("broker", f"must be one of: {', '.join(sorted(self._platform.brokers))}", broker)
        return broker

    def _check_login(self, fields: Fields, broker: str, mode: CertificateMode) -> None:
        known = self._platform.brokers.get(broker)
        if known is not None and known.capabilities().certificate_logins and mode is CertificateMode.OFF:
            fields.problem("certificates", f"must not be off: on broker {broker} the certificate is the login", mode)

    async def _check_carried(self, name: str, broker: str) -> None:
        """Raises Conflict when a request has a client id that this broker cannot have, or has of another account."""
        can = self._platform.broker(broker).capabilities()
        if not (can.client_id_forbidden or can.home_characters_max or can.client_ids_shared):
            return
        async for requests in pages(self._platform.store, ProvisionRequest, {"account": name}):
            for request in requests:
                if request.is_open and (rule := can.refuses(name, request.client_id)):
                    raise Conflict(f"broker {broker} cannot have the client id of {request.id}: it {rule}")
                if request.is_open:
                    await check_free_at_broker(self._platform, name, request.client_id, broker)

    def _coupling(self, fields: Fields) -> Coupling:
        coupling = read_coupling(fields, "coupling", Coupling.STRICT)
        if coupling is Coupling.INHERITED:
            fields.problem("coupling", "an account's own mode is LOOSE or STRICT", coupling)
        return coupling

    def _certificates(self, fields: Fields) -> CertificateMode:
        value = fields.text("certificates") or CertificateMode.OFF
        try:
            return CertificateMode(value)
        except ValueError:
            fields.problem("certificates", f"must be one of: {', '.join(CertificateMode)}", value)
            return CertificateMode.OFF

    async def _cut_at_gate(self, name: str) -> None:
        """F-08: no answer that is on its way may arrive; a device that comes back is refused in words."""
        async for requests in pages(self._platform.store, ProvisionRequest, {"account": name}):
            for request in requests:
                self._cut(request.id)

    @again_when_stale
    async def _late(self, name: str, known: frozenset[str]) -> list[AccountUser]:
        """Users of a disabled account beside those that are known: they were granted while those were gathered. A grant
        that is committed only now finds the account disabled when it brings its user to the broker."""
        late = [user for user in await self._users(name) if user.id not in known]
        if late:
            changes = [await self._effects.plan(EffectVerb.APPLY, user) for user in late]
            await self._platform.store.commit(Unit(changes=changes))
        return late

    async def _users(self, name: str) -> list[AccountUser]:
        found = pages(self._platform.store, AccountUser, {"account": name})
        return [user async for users in found for user in users]

    async def _commit(
        self, actor: str, action: str, account: Account, changes: list[Put | Delete], dry_run: bool, **details: Any
    ) -> None:
        if dry_run:
            return
        event = AuditEvent(
            at=self._platform.now(),
            actor=actor,
            action=action,
            account=account.id,
            subject=account.id,
            details=details,
        )
        await self._platform.store.commit(Unit(changes=changes, audit=[event]))


def require_account(account: Account | None, name: str) -> Account:
    """The account, or InvalidInput that names the field: for records that are made in an account."""
    if account is None:
        raise no_account(name)
    return account


def no_account(name: str) -> InvalidInput:
    return InvalidInput([Problem("account", "must be the name of an existing account", f"{name!r}")])
