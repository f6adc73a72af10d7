"""Admission: which CONNECT may pass the gate (EC-02, EC-03). Everything finer than yes or no is for the audit."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from provisioner.model.audit import AuditEvent
from provisioner.model.ports import Dialect
from provisioner.model.request import ProvisionRequest, RequestState, login_key
from provisioner.model.secret import Secret
from provisioner.model.topics import TopicRights
from provisioner.model.user import ProvisionUser
from provisioner.services.platform import Platform
from provisioner.services.stand_ins import StandIns

_REMEMBERED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Admitted:
    """``request`` is the id of the provision request: the identity that a newer connection takes over by."""

    request: str
    client_id: str
    username: str
    rights: TopicRights


@dataclass(frozen=True, slots=True)
class NotAdmitted:
    """``reason``: unknown_user, password, client_id_mismatch; the device is told none of them."""

    reason: str


class Admission:
    """Client id, username and password must match one request."""

    def __init__(self, platform: Platform, stand_ins: StandIns | None = None) -> None:
        """stand_ins: requests beside those of the store."""
        self._platform, self._stand_ins = platform, stand_ins or StandIns()
        self._last_address: OrderedDict[str, tuple[str, float]] = OrderedDict()

    async def admit(
        self, client_id: str, username: str, password: Secret, address: str, site: str = ""
    ) -> Admitted | NotAdmitted:
        """Decide about one CONNECT. Raises Unavailable when the password cannot be checked now.

        site: what stands for all the addresses that whoever has this one may have."""
        store = self._platform.store
        user = self._stand_ins.user(username) or await store.get(ProvisionUser, username)
        if not await self._platform.passwords.verify(user, password, username, site):
            return NotAdmitted("password" if user else "unknown_user")
        request = await self._request(username, client_id)
        if request is None:
            return NotAdmitted("client_id_mismatch")
        self._watch_addresses(request, address)
        return Admitted(request.id, client_id, username, self.rights(client_id))

    def rights(self, client_id: str) -> TopicRights:
        return rights_of(self._platform.dialects, client_id)

    async def _request(self, username: str, client_id: str) -> ProvisionRequest | None:
        """The open request, else a confirmed one: its device is told so rather than left in the dark."""
        if (stand_in := self._stand_ins.request(username, client_id)) is not None:
            return stand_in
        store, login = self._platform.store, login_key(username, client_id)
        for request in await store.find(ProvisionRequest, "login", login):
            return request
        for request in await store.find(ProvisionRequest, "any_login", login):
            if request.state is RequestState.CONFIRMED:
                return request
        return None

    def came_from(self, request_id: str, address: str) -> None:
        """The device of that request came to a gate, ours or another one."""
        self._last_address.pop(request_id, None)
        self._last_address[request_id] = (address, self._platform.now().timestamp())
        if len(self._last_address) > _REMEMBERED_MAX:
            self._last_address.popitem(last=False)

    def _watch_addresses(self, request: ProvisionRequest, address: str) -> None:
        """F-22: the same client id from two addresses within a minute is an alert, not a refusal."""
        now, before = self._platform.now(), self._last_address.get(request.id)
        self.came_from(request.id, address)
        if before is None or before[0] == address:
            return
        if now.timestamp() - before[1] <= self._platform.policy.two_addresses_window_s:
            self._platform.audit.note(
                AuditEvent(
                    at=now,
                    actor="gate",
                    action="alert.two_addresses",
                    outcome="failed",
                    account=request.account,
                    client_id=request.client_id,
                    username=request.username,
                    subject=request.id,
                    address=address,
                    details={"other_address": before[0]},
                )
            )


def rights_of(dialects: Iterable[Dialect], client_id: str) -> TopicRights:
    """The topics of every dialect, for this client id (EC-04)."""
    rights = TopicRights()
    for dialect in dialects:
        rights |= dialect.rights(client_id)
    return rights
