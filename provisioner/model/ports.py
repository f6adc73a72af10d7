"""The ports: what the services need of a store, an account broker and a dialect. Small, and each is
defined by its contract suite in ``tests/contracts/``."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar, runtime_checkable

from provisioner.model.account import Coupling
from provisioner.model.audit import AuditEvent
from provisioner.model.capabilities import Capabilities
from provisioner.model.messages import Answer, Incoming, Malformed, Outgoing, ProvisionMessage
from provisioner.model.secret import Secret
from provisioner.model.topics import TopicRights


class Noun(Protocol):
    """A stored record: a frozen dataclass with an id, a version and its index values.

    unique(): index name -> value held by at most one record of the kind. indexed(): index name -> value,
    shared by many. An index that does not apply (a closed request) is left out of the mapping.
    """

    kind: ClassVar[str]

    @property
    def id(self) -> str: ...
    @property
    def version(self) -> int: ...
    def unique(self) -> dict[str, str]: ...
    def indexed(self) -> dict[str, str]: ...


N = TypeVar("N", bound=Noun)


@dataclass(frozen=True, slots=True)
class Put:
    """Write ``noun``, whose ``version`` is the one it was read at (0: it must not exist yet).

    The store keeps it with ``version + 1``."""

    noun: Noun


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove ``noun``, read at its ``version``."""

    noun: Noun


@dataclass(frozen=True, slots=True)
class Unit:
    """All or nothing: changes and the audit rows that tell of them, in one commit."""

    changes: Sequence[Put | Delete] = ()
    audit: Sequence[AuditEvent] = ()


@dataclass(frozen=True, slots=True)
class Page(Generic[N]):
    """``after`` continues the listing, None at its end. Key-set paging: by id, never by offset."""

    items: Sequence[N]
    after: str | None


class Moment(Protocol):
    """All that a store held at one moment, whatever is committed meanwhile."""

    @property
    def audit_seq(self) -> int:
        """Of the newest audit row then; ``audit_page`` has the rows, which never change."""

    def nouns(self, noun: type[N]) -> AsyncIterator[Sequence[N]]:
        """Every record of the kind, ordered by id, some hundred at a time."""


