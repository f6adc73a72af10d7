"""Making provision requests: one from a draft, or a file's rows, each applied or reported by its line."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from provisioner.model import device_config, draft, names
from provisioner.model.account import Account
from provisioner.model.audit import AuditEvent
from provisioner.model.draft import RequestDraft
from provisioner.model.errors import (
    Conflict,
    Duplicate,
    FleetgateError,
    InvalidInput,
    LimitReached,
    Problem,
    Unavailable,
    shape,
)
from provisioner.model.ports import Put, Unit
from provisioner.model.request import Approval, ProvisionRequest
from provisioner.model.secret import Secret
from provisioner.model.user import ProvisionUser
from provisioner.services.accounts import require_account
from provisioner.services.client_ids import check_free_at_broker
from provisioner.services.crashpoints import reach
from provisioner.services.platform import KEY_PURPOSE, Platform
from provisioner.vault import generate


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A new request with the secrets that are shown this once. password: None when it was not generated here."""

    request: ProvisionRequest
    password: Secret | None = None
    activation_key: Secret | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """What became of one row. line: as people count, in the file. made or error, never both."""

    line: int
    made: Made | None = None
    error: FleetgateError | None = None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Checked against the store, and not committed. touches_user: the unit makes or changes the provision user."""

    made: Made
    unit: Unit
    touches_user: bool


@dataclass(slots=True)
class _Batch:
    """Rows that one commit makes, for none of them changes what another one was checked against."""

    rows: list[tuple[int, int, _Prepared]] = field(default_factory=list)  # place, line
    _client_ids: set[str] = field(default_factory=set)
    _usernames: set[str] = field(default_factory=set)
    _delicate_usernames: set[str] = field(default_factory=set)  # new, changed, or used without a key

    def meets(self, wanted: RequestDraft) -> bool:
        """Whether this row has to see what an earlier one of the batch makes."""
        names_met = self._delicate_usernames if wanted.activation_key else self._usernames
        return wanted.username in names_met or names.case_folded(wanted.client_id) in self._client_ids

    def add(self, place: int, line: int, wanted: RequestDraft, prepared: _Prepared) -> None:
        self.rows.append((place, line, prepared))
        self._client_ids.add(names.case_folded(wanted.client_id))
        self._usernames.add(wanted.username)
        if prepared.touches_user or not wanted.activation_key:
            self._delicate_usernames.add(wanted.username)

    def unit(self) -> Unit:
        units = [prepared.unit for _, _, prepared in self.rows]
        return Unit(
            [change for unit in units for change in unit.changes], [row for unit in units for row in unit.audit]
        )


class RequestMaking:
    """Checks what only the store can tell, then commits request, provision user and audit row together."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def make(self, actor: str, wanted: RequestDraft, *, dry_run: bool = False) -> Made:
        """Raises InvalidInput, Duplicate, Conflict or LimitReached; then nothing was stored."""
        prepared = await self._prepare(actor, wanted)
        if not dry_run:
            await self._commit(prepared.unit)
        return prepared.made

    async def _prepare(self, actor: str, wanted: RequestDraft) -> _Prepared:
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
        return _Prepared(made, unit, touches_user=user is not stored)

    async def _commit(self, unit: Unit) -> None:
        reach("before_commit")
        await self._platform.store.commit(unit)
        reach("after_request_create")

    async def make_all(
        self, actor: str, rows: Sequence[tuple[int, Mapping[str, Any]]], *, dry_run: bool = False
    ) -> list[RowResult]:
        """Each row by itself; a bad one stops no other. Rows that have nothing to do with each other share a commit.

        Raises Unavailable when nothing was made; when the store fails later, the rows behind that have no result."""
        if dry_run:
            return await self._try_all(actor, rows)
        results: dict[int, RowResult] = {}
        batch = _Batch()
        try:
            for place, (line, raw) in enumerate(rows):
                try:
                    wanted = draft.read_request(raw, self._platform.now())
                    if batch.meets(wanted):
                        whole, batch = batch, _Batch()
                        await self._make_batch(whole, results)
                    batch.add(place, line, wanted, await self._prepare(actor, wanted))
                except Unavailable:
                    raise
                except FleetgateError as error:
                    results[place] = RowResult(line=line, error=error)
            await self._make_batch(batch, results)
        except Unavailable:
            if not any(result.made for result in results.values()):
                raise
        return [results[place] for place in itertools.takewhile(results.__contains__, range(len(rows)))]

    async def _try_all(self, actor: str, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> list[RowResult]:
        """Nothing is stored, so that rows which collide with each other are found here."""
        results = []
        seen: set[str] = set()
        for line, raw in rows:
            try:
                wanted = draft.read_request(raw, self._platform.now())
                made = await self.make(actor, wanted, dry_run=True)
                if wanted.client_id in seen:
                    raise Duplicate("request", "client_id", "an earlier row")
                seen.add(wanted.client_id)
                results.append(RowResult(line=line, made=made))
            except Unavailable:
                raise
            except FleetgateError as error:
                results.append(RowResult(line=line, error=error))
        return results

    async def _make_batch(self, batch: _Batch, results: dict[int, RowResult]) -> None:
        """All in one commit; where that is refused, one by one, so that only those fail that must."""
        if not batch.rows:
            return
        try:
            await self._commit(batch.unit())
        except (Conflict, LimitReached):
            for place, line, prepared in batch.rows:
                results[place] = await self._make_row(line, prepared)
        else:
            for place, line, prepared in batch.rows:
                results[place] = RowResult(line=line, made=prepared.made)

    async def _make_row(self, line: int, prepared: _Prepared) -> RowResult:
        try:
            await self._commit(prepared.unit)
        except (Conflict, LimitReached) as error:
            return RowResult(line=line, error=error)
        return RowResult(line=line, made=prepared.made)

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
