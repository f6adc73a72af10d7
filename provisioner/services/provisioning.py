"""Provisioning: from a provision message to its answer. Read, decide, commit, act, answer; in this order (D6)."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from provisioner.model.audit import AuditEvent
from provisioner.model.decision import Circumstances, Refusal, decide
from provisioner.model.errors import Conflict, InvalidInput, LimitReached, NotFound, Unavailable
from provisioner.model.messages import Answer, ProvisionMessage, Status
from provisioner.model.ports import Put, Unit
from provisioner.model.request import ProvisionRequest, RequestState
from provisioner.services import sealed
from provisioner.services.effects import Effects
from provisioner.services.explaining import circumstances
from provisioner.services.granting import Granting
from provisioner.services.platform import KEY_PURPOSE, Platform
from provisioner.vault.generate import normal_key

_TRIES = 4


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: an admitted connection. request: id of its provision request. contended: see Circumstances, as far as
    this gate knows. connection: the id of the connection."""

    request: str
    client_id: str
    username: str
    address: str
    contended: bool
    connection: str = ""


class Provisioning:
    """Answers provision messages; one instance serves all connections."""

    def __init__(self, platform: Platform, effects: Effects) -> None:
        self._platform = platform
        self._granting = Granting(platform, effects)

    async def handle(self, asker: Asker, message: ProvisionMessage) -> Answer | None:
        """The answer to one provision message; never raises for anything that a device can cause.

        None: a BIRTH of a gateway whose request wants an activation key, which its PROV message will bring.
        When the answer is ``provisioned``, it is durable and the account user exists."""
        try:
            for _ in range(_TRIES):
                try:
                    return await self._try(asker, message)
                except Conflict:
                    continue  # somebody changed a record between our read and our commit: read again
        except (Unavailable, LimitReached) as error:
            return self._busy(asker, message, error)
        return self._busy(asker, message, None)

    async def _try(self, asker: Asker, message: ProvisionMessage) -> Answer | None:
        request = await self._platform.store.get(ProvisionRequest, asker.request)
        if request is None:
            gone = Refusal(status=Status.REFUSED, reason="deleted", detail="the request was deleted")
            return self._refuse(asker, message, gone, None)
        if message.by_birth and request.key_verifier is not None:
            return None
        try:
            case = await circumstances(
                self._platform,
                request,
                self._platform.now(),
                key_matches=self._key_matches(request, message),
                contended=asker.contended or await self._is_answered_elsewhere(request, asker),
                repeated=_is_owed(request, message),
            )
        except NotFound:
            gone = Refusal(status=Status.REFUSED, reason="account_deleted", detail="the account was deleted")
            return self._refuse(asker, message, gone, request)
        refusal = decide(case)
        if refusal is not None:
            if refusal.reason == "activation_key":
                await self._count_key_failure(request, asker)
            return self._refuse(asker, message, refusal, request)
        if request.grant is None:  # a grant keeps to the broker that it was made on
            self._platform.usable_broker(case.account.broker)
        return await self._grant(asker, message, case)

    async def _grant(self, asker: Asker, message: ProvisionMessage, case: Circumstances) -> Answer:
        request = case.request
        former = sealed.unseal(self._platform.ring, request)
        if former is not None and former.delivery is not None and former.message_id == message.message_id:
            # The same question gets the same bytes; what it needs at the broker may still be outstanding.
            await self._granting.finish(request, former.delivery, self._mark(asker))
            self._note(asker, "provision.repeated", request, reason=None)
            return former
        try:
            return await self._granting.grant(asker.address, message, case, former, self._mark(asker))
        except InvalidInput as error:
            self._note(asker, "provision.refused", request, reason="csr")
            return Answer(
                status=Status.MALFORMED,
                message_id=message.message_id,
                server_time=self._platform.now(),
                detail=str(error.problems[0].field) + ": " + error.problems[0].rule,
            )

    def _mark(self, asker: Asker) -> str | None:
        return None if self._platform.gates is None else self._platform.gates.mark(asker.connection)

    async def _is_answered_elsewhere(self, request: ProvisionRequest, asker: Asker) -> bool:
        """F-16 between gates: whoever commits a grant first is written into it, and is asked for by all others."""
        gates, grant = self._platform.gates, request.grant
        if gates is None or grant is None or grant.told_to is None or request.state is not RequestState.GRANTED:
            return False
        return grant.told_to != self._mark(asker) and await gates.is_answering(grant.told_to, request.id)

    def _key_matches(self, request: ProvisionRequest, message: ProvisionMessage) -> bool:
        if request.key_verifier is None:
            return True
        key = normal_key(message.activation_key) if message.activation_key else None
        return self._platform.ring.verify(request.key_verifier, key, KEY_PURPOSE, request.id)

    async def _count_key_failure(self, request: ProvisionRequest, asker: Asker) -> None:
        """F-18: durable, so that a restart forgives nothing."""
        policy, now = self._platform.policy, self._platform.now()
        failures = request.key_failures + 1
        blocked = now + timedelta(seconds=policy.key_backoff_s) if failures >= policy.key_failures_backoff else None
        event = AuditEvent(
            at=now,
            actor="device",
            action="provision.key_locked" if failures >= policy.key_failures_lock else "provision.key_failure",
            outcome="refused",
            reason="activation_key",
            account=request.account,
            client_id=request.client_id,
            username=request.username,
            subject=request.id,
            address=asker.address,
            details={"failures": failures},
        )
        counted = replace(request, key_failures=failures, key_blocked_until=blocked)
        await self._platform.store.commit(Unit(changes=[Put(counted)], audit=[event]))

    def _refuse(
        self, asker: Asker, message: ProvisionMessage, refusal: Refusal, request: ProvisionRequest | None
    ) -> Answer:
        """Tell the device the status alone; the true reason goes to the audit log."""
        self._note(asker, "provision.refused", request, reason=refusal.reason)
        if refusal.reason == "conflict":
            self._note(asker, "alert.client_id_contended", request, reason=refusal.reason)
        return Answer(
            status=refusal.status,
            message_id=message.message_id,
            server_time=self._platform.now(),
            retry_after_s=refusal.retry_after_s,
        )

    def _busy(self, asker: Asker, message: ProvisionMessage, error: Exception | None) -> Answer:
        details = {"cause": str(error)} if error else {}
        self._note(asker, "provision.busy", None, reason="unavailable" if error else "contention", **details)
        return Answer(
            status=Status.BUSY,
            message_id=message.message_id,
            server_time=self._platform.now(),
            retry_after_s=self._platform.policy.retry_after_busy_s,
        )

    def _note(
        self, asker: Asker, action: str, request: ProvisionRequest | None, reason: str | None, **details: Any
    ) -> None:
        self._platform.audit.note(
            AuditEvent(
                at=self._platform.now(),
                actor="device",
                action=action,
                outcome="ok" if reason is None else "refused",
                reason=reason,
                account=request.account if request else None,
                client_id=asker.client_id,
                username=asker.username,
                subject=asker.request,
                address=asker.address,
                details=details,
            )
        )


def _is_owed(request: ProvisionRequest, message: ProvisionMessage) -> bool:
    """Whether this question was granted before and its answer can still be said again (F-15, F-28)."""
    grant = request.grant
    return grant is not None and grant.sealed is not None and grant.message_id == message.message_id
