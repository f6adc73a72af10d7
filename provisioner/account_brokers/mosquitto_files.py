"""mosquitto on this host as an account broker: users in files, read again on a sign, one sign for all who wait.

The devices' listener replaces every client id by the user's name (`use_username_as_clientid`): mosquitto cannot bind
a client id to a user of a password file, and this way there is none to steal.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from provisioner.account_brokers.batching import Batch
from provisioner.account_brokers.mosquitto_link import ControlAddress, MosquittoLink
from provisioner.account_brokers.mosquitto_log import NOTICES, Arrived
from provisioner.account_brokers.mosquitto_passwords import Reload, digest_matches, password_digest
from provisioner.account_brokers.mosquitto_presence import Awaited, Presence
from provisioner.account_brokers.mosquitto_user_files import MARKS, KnownUser, UserFiles
from provisioner.model import names
from provisioner.model.capabilities import Capabilities
from provisioner.model.errors import Conflict, Unavailable
from provisioner.model.ports import BrokerUser, Gap, Sighting, heedless

_log = logging.getLogger(__name__)

UP_WITHIN_S = 3.0
PROVEN_WITHIN_S = 20.0
# Generated passwords have 128 bits and more: no number of iterations makes them harder to guess. mosquitto computes the
# digest of every connected device again at each reading, with 101 iterations 0.07 ms for each.
ITERATIONS = 1
_ASK_AGAIN_S, _ASK_AGAIN_S_MAX = 0.004, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesPlace:
    """folder: of the files. group: who may read them besides us. users_max: of this broker; sections_max: of them those
    who are not named by their home."""

    folder: Path
    group: str | None = None
    users_max: int = 25_000
    sections_max: int = 2_000
    control_prefix: str = "$EDC"


class MosquittoFiles:
    """An `AccountBroker`. Usernames are unique on it, so that one names its account."""

    def __init__(self, name: str, place: FilesPlace, control: ControlAddress, reload: Reload) -> None:
        self._name, self._place, self._control, self._reload = name, place, control, reload
        self._files = UserFiles(place.folder, place.control_prefix, place.group)
        self._link = MosquittoLink(control, (NOTICES, f"{MARKS}/#"))
        self._presence = Presence(self._sighting, self._there_before)
        self._batch = Batch(self._flush)
        # Users whose newest change mosquitto has not yet shown to have read, and the number of that change.
        self._unproven: dict[str, int] = {}
        self._is_read = False  # since the start; before, a crash may have come between the files and the sign
        self._changes = count(1)
        self._held_out: set[str] = set()  # to be cut by the next reading
        self._left_out: frozenset[str] = frozenset()  # by the newest one, also while it goes on
        self._awaited = Awaited()
        self._marks: dict[str, asyncio.Event] = {}

    @property
    def name(self) -> str:
        return self._name

    @property
    def is_up(self) -> bool:
        return self._link.is_up

    def capabilities(self) -> Capabilities:
        return Capabilities(
            kicks=True,
            reports_sightings=True,
            refuses_subscribe=False,
            mqtt5=True,
            checks_client_id=False,
            loose=False,
            users_max=self._place.users_max,
            home_usernames=True,
        )

    async def start(self, seen: Callable[[Sighting], None], gap: Callable[[Gap], None] = heedless) -> None:
        """Write the files, so that mosquitto can be started after us; then wait a little for it, but not for ever."""
        self._presence.tell, self._presence.gap = seen, gap
        await asyncio.to_thread(self._files.prepare, self._control.username, self._control.password)
        self._is_read = False
        await self._link.start(self._up, self._hear)
        if not await self._link.wait_up(UP_WITHIN_S):
            _log.warning("account broker %s: mosquitto does not answer yet", self._name)

    async def stop(self) -> None:
        await self._batch.settle()
        await self._link.stop()

    async def put_user(self, user: BrokerUser) -> None:
        """As the port says; Conflict when another account on this broker has the username."""
        former = self._files.users.get(user.username)
        known = self._known(user, former)
        if known != former:
            self._files.put(known)
            self._changed((user.username,))
        if self._is_unheard(user, known=former is not None):
            await self._cut({user.username})
        elif not self._is_proven(user.username):
            if known == former:
                self._link.check_up()
            await self._batch.request()
        while user.username in self._left_out:  # somebody cuts it just now
            await self._batch.request()

    async def remove_user(self, account: str, username: str) -> None:
        former = self._files.users.get(username)
        if former is not None and former.account == account:
            self._files.remove(username)
            self._awaited.forget(username)
            self._changed((username,))
        if not self._is_proven(username):
            await self._batch.request()

    async def kick(self, account: str, client_id: str) -> bool:
        """The user is left out of the files for one reading: mosquitto has no other way to end a connection."""
        self._link.check_up()
        users = self._files.users.values()
        made_for = {user.username for user in users if (user.account, user.client_id) == (account, client_id)}
        left = sum(self._presence.departures[username] for username in made_for)
        if made_for:
            await self._cut(made_for)
        return sum(self._presence.departures[username] for username in made_for) > left

    async def users(self) -> Sequence[tuple[str, str]]:
        return sorted((user.account, user.username) for user in self._files.users.values())

    def _known(self, user: BrokerUser, former: KnownUser | None) -> KnownUser:
        problem = self._problem(user)
        if problem is not None:
            raise Conflict(f"mosquitto cannot be given this user: {problem}")
        if former is not None and former.account != user.account:
            raise Conflict("another account on this broker has a user of that name")
        if former is None:
            self._check_room(user)
        digest = former.digest if former is not None else None
        if user.password is not None and (digest is None or not digest_matches(digest, user.password)):
            digest = password_digest(user.password, iterations=ITERATIONS)
        if digest is None:
            raise Unavailable(
                f"account broker {self._name} does not know {user.username}, whose password is kept nowhere"
            )
        return KnownUser(user.account, user.username, user.client_id, digest, user.enabled)

    def _problem(self, user: BrokerUser) -> str | None:
        if user.username == self._control.username:
            return "the name is that of the service"
        if user.username == user.account:
            return "the name is that of the account"
        is_home = user.username == self.capabilities().home_username(user.account, user.client_id)
        rules = () if is_home else names.check_username(user.username)
        return next(iter([*rules, *names.check_client_id(user.client_id)]), None)

    def _check_room(self, user: BrokerUser) -> None:
        if len(self._files.users) >= self._place.users_max:
            raise Unavailable(
                f"account broker {self._name} has its {self._place.users_max} users (users_max); more of them make "
                "every change slow: use another broker of this kind, or one of kind http-callback or certificate"
            )
        is_home = user.username == f"{user.account}/{user.client_id}"
        if not is_home and self._files.sections >= self._place.sections_max:
            raise Unavailable(
                f"account broker {self._name} has {self._place.sections_max} devices under a second name, which make "
                "every change slow: re-arm with --cut, so that a device gets its first name again"
            )

    def _changed(self, usernames: Iterable[str]) -> None:
        self._unproven |= {username: next(self._changes) for username in usernames}

    def _is_proven(self, username: str) -> bool:
        """Whether mosquitto has read what is known of the user, or that there is none."""
        return self._is_read and username not in self._unproven

    async def _flush(self) -> None:
        """Everything that is known by now, read by mosquitto. Raises Unavailable; then it is tried at the next one."""
        taken = dict(self._unproven)
        mark, lines, out = secrets.token_hex(8), self._files.lines(), frozenset(self._held_out)
        self._left_out |= out
        await asyncio.to_thread(self._files.write, lines, out, self._control.username, mark)
        self._link.check_up()
        await asyncio.to_thread(self._reload)
        await self._proven(mark)
        self._left_out, self._is_read = out, True
        self._unproven = {name: change for name, change in self._unproven.items() if taken.get(name) != change}

    async def _proven(self, mark: str) -> None:
        """Only who has read the file that was written last delivers this mark; before, it may not even be sent."""
        heard = self._marks[mark] = asyncio.Event()
        pause_s, deadline_s = _ASK_AGAIN_S, asyncio.get_running_loop().time() + PROVEN_WITHIN_S
        try:
            while asyncio.get_running_loop().time() < deadline_s:
                self._link.publish(f"{MARKS}/{mark}", b"", qos=1)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(heard.wait(), pause_s)
                    return
                pause_s = min(pause_s * 2, _ASK_AGAIN_S_MAX)
            raise Unavailable("mosquitto did not read its files again; its log says why")
        finally:
            del self._marks[mark]

    async def _cut(self, usernames: set[str]) -> None:
        self._held_out |= usernames
        try:
            await self._batch.request()
        finally:
            self._held_out -= usernames
            self._changed(usernames)
            await self._batch.request()

    def _up(self, kept_session: bool) -> None:
        """A mosquitto that was started anew may have let in awaited devices before it was listened to."""
        unheard: set[str] = set()
        if not kept_session:
            self._presence.begin_anew(self._name)
            unheard = self._awaited.gap()
        self._link.soon(self._catch_up(unheard))

    async def _catch_up(self, unheard: set[str]) -> None:
        try:
            if unheard:
                await self._cut(unheard)  # those who are there come again, and are seen
            elif self._unproven or not self._is_read:
                await self._batch.request()
        except Unavailable as error:
            _log.warning("account broker %s: %s", self._name, error)

    def _is_unheard(self, user: BrokerUser, *, known: bool) -> bool:
        if not user.enabled or user.password is None:
            return False
        return self._awaited.granted(user.username, known=known, is_there=self._presence.is_there(user.username))

    def _hear(self, topic: str, payload: bytes) -> None:
        if topic == NOTICES:
            self._presence.hear(payload)
        elif (mark := self._marks.get(topic.removeprefix(f"{MARKS}/"))) is not None:
            mark.set()

    def _there_before(self, client_id: str) -> Iterator[Sighting]:
        if (user := self._files.users.get(client_id)) is not None:
            yield Sighting(account=user.account, username=user.username, client_id=user.client_id, address=None)

    def _sighting(self, arrived: Arrived) -> Sighting | None:
        user = self._files.users.get(arrived.username)
        if user is None or arrived.client_id != arrived.username:  # not by the devices' listener
            return None
        self._awaited.seen(arrived.username)
        return Sighting(account=user.account, username=user.username, client_id=user.client_id, address=arrived.address)
