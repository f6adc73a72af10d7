"""Who was seen last under which client id, for brokers that do not tell all that happens on them."""

from collections import OrderedDict

SEATS_MAX = 100_000


class Seats:
    """At most ``SEATS_MAX`` are known, the latest: a broker may never say that a device left."""

    def __init__(self) -> None:
        self._seats: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._connections: dict[tuple[str, str], str] = {}
        self._of: dict[str, set[str]] = {}
        self._accounts: dict[str, set[str]] = {}  # at a client id

    def take(self, account: str, client_id: str, username: str, connection: str | None = None) -> None:
        """This user sits there now, whoever did before. connection: what the broker calls it, None: nothing."""
        self.leave(account, client_id)
        if connection is not None:
            self._connections[account, client_id] = connection
        self._seats[account, client_id] = username
        self._of.setdefault(username, set()).add(client_id)
        self._accounts.setdefault(client_id, set()).add(account)
        if len(self._seats) > SEATS_MAX:
            self.leave(*next(iter(self._seats)))

    def leave(self, account: str, client_id: str) -> None:
        username = self._seats.pop((account, client_id), None)
        self._connections.pop((account, client_id), None)
        if username is not None:
            self._of[username].discard(client_id)
            if not self._of[username]:
                del self._of[username]
            self._accounts[client_id].discard(account)
            if not self._accounts[client_id]:
                del self._accounts[client_id]

    def connection(self, account: str, client_id: str) -> str | None:
        """What the broker calls the connection there."""
        return self._connections.get((account, client_id))

    def is_taken_by(self, account: str, client_id: str, username: str, connection: str | None) -> bool:
        """Whether exactly this connection sits there; where one of both has no name, whether the user does."""
        newest = self.connection(account, client_id)
        return self.at(account, client_id) == username and (None in (newest, connection) or newest == connection)

    def at(self, account: str, client_id: str) -> str | None:
        """Name of the user there."""
        return self._seats.get((account, client_id))

    def under(self, client_id: str) -> list[str]:
        """Names of the users there, of any account."""
        return [self._seats[account, client_id] for account in sorted(self._accounts.get(client_id, ()))]

    def of(self, username: str) -> frozenset[str]:
        """The client ids under which this user sits."""
        return frozenset(self._of.get(username, ()))
