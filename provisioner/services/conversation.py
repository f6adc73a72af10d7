"""One admitted connection from its first message to its farewell: ask, be answered, take everything, leave."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from provisioner.model.audit import AuditEvent
from provisioner.model.messages import Acknowledgement, Answer, Malformed, Outgoing, ProvisionMessage, Status
from provisioner.model.ports import Dialect, Exchange
from provisioner.services.crashpoints import reach
from provisioner.services.platform import Platform
from provisioner.services.provisioning import Asker, Provisioning
from provisioner.vault import generate

HANDOVER_GRACE_S = 5.0  # a gateway applies 1 s after it agreed, and leaves by itself


class Peer(Protocol):
    """The connection as the gate gives it; the verbs never block and do nothing once it is closed."""

    @property
    def id(self) -> str:
        """Unguessable and never used twice: it stands for the message id that a BIRTH does not bring."""

    @property
    def identity(self) -> str: ...
    @property
    def client_id(self) -> str: ...
    @property
    def username(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def contended(self) -> bool: ...
    def send(self, topic: str, payload: bytes) -> bool: ...
    def permit(self, topics: frozenset[str]) -> None: ...
    def engage(self) -> None: ...
    def release(self) -> None: ...
    def finish(self, grace_s: float) -> None: ...


@dataclass(slots=True)
class _Delivering:
    """An exchange under way, and the message that it answers."""

    exchange: Exchange
    message_id: str | None


class Conversation:
    """Drives one peer. ``received`` returns when what it caused is durable."""

    def __init__(self, platform: Platform, provisioning: Provisioning, peer: Peer) -> None:
        self._platform, self._provisioning, self._peer = platform, provisioning, peer
        self._delivering: _Delivering | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def received(self, topic: str, payload: bytes) -> None:
        """One message that the peer was allowed to publish."""
        delivering = self._delivering
        if delivering is not None and topic in delivering.exchange.expected_topics():
            self._go_on(delivering.exchange.receive(topic, payload, time.monotonic()))
            return
        for dialect in self._platform.dialects:
            incoming = dialect.decode(self._peer.client_id, topic, payload, self._peer.id)
            if isinstance(incoming, ProvisionMessage):
                await self._asked(dialect, incoming)
            elif isinstance(incoming, Malformed):
                self._malformed(dialect, incoming)
            elif isinstance(incoming, Acknowledgement):
                self._acknowledged(incoming)
            if incoming is not None:
                return

    def closed(self) -> None:
        """The connection is gone; what was granted stays granted."""
        if self._timer is not None:
            self._timer.cancel()
        self._delivering = None

    async def _asked(self, dialect: Dialect, message: ProvisionMessage) -> None:
        delivering = self._delivering
        if delivering and not delivering.exchange.done and delivering.message_id == message.message_id:
            return  # a second copy of the question while its answer is still being taken
        peer, asked_s = self._peer, time.monotonic()
        asker = Asker(peer.identity, peer.client_id, peer.username, peer.address, peer.contended, peer.id)
        if not asker.contended:
            peer.engage()
        answer = await self._provisioning.handle(asker, message)
        if answer is None or answer.status is not Status.PROVISIONED:
            peer.release()
        if answer is not None:
            self._deliver(dialect, message, answer, asked_s)

    def _malformed(self, dialect: Dialect, message: Malformed) -> None:
        """Every bad message is answered, never met with silence (wire-json)."""
        asked_s = time.monotonic()
        self._note("provision.refused", "refused", "malformed", detail=message.detail)
        answer = Answer(
            status=Status.MALFORMED,
            message_id=message.message_id,
            server_time=self._platform.now(),
            detail=message.detail,
        )
        self._deliver(dialect, message, answer, asked_s)

    def _acknowledged(self, ack: Acknowledgement) -> None:
        """The device speaks for itself here; only its account broker confirms it."""
        outcome = "ok" if ack.applied else "failed"
        self._note("provision.acknowledged", outcome, None if ack.applied else "device_failed", detail=ack.detail)
        if ack.applied:
            self._peer.finish(HANDOVER_GRACE_S)
        else:
            self._peer.release()

    def _deliver(self, dialect: Dialect, message: ProvisionMessage | Malformed, answer: Answer, asked_s: float) -> None:
        ids = generate.message_ids(dialect.ids_needed(answer))
        exchange = dialect.exchange(self._peer.client_id, message, answer, ids)
        self._delivering = _Delivering(exchange, answer.message_id)
        self._go_on(exchange.start(time.monotonic()))
        self._platform.observer.answered(dialect.name, answer.status, time.monotonic() - asked_s)
        reach("after_answer")

    def _go_on(self, outgoing: Sequence[Outgoing]) -> None:
        """Send what is due, then arrange for what comes next."""
        for message in outgoing:
            self._peer.send(message.topic, message.payload)
        delivering = self._delivering
        if delivering is None:
            return
        exchange = delivering.exchange
        self._peer.permit(exchange.expected_topics())
        if exchange.failure is not None:
            self._failed(exchange.failure)
        elif not exchange.done:
            self._peer.engage()  # a long dialogue is not displaced while it makes progress
        elif exchange.taken:
            self._note("provision.taken", "ok", None, packages=list(exchange.installed) or None)
            self._delivering = None
            self._peer.finish(HANDOVER_GRACE_S)
        self._arm(exchange)

    def _failed(self, why: str) -> None:
        self._note("provision.delivery_failed", "failed", "delivery", detail=why)
        self._delivering = None
        self._peer.release()

    def _arm(self, exchange: Exchange) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = exchange.deadline()
        if deadline is not None:
            delay_s = max(0.0, deadline - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        if self._delivering is not None:
            self._go_on(self._delivering.exchange.tick(time.monotonic()))

    def _note(self, action: str, outcome: str, reason: str | None, **details: Any) -> None:
        self._platform.audit.note(
            AuditEvent(
                at=self._platform.now(),
                actor="device",
                action=action,
                outcome=outcome,
                reason=reason,
                client_id=self._peer.client_id,
                username=self._peer.username,
                subject=self._peer.identity,
                address=self._peer.address,
                details={name: value for name, value in details.items() if value is not None},
            )
        )
