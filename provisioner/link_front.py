"""What the gate is to the service, for a broker that stands in its place: devices are known by their topics alone.

That broker checks the login and lets each user publish on the topics of its own client ids (``services.link_logins``),
so the client id in a topic stands for the request. Connections, takeovers and addresses are not seen here.
"""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from provisioner.link.topics import LinkTopics
from provisioner.model.audit import AuditEvent
from provisioner.model.request import ProvisionRequest, RequestState
from provisioner.services.conversation import Conversation
from provisioner.services.platform import Platform
from provisioner.services.provisioning import Provisioning
from provisioner.services.stand_ins import StandIns
from provisioner.services.subject import about

if TYPE_CHECKING:
    from provisioner.link.mosquitto import Handler, MosquittoLink

PEERS_MAX = 20_000
NAMED_MAX = 10
IDLE_S = 900.0  # longer than any silence in a dialogue, the installation of a package included


class LinkPeer:
    """A device as far as its topics show it; see ``services.conversation.Peer``."""

    contended = False  # who takes over from whom is that broker's affair

    def __init__(self, front: "LinkFront", request: ProvisionRequest, address: str) -> None:
        self._front = front
        self.id = secrets.token_urlsafe(12)
        self.identity, self.client_id, self.username = request.id, request.client_id, request.username
        self.address = address
        self.is_open = True
        self.heard_s = 0.0
        self.expected: frozenset[str] = frozenset()
        self.turn = asyncio.Lock()  # one message of a device after the other

    def send(self, topic: str, payload: bytes) -> bool:
        return self.is_open and self._front.send(topic, payload)

    def permit(self, topics: frozenset[str]) -> None:
        self._front.expect(self, topics)

    def engage(self) -> None:
        pass

    def release(self) -> None:
        pass

    def finish(self, grace_s: float) -> None:
        """A device leaves by itself; its login goes when it is confirmed."""


class LinkFront:
    """Stands where the gate stands in ``app``: the same verbs, as far as they have a meaning here."""

    ports: Mapping[str, int] = {}

    def __init__(
        self,
        platform: Platform,
        provisioning: Provisioning,
        topics: LinkTopics,
        connect: "Callable[[Handler], MosquittoLink]",
        url: str,
        stand_ins: StandIns | None = None,
    ) -> None:
        """connect: makes the link that hands its messages to what it is given. url: for the audit. stand_ins: devices
        of the self-test."""
        self._stand_ins = stand_ins or StandIns()
        self._platform, self._provisioning, self._topics = platform, provisioning, topics
        self._link = connect(self.received)
        self._url = url
        self._peers: OrderedDict[str, LinkPeer] = OrderedDict()
        self._of_request: dict[str, tuple[LinkPeer, Conversation]] = {}
        self._expected: dict[str, LinkPeer] = {}

    async def start(self) -> None:
        await self._link.start()

    async def drain(self, grace_s: float) -> None:
        await self._link.stop(grace_s)
        for peer in list(self._peers.values()):
            self._forget(peer)

    def connections(self) -> Sequence[LinkPeer]:
        """Devices that were heard lately."""
        return tuple(self._peers.values())

    def fault(self) -> str | None:
        """Why no device can be heard now; None while the connection is up."""
        return None if self._link.is_up else "the provision broker is not connected"

    def standings(self) -> Mapping[str, int]:
        return {"admitted": len(self._peers)}

    def kick(self, identity: str) -> bool:
        """Say no more to the device of that request; that broker cuts it when its login goes."""
        if identity not in self._of_request:
            return False
        self._forget(self._of_request[identity][0])
        return True

    def reload_tls(self) -> None:
        """The certificate that devices see is that broker's."""

    def status(self) -> Mapping[str, object]:
        logins = self._platform.link_logins
        unknown = logins.unknown() if logins else ()
        return {
            "url": self._url,
            "up": self._link.is_up,
            "requests_without_login": len(unknown),
            "without_login": list(unknown[:NAMED_MAX]),
        }

    def send(self, topic: str, payload: bytes) -> bool:
        return self._link.send(topic, payload)

    def expect(self, peer: LinkPeer, topics: frozenset[str]) -> None:
        """Replies on these topics are for this device, and those that it was expected on before are not any more."""
        for topic in peer.expected - topics:
            self._expected.pop(topic, None)
        peer.expected = topics if peer.is_open else frozenset()
        self._expected.update(dict.fromkeys(peer.expected, peer))

    async def received(self, topic: str, payload: bytes, retain: bool) -> None:
        """One message; returns when what it caused is durable and on its way."""
        peer = self._expected.get(topic)
        client_id = peer.client_id if peer is not None else self._topics.client_id(topic)
        if client_id is None:
            return  # a reply that nobody waits for any more
        if self._stand_ins.is_known(client_id):
            self._echo(client_id, payload)
        elif retain:
            self._note_refusal(client_id, "retain")
        elif self._topics.is_farewell(topic):
            self._on_farewell(client_id)
        else:
            await self._converse(peer or await self._peer(client_id), client_id, topic, payload)

    def _echo(self, client_id: str, payload: bytes) -> None:
        """To a device of the self-test, on all of its topics: who else hears them does so against the rules."""
        if payload:
            for topic in sorted(self._stand_ins.answered_on(client_id)):
                self.send(topic, payload)

    async def _converse(self, peer: LinkPeer | None, client_id: str, topic: str, payload: bytes) -> None:
        if peer is None:
            self._note_refusal(client_id, "no_request")
            return
        self._peers.move_to_end(client_id)
        peer.heard_s = time.monotonic()
        async with peer.turn:
            if peer.is_open:  # it may have been lost or revoked while this message waited; a device asks again
                with about(request_id=peer.identity, client_id=client_id):
                    await self._of_request[peer.identity][1].received(topic, payload)

    async def _peer(self, client_id: str) -> LinkPeer | None:
        """The device of the request that has this client id now; a former request's is forgotten."""
        request = await self._request(client_id)
        peer = self._peers.get(client_id)
        if peer is not None and (request is None or peer.identity != request.id):
            self._forget(peer)
            peer = None
        if peer is None and request is not None:
            peer = self._peers[client_id] = LinkPeer(self, request, self._url)
            self._of_request[request.id] = peer, Conversation(self._platform, self._provisioning, peer)
            self._make_room()
        return peer

    async def _request(self, client_id: str) -> ProvisionRequest | None:
        """The open request, else a confirmed one, whose device is told so."""
        found = await self._platform.store.find(ProvisionRequest, "any_client_id", client_id)
        chosen = [each for each in found if each.is_open]
        chosen += [each for each in found if each.state is RequestState.CONFIRMED]
        return chosen[0] if chosen else None

    def _make_room(self) -> None:
        idle_since_s = time.monotonic() - IDLE_S
        while True:
            oldest = next(iter(self._peers.values()))
            if len(self._peers) <= PEERS_MAX and not 0.0 < oldest.heard_s < idle_since_s:
                return
            self._forget(oldest)

    def _on_farewell(self, client_id: str) -> None:
        if (peer := self._peers.get(client_id)) is not None:
            self._forget(peer)

    def _forget(self, peer: LinkPeer) -> None:
        self.expect(peer, frozenset())
        peer.is_open = False
        del self._peers[peer.client_id]
        self._of_request.pop(peer.identity)[1].closed()

    def _note_refusal(self, client_id: str, reason: str) -> None:
        self._platform.audit.note(
            AuditEvent(
                at=self._platform.now(),
                actor="link",
                action="publish.refused",
                outcome="refused",
                reason=reason,
                client_id=client_id,
                address=self._url,
            )
        )
