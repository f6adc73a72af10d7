"""Administration of the device registry: what is there, disable, enable, revoke, kick."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from provisioner.model.audit import AuditEvent
from provisioner.model.device import Device, DeviceMove, move
from provisioner.model.effect import EffectVerb
from provisioner.model.errors import Conflict, NotFound
from provisioner.model.ports import Delete, Page, Put, Unit
from provisioner.model.request import ProvisionRequest, RequestState
from provisioner.model.user import AccountUser
from provisioner.services.effects import Effects
from provisioner.services.platform import Platform
from provisioner.services.stale import again_when_stale


class Devices:
    """Verbs of the noun device. actor: ``admin:<name>``, for the audit. cut: see ``Requests``."""

    def __init__(self, platform: Platform, effects: Effects, cut: Callable[[str], object]) -> None:
        self._platform, self._effects, self._cut = platform, effects, cut

    async def find(self, id_or_client_id: str, account: str | None = None) -> Device:
        """By id, else by client id; account tells apart devices of one client id."""
        device = await self._platform.store.get(Device, id_or_client_id)
        if device is not None and account in (None, device.account):
            return device
        found = await self._platform.store.find(Device, "any_client_id", id_or_client_id)
        chosen = [d for d in found if account in (None, d.account)]
        if not chosen:
            raise NotFound("device", id_or_client_id)
        if len(chosen) > 1:
            raise Conflict(f"{len(chosen)} accounts have a device {id_or_client_id}; name the account")
        return chosen[0]

    async def page(
        self, *, where: Mapping[str, str] | None = None, after: str | None = None, limit: int = 100
    ) -> Page[Device]:
        return await self._platform.store.page(Device, where=where, after=after, limit=limit)

    async def disable(self, actor: str, id: str, *, account: str | None = None, dry_run: bool = False) -> Device:
        """Cut it off and keep everything; ``enable`` lets the same credentials in again (AZ-05)."""
        return await self._switch(actor, id, account, DeviceMove.DISABLE, dry_run)

    async def enable(self, actor: str, id: str, *, account: str | None = None, dry_run: bool = False) -> Device:
        return await self._switch(actor, id, account, DeviceMove.ENABLE, dry_run)

    @again_when_stale
    async def revoke(self, actor: str, id: str, *, account: str | None = None, dry_run: bool = False) -> Device:
        """End it for good (AZ-04): the users and certificates of every grant, and every request of its client id.

        It stays in the registry; a request that is made or re-armed later gives it new credentials."""
        device = await self.find(id, account)
        state = move(device.state, DeviceMove.REVOKE)
        revoked = replace(device, state=state, certificate_serial=None, certificate_ends_at=None)
        if dry_run:
            return revoked
        users, requests = await self._users(device), await self._requests(device)
        closed = [each.revoked() for each in requests if each.state is not RequestState.REVOKED]
        changes: list[Put | Delete] = [Put(revoked), *map(Put, closed)]
        for user in users:
            changes += [Delete(user), await self._effects.plan(EffectVerb.REMOVE, user)]
        serials = [serial for user in users for serial in user.certificates]
        details = {"users": [user.username for user in users], "certificates": serials}
        events = [self._event(actor, "device.revoke", device, **details)]
        events += [self._closing(actor, device, request) for request in closed]
        await self._platform.store.commit(Unit(changes=changes, audit=events))
        await self._cut_at_gate(device)
        await self._effects.apply_all(user.id for user in users)
        return revoked

    async def kick(self, actor: str, id: str, *, account: str | None = None) -> bool:
        """Cut its live connection to the account broker; it may come back. False when there was none."""
        device = await self.find(id, account)
        cut = False
        for user in await self._users(device):
            cut |= await self._platform.broker(user.broker).kick(device.account, device.client_id)
        await self._platform.store.commit(Unit(audit=[self._event(actor, "device.kick", device)]))
        return cut

    @again_when_stale
    async def _switch(self, actor: str, id: str, account: str | None, what: DeviceMove, dry_run: bool) -> Device:
        device = await self.find(id, account)
        switched = replace(device, state=move(device.state, what))
        if dry_run:
            return switched
        users = await self._users(device)
        changes: list[Put | Delete] = [Put(switched)]
        for user in users:
            changes.append(Put(replace(user, enabled=what is DeviceMove.ENABLE)))
            changes.append(await self._effects.plan(EffectVerb.APPLY, user))
        event = self._event(actor, f"device.{what}", device)
        await self._platform.store.commit(Unit(changes=changes, audit=[event]))
        if what is DeviceMove.DISABLE:
            await self._cut_at_gate(device)
        await self._effects.apply_all(user.id for user in users)
        return switched

    async def _cut_at_gate(self, device: Device) -> None:
        """F-08: what is on its way to it there must not arrive."""
        for request in await self._requests(device):
            self._cut(request.id)

    async def _requests(self, device: Device) -> list[ProvisionRequest]:
        """Whatever lets its client id in at the gate, or did."""
        found = await self._platform.store.find(ProvisionRequest, "any_client_id", device.client_id)
        return [request for request in found if request.account == device.account]

    async def _users(self, device: Device) -> list[AccountUser]:
        return list(await self._platform.store.find(AccountUser, "device", device.id))

    def _closing(self, actor: str, device: Device, request: ProvisionRequest) -> AuditEvent:
        """A row of the request's own: whoever follows the requests in the log learns that this one is closed."""
        return AuditEvent(
            at=self._platform.now(),
            actor=actor,
            action="request.revoke",
            account=request.account,
            client_id=request.client_id,
            username=request.username,
            subject=request.id,
            details={"device": device.id},
        )

    def _event(self, actor: str, action: str, device: Device, **details: Any) -> AuditEvent:
        return AuditEvent(
            at=self._platform.now(),
            actor=actor,
            action=action,
            account=device.account,
            client_id=device.client_id,
            username=device.connection.user,
            subject=device.id,
            details=details,
        )