class Store(Protocol):
    """Keeps nouns and the audit log. A value that was returned is never changed afterwards."""

    async def get(self, noun: type[N], id: str) -> N | None: ...

    async def find(self, noun: type[N], index: str, value: str) -> Sequence[N]:
        """The records whose ``unique()`` or ``indexed()`` has this value; ordered by id."""

    async def page(
        self,
        noun: type[N],
        *,
        where: Mapping[str, str] | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[N]:
        """Records ordered by id; ``where`` names indexes, all of which must match. limit: 1..1,000."""

    async def count(self, noun: type[N], *, where: Mapping[str, str] | None = None) -> int: ...

    async def commit(self, unit: Unit) -> int:
        """Make the unit durable, then return the seq of its last audit row (of the log, when it has none).

        Raises StaleVersion, Duplicate, LimitReached (nothing changed) or Unavailable (not durable: nothing
        changed either, and the caller must not answer as if it had; where a database stays away for long in the
        middle of a commit, nobody knows whether it was made, and the message says so)."""

    async def audit_page(self, *, after: int = 0, limit: int = 100, newest_first: bool = False) -> Sequence[AuditEvent]:
        """Rows with ``seq > after`` in order; newest_first: the last ``limit`` rows, newest first."""

    def changes(self, after: int) -> AsyncIterator[AuditEvent]:
        """Every durable audit row with ``seq > after``, in order, then each new one as it comes."""

    async def health(self) -> None:
        """Return when a commit could succeed now, raise Unavailable otherwise."""

    def moment(self) -> AbstractAsyncContextManager[Moment]:
        """What is stored now, for as long as the ``async with`` block lasts. Writers are not held up by it."""

    async def adopt(self, nouns: Sequence[Noun], audit: Sequence[AuditEvent] = ()) -> None:
        """Keep records and audit rows exactly as they are, versions and seqs included: for copies of whole stores.

        All or nothing. A record replaces the one of the same id, audit rows that are there already are passed over, so
        that repeating it is harmless; the others must follow those, or begin the log. Raises as ``commit`` does."""

    async def close(self) -> None: ...


class Signals(Protocol):
    """Short messages to every process that has the store open, the sender among them.

    A hint and never the only record: what is sent while a process has lost the store does not reach it."""

    async def notify(self, message: str) -> None:
        """Returns when it is on its way. At most 7,900 bytes of UTF-8, else InvalidInput. Raises Unavailable."""

    def signals(self) -> AsyncIterator[str | None]:
        """Each message sent from the first ``anext`` on, in order. None: some may have been missed, so look at the
        records. Ends when the store is closed."""


class Leases(Protocol):
    """At most one holder a name, by the clock of the store. A holder that stops renewing loses it in time.

    Time-outs cannot stop a holder that sleeps past its lease: what it does has to be harmless when done twice, or
    be refused by the fencing number."""

    async def acquire(self, name: str, holder: str, seconds: float) -> int | None:
        """The fencing number, None: another one holds it. Greater each time that the lease passes on; whoever holds
        it already keeps its number, for ``seconds`` from now. Raises Unavailable."""

    async def renew(self, name: str, fence: int, seconds: float) -> bool:
        """Hold it for ``seconds`` from now; False: it was lost. Raises Unavailable."""

    async def release(self, name: str, fence: int) -> None:
        """Let it go; nothing happens when it was lost already. Raises Unavailable."""


@runtime_checkable
class Shared(Signals, Leases, Protocol):
    """What the processes on one store tell each other and settle among themselves."""


class SharedStore(Store, Shared, Protocol):
    """A store that many processes may have open at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUser:
    """An account user as an account broker must know it.

    verifier: digest of the password for brokers that ask us. password: clear, for brokers that keep a hash of
    their own; None once the device is confirmed, and then the broker keeps what it has.
    coupling: STRICT or LOOSE, inheritance already resolved.
    certificates: serials that were made for this user, lower-case hex, the valid one last.
    """

    account: str
    username: str
    client_id: str
    verifier: str
    password: Secret | None = None
    enabled: bool = True
    reserved: bool = False
    coupling: Coupling = Coupling.STRICT
    certificates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A device connected (``connected``) to its account broker or left it, as that broker saw it.

    lost: it left without a DISCONNECT, so that its Will was due. unheard: it may have left, or come again since, while
    its broker was not heard. connection: tells it from others of the client id, where that broker speaks of all of
    them; None where it is silent about those that were taken over from."""

    account: str
    username: str
    client_id: str
    address: str | None
    connected: bool = True
    lost: bool = False
    unheard: bool = False
    connection: str | None = None

    @property
    def which(self) -> str:
        """The connection that it is about; a device may be known by two users while it changes its credentials."""
        return self.username if self.connection is None else f"{self.username} {self.connection}"


@dataclass(frozen=True, slots=True)
class Gap:
    """An account broker was not heard for a while: whoever was connected to it before need not be there any more.

    all_left: nobody is there now; False: nobody knows who is."""

    broker: str
    all_left: bool


def heedless(gap: Gap) -> None:
    """For those to whom it is all the same who was there before."""


class AccountBroker(Protocol):
    """One broker that accounts live on. Every verb may be repeated without harm."""

    @property
    def name(self) -> str: ...

    def capabilities(self) -> Capabilities: ...

    async def start(self, seen: Callable[[Sighting], None], gap: Callable[[Gap], None] = heedless) -> None:
        """Begin serving; ``seen`` is called on the event loop for each sighting, ``gap`` whenever some may not have
        been told, the start included, before any that came later.

        Before that devices find nobody there; users may be put and removed where the broker does not keep them
        (``keeps_users``)."""

    async def stop(self) -> None: ...

    async def put_user(self, user: BrokerUser) -> None:
        """Create or update; returns when a connection with these credentials will succeed. Raises Unavailable.

        Disabling (``enabled=False``) cuts the live connection and refuses the next."""

    async def remove_user(self, account: str, username: str) -> None:
        """Forget the user and cut its live connection; no error when there is none."""

    async def kick(self, account: str, client_id: str) -> bool:
        """Cut the live connection of that client id; False when there was none."""

    async def users(self) -> Sequence[tuple[str, str]]:
        """(account, username) of every user that the broker knows, for fsck."""


class Exchange(Protocol):
    """What follows an answer on one connection: the answer itself, and for some dialects a dialogue.

    Times are monotonic seconds given by the caller."""

    def start(self, now_s: float) -> Sequence[Outgoing]: ...
    def receive(self, topic: str, payload: bytes, now_s: float) -> Sequence[Outgoing]: ...
    def tick(self, now_s: float) -> Sequence[Outgoing]: ...
    def deadline(self) -> float | None: ...

    def expected_topics(self) -> frozenset[str]:
        """Topics on which the device may publish just now because it was asked to."""

    @property
    def done(self) -> bool:
        """Nothing more will be sent."""

    @property
    def taken(self) -> bool:
        """The device is known to have taken everything; False where its own acknowledgement says so."""

    @property
    def failure(self) -> str | None:
        """None, or why the device could not take the delivery."""

    @property
    def installed(self) -> Sequence[str]:
        """Names of packages that the device reported installed."""


class LinkLogins(Protocol):
    """The logins of devices, for a broker that checks them in the place of the gate."""

    async def start(self) -> None:
        """Tell that broker of every open request. One that cannot be told now is told later."""

    async def run(self) -> None:
        """Tell it of what changes; until cancelled."""

    async def verifier(self, username: str, password: Secret) -> str:
        """The digest that such a broker keeps. Raises InvalidInput when the name cannot be a device's there."""

    def unknown(self) -> Sequence[str]:
        """Client ids of open requests whose devices cannot log in there: made before there was such a broker."""


class Dialect(Protocol):
    """Bytes and topic <-> meaning, for one family of devices. Pure."""

    @property
    def name(self) -> str: ...

    def rights(self, client_id: str) -> TopicRights: ...

    def decode(self, client_id: str, topic: str, payload: bytes, fresh_id: str) -> Incoming | None:
        """None: the topic is not of this dialect. fresh_id: an unguessable id for messages that bring none."""

    def exchange(
        self, client_id: str, message: ProvisionMessage | Malformed, answer: Answer, fresh_ids: Sequence[str]
    ) -> Exchange:
        """How this answer is delivered. fresh_ids: unguessable, at least ``ids_needed(answer)`` of them."""

    def ids_needed(self, answer: Answer) -> int: ...
