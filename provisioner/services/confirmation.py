"""Confirmation: a device that was seen on its account broker is done, and what was sealed for it is erased (D7)."""

import asyncio
import logging
from collections.abc import Sequence
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
from provisioner.services.attendance import Attendance
from provisioner.services.crashpoints import reach
from provisioner.services.effects import Effects
from provisioner.services.platform import Platform
from provisioner.services.subject import about
from provisioner.services.turns import Turns

log = logging.getLogger(__name__)

SEEN_RESOLUTION = timedelta(seconds=60)  # a device that reconnects more often does not write more often
AGAIN_S = 1.0
SHUT_OUT = (DeviceState.DISABLED, DeviceState.REVOKED)


class Confirmation:
    """Takes sightings from every account broker and brings the registry up to date."""

    def __init__(self, platform: Platform, effects: Effects) -> None:
        self._platform, self._effects = platform, effects
        self._turns = Turns(self._note_in_time)

    def seen(self, sighting: Sighting) -> None:
        """Never blocks."""
        self._turns.take(sighting)

    @property
    def waiting(self) -> int:
        """How many sightings are not noted yet."""
        return self._turns.count

    async def run(self) -> None:
        """Note sightings, several devices' at once so that they share a commit; until cancelled."""
        await self._turns.run()

    async def _note_in_time(self, sightings: Sequence[Sighting]) -> bool:
        last = sightings[-1]
        with about(client_id=last.client_id, account=last.account, address=last.address):
            while True:
                try:
                    return await self.note(sightings)
                except Conflict:
                    continue
                except Unavailable as error:
                    log.warning("a sighting waits: %s", error)
                    await asyncio.sleep(AGAIN_S)

    async def note(self, sightings: Sequence[Sighting]) -> bool:
        """Note what happened to one client id of an account, in order; whether anything was written. Raises Conflict
        when a record moved on meanwhile, Unavailable."""
        device = await self._device(sightings[0])
        if device is None:
            return False
        request = await self._platform.store.get(ProvisionRequest, device.request)
        first: Sighting | None = None
        attendance = Attendance(device.connection, self._platform.now())
        for sighting in sightings:
            if not sighting.connected:
                attendance.see(sighting)
                continue
            user = await self._platform.store.get(AccountUser, account_user_id(sighting.account, sighting.username))
            if user is None or user.device_id != device.id:
                continue
            is_first = first is None and self._is_first(request, sighting)
            if is_first or device.state not in SHUT_OUT:
                attendance.see(sighting, tells_leaving=self._tells_leaving(user))
            first = sighting if is_first else first
        return await self._write(device, request, first, attendance)

    async def _write(
        self, device: Device, request: ProvisionRequest | None, first: Sighting | None, attendance: Attendance
    ) -> bool:
        for former, sighting in attendance.taken_over:
            self._note_take_over(device, former, sighting)
        seen = _seen(device, attendance)
        if first is not None:
            assert request is not None
            await self._confirm(request, seen, first)
        elif attendance.is_news(SEEN_RESOLUTION):
            await self._platform.store.commit(Unit(changes=[Put(seen)]))
        else:
            return False
        return True

    async def _device(self, sighting: Sighting) -> Device | None:
        found = await self._platform.store.find(Device, "any_client_id", sighting.client_id)
        return next((device for device in found if device.account == sighting.account), None)

    def _tells_leaving(self, user: AccountUser) -> bool:
        broker = self._platform.brokers.get(user.broker)
        return broker is not None and broker.capabilities().reports_leaving

    def _note_take_over(self, device: Device, former: str | None, sighting: Sighting) -> None:
        """The newest connection wins; that it came from somewhere else may be an attack, or a device that moved."""
        self._platform.audit.note(
            AuditEvent(
                at=self._platform.now(),
                actor="device",
                action="device.taken_over",
                account=device.account,
                client_id=device.client_id,
                username=sighting.username,
                subject=device.id,
                address=sighting.address,
                details={"former_address": former},
            )
        )

    def _is_first(self, request: ProvisionRequest | None, sighting: Sighting) -> bool:
        """Only the granted credentials confirm; those of a former grant are merely a sighting."""
        if request is None or request.state is not RequestState.GRANTED or request.grant is None:
            return False
        return request.grant.username == sighting.username

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
        changes: list[Put | Delete] = [Put(confirmed), Put(device)]
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


def _seen(device: Device, attendance: Attendance) -> Device:
    """The device as it was seen; one that arrived has used its credentials."""
    arrived = attendance.has_arrived and device.state not in SHUT_OUT
    state = move(device.state, DeviceMove.SEE) if arrived else device.state
    return replace(device, state=state, connection=attendance.connection)
