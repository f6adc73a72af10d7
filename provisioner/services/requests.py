"""Administration of provision requests: the life cycle that people drive."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from provisioner.model import device_config, draft
from provisioner.model.account import Account
from provisioner.model.audit import AuditEvent
from provisioner.model.decision import Decision, explain
from provisioner.model.device import Device
from provisioner.model.effect import EffectVerb
from provisioner.model.errors import Conflict, IllegalMove, NotFound
from provisioner.model.ports import Delete, Page, Put, Unit
from provisioner.model.request import Approval, ProvisionRequest, RequestMove, RequestState, move
from provisioner.model.secret import Secret
from provisioner.model.user import AccountUser
from provisioner.services.client_ids import check_free_at_broker
from provisioner.services.effects import Effects
from provisioner.services.explaining import circumstances
from provisioner.services.platform import Platform
from provisioner.services.request_making import Made, RequestMaking
from provisioner.services.stale import again_when_stale


@dataclass(frozen=True, slots=True)
class Preview:
    """The configuration that a device would be given, its password left out, and the paths that are overridden."""

    configuration: Mapping[str, Any]
    overridden: list[str]


class Requests:
    """Verbs of the noun request. actor: ``admin:<name>``, for the audit. cut: closes the connection of a request
    at the gate, if there is one (F-08)."""

    def __init__(self, platform: Platform, effects: Effects, cut: Callable[[str], object]) -> None:
        self._platform, self._effects, self._cut = platform, effects, cut
        self.making = RequestMaking(platform, effects)

    async def create(self, actor: str, raw: Mapping[str, Any], *, dry_run: bool = False) -> Made:
        """One request. Raises InvalidInput with every problem, Duplicate, Conflict, LimitReached; then nothing
        was stored. Secrets that were generated are in the result and can never be read again."""
        return await self.making.make(actor, draft.read_request(raw, self._platform.now()), dry_run=dry_run)

    async def show(self, id: str) -> ProvisionRequest:
        request = await self._platform.store.get(ProvisionRequest, id)
        if request is None:
            raise NotFound("request", id)
        return request

    async def find(self, id_or_client_id: str) -> ProvisionRequest:
        """By id, else the one request (an open one first) with that client id."""
        request = await self._platform.store.get(ProvisionRequest, id_or_client_id)
        if request is not None:
            return request
        found = await self._platform.store.find(ProvisionRequest, "any_client_id", id_or_client_id)
        chosen = [r for r in found if r.is_open] or list(found)
        if not chosen:
            raise NotFound("request", id_or_client_id)
        if len(chosen) > 1:
            raise Conflict(f"{len(chosen)} requests have this client id; name one by its id: {chosen[0].id}, ...")
        return chosen[0]

    async def page(
        self, *, where: Mapping[str, str] | None = None, after: str | None = None, limit: int = 100
    ) -> Page[ProvisionRequest]:
        return await self._platform.store.page(ProvisionRequest, where=where, after=after, limit=limit)

    @again_when_stale
    async def update(self, actor: str, id: str, raw: Mapping[str, Any], *, dry_run: bool = False) -> ProvisionRequest:
        """Fields that are not named stay as they are; a closed request is no longer changed."""
        request = await self.find(id)
        changed = draft.read_update(raw)
        if not request.is_open:
            raise IllegalMove(f"a {request.state} request is no longer changed; re-arm it first")
        updated = replace(request, **changed)
        await self._commit(actor, "request.update", updated, [Put(updated)], dry_run, fields=sorted(changed))
        return updated

    @again_when_stale
    async def delete(self, actor: str, id: str, *, dry_run: bool = False) -> ProvisionRequest:
        """Forget the request; the credentials of a device that it granted but never confirmed go with it."""
        request = await self.find(id)
        changes = [Delete(request), *await self._without_unconfirmed(request)]
        await self._commit(actor, "request.delete", request, changes, dry_run)
        await self._after_cut(request, dry_run)
        return request

    @again_when_stale
    async def revoke(self, actor: str, id: str, *, dry_run: bool = False) -> ProvisionRequest:
        """End it now: the connection at the gate is cut, unconfirmed credentials die. A confirmed device stays:
        ``Devices.revoke`` ends that one."""
        request = await self.find(id)
        revoked = request.revoked()
        changes = [Put(revoked), *await self._without_unconfirmed(request)]
        await self._commit(actor, "request.revoke", revoked, changes, dry_run)
        await self._after_cut(request, dry_run)
        return revoked

    @again_when_stale
    async def rearm(self, actor: str, id: str, *, cut: bool = False, dry_run: bool = False) -> ProvisionRequest:
        """Open it again for a new grant with new credentials; wrong keys and attempts are forgotten.

        A confirmed device keeps its present credentials until the new ones are confirmed; with ``cut`` they end now,
        so that a device which nobody can touch is refused where it is and comes back to the gate (AZ-14)."""
        request = await self.find(id)
        state = move(request.state, RequestMove.REARM)
        await self._check_free(request)
        armed = replace(
            request,
            state=state,
            arm=request.arm + 1,
            attempts=0,
            key_failures=0,
            key_blocked_until=None,
            confirmed_at=None,
            grant=None,
            epoch=self._platform.epoch,
        )
        changes = [Put(armed), *await self._without_unconfirmed(request)]
        users = await self._users_left(request, changes) if cut else []
        for user in users:
            changes += [Delete(user), await self._effects.plan(EffectVerb.REMOVE, user)]
        await self._commit(actor, "request.rearm", armed, changes, dry_run, arm=armed.arm, cut=cut)
        await self._after_cut(request, dry_run)
        if not dry_run:
            await self._effects.apply_all(user.id for user in users)
        return armed

    @again_when_stale
    async def decide_approval(
        self, actor: str, id: str, approval: Approval, *, dry_run: bool = False
    ) -> ProvisionRequest:
        """Approve or reject a request that waits for it, or that was restored from a backup (F-40); a rejected one
        can still be approved."""
        request, epoch = await self.find(id), self._platform.epoch
        waits = request.is_open and request.approval is not Approval.NOT_REQUIRED
        if not waits and not request.is_restored(epoch):
            raise IllegalMove(f"request {request.id} does not wait for approval")
        decided = replace(request, approval=approval, epoch=epoch)
        action = "request.approve" if approval is Approval.APPROVED else "request.reject"
        await self._commit(actor, action, decided, [Put(decided)], dry_run)
        return decided

    async def explain(self, id: str, at: str | None = None) -> tuple[ProvisionRequest, Decision]:
        """Every check that the gate would make at that instant (RFC 3339; None: now), given the right key."""
        request = await self.find(id)
        instant = self._platform.now()
        if at is not None:
            fields = draft.Fields({"at": at}, frozenset(("at",)))
            instant = fields.instant("at") or instant
            fields.finish()
        return request, explain(await circumstances(self._platform, request, instant))

    async def preview(self, id: str) -> Preview:
        """EC-29: what would be delivered, and what of the additional configuration the gate overrides."""
        request = await self.find(id)
        account = await self._platform.store.get(Account, request.account)
        endpoint = request.endpoint or (account.broker_url if account else "")
        generated = device_config.generated(endpoint, request.account, request.client_id, "(generated)", Secret(""))
        merged = device_config.merge(request.configuration, generated)
        merged[device_config.TRANSPORT_PID]["password"] = "(generated)"
        return Preview(merged, device_config.overridden(request.configuration))

    async def _check_free(self, request: ProvisionRequest) -> None:
        """Raises Conflict when another account took its client id at the broker while it was closed (F-05)."""
        account = await self._platform.store.get(Account, request.account)
        if account is not None:
            await check_free_at_broker(self._platform, account.id, request.client_id, account.broker)

    async def _without_unconfirmed(self, request: ProvisionRequest) -> list[Put | Delete]:
        """The changes that take away the user of a grant that was never confirmed, and its device record."""
        if request.state is not RequestState.GRANTED or request.grant is None:
            return []
        changes: list[Put | Delete] = []
        user = await self._platform.store.get(AccountUser, f"{request.account}/{request.grant.username}")
        if user is not None:
            changes += [Delete(user), await self._effects.plan(EffectVerb.REMOVE, user)]
        device = await self._platform.store.get(Device, request.grant.device_id)
        if device is not None and device.connection.last_seen_at is None:
            changes.append(Delete(device))
        return changes

    async def _users_left(self, request: ProvisionRequest, changes: list[Put | Delete]) -> list[AccountUser]:
        """The users of the device that these changes leave it."""
        if request.grant is None:
            return []
        gone = {change.noun.id for change in changes if isinstance(change.noun, AccountUser)}
        users = await self._platform.store.find(AccountUser, "device", request.grant.device_id)
        return [user for user in users if user.id not in gone]

    async def _after_cut(self, request: ProvisionRequest, dry_run: bool) -> None:
        if dry_run:
            return
        self._cut(request.id)
        if request.grant is not None:
            await self._effects.apply_all([f"{request.account}/{request.grant.username}"])

    async def _commit(
        self,
        actor: str,
        action: str,
        request: ProvisionRequest,
        changes: list[Put | Delete],
        dry_run: bool,
        **details: Any,
    ) -> None:
        if dry_run:
            return
        event = AuditEvent(
            at=self._platform.now(),
            actor=actor,
            action=action,
            account=request.account,
            client_id=request.client_id,
            username=request.username,
            subject=request.id,
            details=details,
        )
        await self._platform.store.commit(Unit(changes=changes, audit=[event]))
