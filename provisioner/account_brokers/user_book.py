"""The users of a broker that asks us for each login: who they are, which client id each may take, whose word it is."""

import inspect
from collections.abc import Awaitable, Callable, Sequence

from provisioner.model import names
from provisioner.model.coupling import may_connect
from provisioner.model.errors import Conflict
from provisioner.model.ports import BrokerUser
from provisioner.model.secret import Secret
from provisioner.model.user import account_user_id

Verify = Callable[[str | None, Secret, str], bool | Awaitable[bool]]
"""(verifier, password, id of the account user) -> whether the password is the verifier's. A verifier of None stands
for an unknown user, whose account is empty in the id: the same work, then False (F-20)."""


class UserBook:
    """In memory; filled again after a start. A username belongs to one account, so that it names its account.

    shared_client_ids: so does a client id that a user was made for; else each account has all client ids to itself."""

    def __init__(self, verify: Verify, *, shared_client_ids: bool = False) -> None:
        self._verify, self._shared_client_ids = verify, shared_client_ids
        self._users: dict[str, BrokerUser] = {}
        self._made_for: dict[tuple[str, str], dict[str, BrokerUser]] = {}
        self._accounts_of: dict[str, set[str]] = {}  # that have users for a client id

    def get(self, username: str) -> BrokerUser | None:
        return self._users.get(username)

    def put(self, user: BrokerUser) -> None:
        """Raises Conflict when another account has the username, or the client id where accounts share those."""
        known = self._users.get(user.username)
        if known is not None and known.account != user.account:
            raise Conflict("another account on this broker has a user of that name")
        if self._is_elsewhere(user.account, user.client_id):
            raise Conflict("another account on this broker has a device of that client id")
        self._forget(user.username)
        self._users[user.username] = user
        self._made_for.setdefault((user.account, user.client_id), {})[user.username] = user
        self._accounts_of.setdefault(user.client_id, set()).add(user.account)

    def remove(self, account: str, username: str) -> bool:
        """False when that account has no such user."""
        user = self._users.get(username)
        if user is None or user.account != account:
            return False
        self._forget(username)
        return True

    def all(self) -> Sequence[tuple[str, str]]:
        """(account, username), ordered."""
        return sorted((user.account, user.username) for user in self._users.values())

    def of(self, account: str) -> Sequence[str]:
        """Names of the users of this account."""
        return [user.username for user in self._users.values() if user.account == account]

    def made_for(self, account: str, client_id: str) -> Sequence[str]:
        """Names of the users that were made for this client id."""
        return list(self._made_for.get((account, client_id), ()))

    async def admit(self, username: str, password: bytes, client_id: str) -> BrokerUser | str:
        """The user whose login this is, or why it is none; the reason is for our log alone."""
        user = self._users.get(username)
        if not await self._is_password_of(user, password, username) or user is None:
            return "bad_credentials"
        # Checking the password may take its time, in which the user may have changed or gone.
        if self._users.get(username) is not user:
            return "user_changed"
        return self.why_not(user, client_id) or user

    def why_not(self, user: BrokerUser, client_id: str) -> str | None:
        """None when this user may be connected under that client id."""
        if not user.enabled:
            return "user_disabled"
        if any(names.check_client_id(client_id)):  # in LOOSE mode it may be any text
            return "bad_client_id"
        if self._is_elsewhere(user.account, client_id):
            return "client_id_of_another_account"
        return may_connect(user, client_id, self._owner(user, client_id))

    async def _is_password_of(self, user: BrokerUser | None, password: bytes, username: str) -> bool:
        try:
            secret = Secret(password.decode())
        except UnicodeDecodeError:
            return False
        verifier, account = (None, "") if user is None else (user.verifier, user.account)
        verdict = self._verify(verifier, secret, account_user_id(account, username))
        return bool(await verdict if inspect.isawaitable(verdict) else verdict)

    def _is_elsewhere(self, account: str, client_id: str) -> bool:
        return self._shared_client_ids and bool(self._accounts_of.get(client_id, set()) - {account})

    def _owner(self, user: BrokerUser, client_id: str) -> BrokerUser | None:
        """Whom the client id was made for. When several were: a reserved one, else the asking one, else the first."""
        owners = self._made_for.get((user.account, client_id), {})
        reserved = [owner for owner in owners.values() if owner.reserved]
        return next(iter([*reserved, *filter(None, [owners.get(user.username)]), *owners.values()]), None)

    def _forget(self, username: str) -> None:
        user = self._users.pop(username, None)
        if user is not None:
            owners = self._made_for[user.account, user.client_id]
            del owners[username]
            if not owners:
                del self._made_for[user.account, user.client_id]
                accounts = self._accounts_of[user.client_id]
                accounts.discard(user.account)
                if not accounts:
                    del self._accounts_of[user.client_id]
