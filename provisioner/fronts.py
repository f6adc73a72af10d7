"""What stands behind the gate's listeners: devices are led to provisioning, administrators to the control door.

This file and ``app`` are the only ones that know both the gate and the services; everything here translates.
"""

from collections.abc import Mapping

from broker.access import Admission as GateAdmission
from broker.access import Close, Connection, Denial, DenialKind, Incident, Login
from broker.limits import site_of
from provisioner.doors.control import Control
from provisioner.model.audit import AuditEvent
from provisioner.model.errors import Unavailable
from provisioner.model.secret import Secret
from provisioner.model.topics import TopicRights
from provisioner.services.admission import Admission, NotAdmitted
from provisioner.services.conversation import Conversation
from provisioner.services.journal import AuditTrail
from provisioner.services.platform import Platform
from provisioner.services.provisioning import Provisioning
from provisioner.services.stand_ins import Chorus, StandIns
from provisioner.services.subject import about
from provisioner.vault.keyring import KeyRing

ADMIN_PURPOSE = "admin"
CONTROL_PREFIX = "ctl/v1"


class ProvisionFront:
    """The gate's application for devices."""

    def __init__(self, platform: Platform, provisioning: Provisioning, stand_ins: StandIns | None = None) -> None:
        """stand_ins: who is let in beside the devices of the store, for the self-test."""
        self._platform, self._provisioning = platform, provisioning
        self._stand_ins = stand_ins or StandIns()
        self._admission = Admission(platform, self._stand_ins)
        self._conversations: dict[str, Conversation | Chorus] = {}

    async def admit(self, login: Login) -> GateAdmission | Denial:
        password = _password(login)
        if login.username is None or password is None:
            return Denial(DenialKind.NOT_AUTHORIZED, "credentials_malformed")
        try:
            with about(client_id=login.client_id, address=login.address):
                verdict = await self._admission.admit(
                    login.client_id, login.username, password, login.address, site_of(login.address)
                )
        except Unavailable:
            return Denial(DenialKind.UNAVAILABLE, "verification_unavailable")
        if isinstance(verdict, NotAdmitted):
            return Denial(DenialKind.NOT_AUTHORIZED, verdict.reason)
        return GateAdmission(verdict.request, verdict.client_id, verdict.username, verdict.rights)

    def elsewhere(self, identity: str, address: str) -> None:
        """A device came to another gate."""
        self._admission.came_from(identity, address)

    def opened(self, connection: Connection) -> None:
        stand_in = self._stand_ins.conversation(connection)
        self._conversations[connection.id] = stand_in or Conversation(self._platform, self._provisioning, connection)
        if self._platform.gates is not None and stand_in is None:
            self._platform.gates.arrived(connection.identity, connection.id, connection.address)

    async def received(self, connection: Connection, topic: str, payload: bytes, dup: bool) -> None:
        with about(request_id=connection.identity, client_id=connection.client_id, address=connection.address):
            await self._conversations[connection.id].received(topic, payload)

    def acknowledged(self, connection: Connection, topic: str) -> None:
        """An acknowledged packet proves nothing (F-13): the device says in words that it applied the answer."""

    def closed(self, connection: Connection, reason: Close) -> None:
        conversation = self._conversations.pop(connection.id, None)
        if conversation is not None:
            conversation.closed()
        if self._platform.gates is not None:
            self._platform.gates.left(connection.id)

    def foresaw(self, incident: Incident) -> bool:
        return self._stand_ins.is_known(incident.username, incident.client_id)

    def observed(self, incident: Incident) -> None:
        note_incident(self._platform.audit, self._platform, incident)
        if self._platform.gates is not None and incident.action == "connect.locked_out" and incident.client_id:
            self._platform.gates.locked_out(incident.address, incident.username or "", incident.client_id)


class AdminFront:
    """The gate's application for administrators: one verb a message, one answer on the connection's own topic."""

    def __init__(self, platform: Platform, control: Control, admins: Mapping[str, str], ring: KeyRing) -> None:
        """admins: name -> verifier of the credential."""
        self._platform, self._control, self._admins, self._ring = platform, control, admins, ring

    async def admit(self, login: Login) -> GateAdmission | Denial:
        name, password = login.username or "", _password(login)
        if not self._ring.verify(self._admins.get(name), password, ADMIN_PURPOSE, name):
            return Denial(DenialKind.NOT_AUTHORIZED, "admin_credential")
        base = f"{CONTROL_PREFIX}/{login.client_id}"
        rights = TopicRights(publish=frozenset((f"{base}/request",)), subscribe=frozenset((f"{base}/response",)))
        return GateAdmission(f"admin/{login.client_id}", login.client_id, name, rights)

    def opened(self, connection: Connection) -> None:
        pass  # nothing is kept between two messages of an administrator

    async def received(self, connection: Connection, topic: str, payload: bytes, dup: bool) -> None:
        actor = f"admin:{connection.username}"
        with about(actor=actor, address=connection.address):
            answer = await self._control.answer(actor, payload)
        connection.send(f"{CONTROL_PREFIX}/{connection.client_id}/response", answer)

    def acknowledged(self, connection: Connection, topic: str) -> None:
        pass

    def closed(self, connection: Connection, reason: Close) -> None:
        pass

    def foresaw(self, incident: Incident) -> bool:
        return False

    def observed(self, incident: Incident) -> None:
        note_incident(self._platform.audit, self._platform, incident, actor="control")


def note_incident(audit: AuditTrail, platform: Platform, incident: Incident, actor: str = "gate") -> None:
    """One audit row for what the gate refused or cut."""
    audit.note(
        AuditEvent(
            at=platform.now(),
            actor=actor,
            action=incident.action,
            outcome="refused",
            reason=incident.reason,
            client_id=incident.client_id,
            username=incident.username,
            address=incident.address,
            details={"count": incident.count} if incident.count > 1 else {},
        )
    )


def _password(login: Login) -> Secret | None:
    try:
        return Secret((login.password or b"").decode()) if login.password else None
    except UnicodeDecodeError:
        return None
