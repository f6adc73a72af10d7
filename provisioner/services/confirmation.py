"""Confirmation: a device that was seen on its account broker is done, and what was sealed for it is erased (D7)."""

import asyncio
import contextlib
import logging
from dataclasses import replace
from datetime import timedelta

from provisioner.model.audit import AuditEvent
from provisioner.model.device import Device, DeviceMove, DeviceState, move
from provisioner.model.effect import EffectVerb
from provisioner.model.errors import Conflict, Unavailable
from provisioner.model.ports import Delete, Put, Sighting, Unit
from provisioner.model.request import ProvisionRequest, RequestMove, RequestState
from provisioner.model.request import move as request_move
from provisioner.model.user import AccountUser, account_user_id
from provisioner.services.crashpoints import reach
from provisioner.services.effects import Effects
from provisioner.services.platform import Platform
from provisioner.services.subject import about

log = logging.getLogger(__name__)

SEEN_RESOLUTION = timedelta(seconds=60)  # a device that reconnects more often does not write more often
WAITING_MAX = 100_000
_AT_ONCE_MAX = 64


class Confirmation:
    """Takes sightings from every account broker and brings the registry up to date."""

    def __init__(self, platform: Platform, effects: Effects) -> None:
        self._platform, self._effects = platform, effects
        self._sightings: asyncio.Queue[Sighting] = asyncio.Queue(WAITING_MAX)
        self._free = asyncio.Semaphore(_AT_ONCE_MAX)

    def seen(self, sighting: Sighting) -> None:
        """Never blocks. A sighting that finds the queue full is dropped: the device's next one will do."""
        if sighting.connected:
            with contextlib.suppress(asyncio.QueueFull):
                self._sightings.put_nowait(sighting)

    async def run(self) -> None:
        """Handle sightings, several at once so that they share a commit; until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._free.acquire()
                try:
                    sighting = await self._sightings.get()
                except asyncio.CancelledError:
                    self._free.release()
                    raise
                group.create_task(self._handle(sighting))

    async def _handle(self, sighting: Sighting) -> None:
        try:
            with about(client_id=sighting.client_id, account=sighting.account, address=sighting.address):
                await self._settle(sighting)
        finally:
            self._free.release()

    async def _settle(self, sighting: Sighting) -> None:
        while True:
            try:
                return await self.confirm(sighting)
            except Conflict:
                continue
            except Unavailable as error:
                log.warning("a sighting waits: %s", error)
                await asyncio.sleep(1.0)

    async def confirm(self, sighting: Sighting) -> None:
        """Note one sighting. Raises Conflict when a record moved on meanwhile, Unavailable."""
        store = self._platform.store
        user = await store.get(AccountUser, account_user_id(sighting.account, sighting.username))
        device = await store.get(Device, user.device_id) if user else None
        if user is None or device is None or device.client_id != sighting.client_id:
            return
        request = await store.get(ProvisionRequest, device.request)
        if self._is_first(request, sighting):
            assert request is not None
            await self._confirm(request, device, sighting)
        elif device.state is not DeviceState.DISABLED and self._is_news(device):
            await store.commit(Unit(changes=[Put(self._touched(device, sighting))]))

    def _is_first(self, request: ProvisionRequest | None, sighting: Sighting) -> bool:
        """Only the granted credentials confirm; those of a former grant are merely a sighting."""
        if request is None or request.state is not RequestState.GRANTED or request.grant is None:
            return False
        return request.grant.username == sighting.username

    def _is_news(self, device: Device) -> bool:
        last = device.connection.last_seen_at
        return last is None or abs(self._platform.now() - last) >= SEEN_RESOLUTION  # a clock may be set back (F-32)

    async def _confirm(self, request: ProvisionRequest, device: Device, sighting: Sighting) -> None:
        now = self._platform.now()
        assert request.grant is not None
        confirmed = replace(
            request,
            state=request_move(request.state, RequestMove.CONFIRM),
            confirmed_at=now,
            grant=replace(request.grant, sealed=None),
        )
        took_s = (now - request.grant.granted_at).total_seconds()
        event = AuditEvent(
            at=now,
            actor="device",
            action="provision.confirmed",
            account=device.account,
            client_id=device.client_id,
            username=sighting.username,
            subject=request.id,
            address=sighting.address,
            details={"device": device.id, "late": took_s > self._platform.policy.confirm_within_s},
        )
        changes: list[Put | Delete] = [Put(confirmed), Put(self._touched(device, sighting))]
        former = await self._former_users(device, sighting.username)
        for user in former:
            changes += [Delete(user), await self._effects.plan(EffectVerb.REMOVE, user)]
        reach("before_confirm_commit")
        await self._platform.store.commit(Unit(changes=changes, audit=[event]))
        reach("after_confirm_commit")
        await self._effects.apply_all(user.id for user in former)

    async def _former_users(self, device: Device, username: str) -> list[AccountUser]:
        """Users that earlier grants made for the device: it has left them behind now."""
        users = await self._platform.store.find(AccountUser, "device", device.id)
        return [user for user in users if user.username != username]

    def _touched(self, device: Device, sighting: Sighting) -> Device:
        seen = replace(device.connection, last_seen_at=self._platform.now(), address=sighting.address)
        state = device.state if device.state is DeviceState.DISABLED else move(device.state, DeviceMove.SEE)
        return replace(device, state=state, connection=seen)
