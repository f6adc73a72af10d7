"""Throw-away provision requests, in memory only: the gate lets them in like any other, and nothing is provisioned.

What one of them publishes is offered to all of them, as if the platform were a broker that sends everything to
everybody: what keeps them apart is what the gate grants to a connection, and that is what the self-test tries.
"""

from collections import OrderedDict

from provisioner.model.request import ProvisionRequest
from provisioner.model.topics import TopicRights
from provisioner.model.user import ProvisionUser
from provisioner.services.conversation import Peer

NAMES_MAX = 1_024  # refusals are told up to a minute after they happened


class StandIns:
    """``admit`` and ``dismiss`` are the self-test's; the others are asked for each login and connection."""

    def __init__(self) -> None:
        self._users: dict[str, ProvisionUser] = {}
        self._requests: dict[str, tuple[ProvisionRequest, TopicRights]] = {}
        self._peers: dict[str, Peer] = {}
        self._names: OrderedDict[str, None] = OrderedDict()

    def admit(self, user: ProvisionUser, request: ProvisionRequest, rights: TopicRights) -> None:
        """Let the holder of this login in. rights: its own, as the gate grants them."""
        self._users[user.id] = user
        self._requests[request.id] = (request, rights)
        self.remember(user.id)
        self.remember(request.client_id)

    def dismiss(self, user: ProvisionUser, request: ProvisionRequest) -> None:
        self._users.pop(user.id, None)
        self._requests.pop(request.id, None)

    def remember(self, name: str) -> None:
        """A username or a client id of a self-test; unguessable, so that nobody else can go by it."""
        self._names[name] = None
        while len(self._names) > NAMES_MAX:
            self._names.popitem(last=False)

    def user(self, username: str) -> ProvisionUser | None:
        return self._users.get(username)

    def request(self, username: str, client_id: str) -> ProvisionRequest | None:
        """The one that this login is for."""
        for request, _ in self._requests.values():
            if (request.username, request.client_id) == (username, client_id):
                return request
        return None

    def answered_on(self, client_id: str) -> frozenset[str]:
        """Where the platform would answer it; empty for all others."""
        for request, rights in self._requests.values():
            if request.client_id == client_id:
                return rights.subscribe
        return frozenset()

    def is_known(self, *names: str | None) -> bool:
        """Whether one of these names is, or was lately, a self-test's."""
        return any(name in self._names for name in names if name is not None)

    def conversation(self, peer: Peer) -> "Chorus | None":
        """For a connection of one of them; None for all others."""
        if peer.identity not in self._requests:
            return None
        self._peers[peer.id] = peer
        return Chorus(self, peer)

    def left(self, peer: Peer) -> None:
        self._peers.pop(peer.id, None)

    def offer(self, topic: str, payload: bytes) -> None:
        """On the topic itself, and where the platform would answer whose topic it is."""
        topics = {topic}
        for _, rights in self._requests.values():
            if topic in rights.publish:
                topics |= rights.subscribe
        for peer in tuple(self._peers.values()):
            for each in sorted(topics):
                peer.send(each, payload)


class Chorus:
    """The connection of one of them, in the place of a ``Conversation``."""

    def __init__(self, stand_ins: StandIns, peer: Peer) -> None:
        self._stand_ins, self._peer = stand_ins, peer

    async def received(self, topic: str, payload: bytes) -> None:
        self._stand_ins.offer(topic, payload)

    def closed(self) -> None:
        self._stand_ins.left(self._peer)
