"""Account brokers that ask us over HTTP: users and rules in memory, one endpoint, and a format for each broker."""

import base64
import binascii
import contextlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from provisioner.account_brokers.callback_values import (
    Act,
    Arrival,
    CallbackFormat,
    Departure,
    HttpRequest,
    HttpResponse,
    Login,
    Question,
    Settled,
    Topics,
    Verdict,
)
from provisioner.account_brokers.http_server import Handler
from provisioner.account_brokers.management import Management
from provisioner.account_brokers.seats import Seats
from provisioner.account_brokers.user_book import UserBook, Verify
from provisioner.model.capabilities import Capabilities
from provisioner.model.errors import Unavailable
from provisioner.model.ports import BrokerUser, Gap, Sighting, heedless
from provisioner.model.secret import Secret
from provisioner.model.topics import DeviceTopics

_log = logging.getLogger(__name__)
_NO = Verdict((False,))


class Server(Protocol):
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class Others(Protocol):
    """What is known to others who are asked about the same users."""

    async def look_up(self, username: str) -> None:
        """Put the user here if there is one. Raises Unavailable; then somebody else has to be asked."""

    async def know_all(self) -> None:
        """Put every user here. Raises Unavailable."""


class HttpCallbackBroker:
    """An `AccountBroker` for any number of accounts. Usernames are unique on it, so that one names its account.

    Nothing is written at the broker: a user exists once we would say yes. Where we are not asked in time nobody gets
    in, and who is in stays in."""

    def __init__(
        self,
        name: str,
        format: CallbackFormat,
        serve: Callable[[Handler], Server],
        verify: Verify,
        now: Callable[[], datetime],
        *,
        secret: Secret | None,
        management: Management | None = None,
        control_prefix: str = "$EDC",
    ) -> None:
        """serve: makes the endpoint. secret: what the broker proves itself by, as password of HTTP Basic or as Bearer;
        None where it does so by its TLS certificate. management: None when nobody can be cut."""
        self._name, self._format, self._now = name, format, now
        self._secret, self._management, self._control_prefix = secret, management, control_prefix
        self._book = UserBook(verify, shared_client_ids=True)
        self._server = serve(self.handle)
        self._seats = Seats()
        self._is_asked = False
        self._sighted: Callable[[Sighting], None] = _nobody
        self._others: Others | None = None
        self._make_certain: Callable[[Sighting], Awaitable[None]] | None = None
        self._tell: Callable[[str, str, BrokerUser | None], Awaitable[None]] | None = None
        self._guests: set[str] = set()  # usernames that another gate answers for

    @property
    def name(self) -> str:
        return self._name

    def capabilities(self) -> Capabilities:
        return Capabilities(
            kicks=self._management is not None,
            reports_sightings=True,
            reports_leaving=self._format.reports_leaving,
            refuses_subscribe=True,
            refusal_disconnects=self._format.refusal_disconnects,
            mqtt5=self._format.mqtt5,
            client_id_forbidden=self._format.client_id_forbidden,
            client_ids_shared=True,
            keeps_users=False,
        )

    async def start(self, seen: Callable[[Sighting], None], gap: Callable[[Gap], None] = heedless) -> None:
        """With others somebody heard what the broker told meanwhile."""
        self._sighted, self._is_asked = seen, True
        if self._format.reports_leaving and self._others is None:
            gap(Gap(self._name, all_left=False))
        await self._server.start()

    def one_of_many(
        self,
        others: Others,
        make_certain: Callable[[Sighting], Awaitable[None]],
        tell: Callable[[str, str, BrokerUser | None], Awaitable[None]],
    ) -> None:
        """Others are asked about the same users, and any of them may die at any moment.

        others: what the others know can be learned. make_certain: returns when a first arrival is noted for
        good; before that it is answered with no yes, since nobody might be asked about it a second time. Raises
        Unavailable. tell: is told account, username and user whenever one was put here, or taken away (None)."""
        self._others, self._make_certain, self._tell = others, make_certain, tell

    def entertain(self, account: str, username: str, user: BrokerUser | None) -> None:
        """A user that another gate has put and will take away again (None): it is not ours to list."""
        if user is not None and self._book.get(username) is None:
            self._guests.add(username)
            self._book.put(user)
        elif user is None and username in self._guests:
            self._guests.discard(username)
            self._book.remove(account, username)

    async def stop(self) -> None:
        await self._server.stop()

    async def put_user(self, user: BrokerUser) -> None:
        """As the port says; Conflict when another account on this broker has the username or the client id. Unavailable
        when a connection that has become unlawful cannot be cut now; the next login is refused all the same.

        Before the start nobody is cut, so that a broker whose management is away does not hold it up: whoever was left
        to be cut is put once more by the effect that says so."""
        if any(c in user.client_id for c in self._format.client_id_forbidden):
            raise Unavailable(f"a client id with one of {self._format.client_id_forbidden!r} cannot be on {self._name}")
        self._book.put(user)
        if self._tell is not None:
            await self._tell(user.account, user.username, user)
        if not user.enabled and self._is_asked:
            await self._cut(user.account, user.username)
        await self._cut_unlawful(user)

    async def remove_user(self, account: str, username: str) -> None:
        known = self._book.get(username)
        if known is None or known.account == account:
            self._book.remove(account, username)
            if self._tell is not None:
                await self._tell(account, username, None)
            await self._cut(account, username)

    async def kick(self, account: str, client_id: str) -> bool:
        if self._management is None:
            return False
        seated = self._seats.at(account, client_id)
        users = {*self._book.made_for(account, client_id), *([seated] if seated else ())}
        return any([await self._management.cut(username, client_id) for username in sorted(users)])

    async def users(self) -> Sequence[tuple[str, str]]:
        if self._others is not None:
            await self._others.know_all()
        return [each for each in self._book.all() if each[1] not in self._guests]

    def knows(self, account: str, username: str) -> bool:
        known = self._book.get(username)
        return known is not None and known.account == account

    def known_of(self, account: str, client_id: str | None) -> Sequence[str]:
        """Names of the users that were made for this client id; for None all of the account."""
        return self._book.of(account) if client_id is None else self._book.made_for(account, client_id)

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """One callback. Whatever is not understood is answered with a status that no broker takes for a yes."""
        if not self._is_our_broker(request):
            return HttpResponse(401, headers={"www-authenticate": "Basic"})
        question = self._format.read(request)
        if question is None:
            return HttpResponse(400)
        try:
            verdict = await self._judge(question)
        except Unavailable as error:
            _log.warning("a callback is not answered: %s", error)
            return HttpResponse(503)
        return self._format.answer(request, question, verdict, self._now())

    def _is_our_broker(self, request: HttpRequest) -> bool:
        if self._secret is None:
            return True
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                value = base64.b64decode(value, validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        return hmac.compare_digest(value.encode(), self._secret.reveal().encode())

    async def _judge(self, question: Question) -> Verdict:
        others = self._others
        if others is None or self._make_certain is None:
            return await self._judge_known(question)
        is_new = self._may_be_new(question)
        if is_new and isinstance(question, Login | Topics | Arrival):
            await others.look_up(question.username)
        verdict = await self._judge_known(question)
        if isinstance(question, Login) and not verdict.allowed and not is_new:  # each refusal costs the same (F-20)
            await others.look_up(question.username)
            verdict = await self._judge_known(question)
        if verdict.allowed and (isinstance(question, Arrival) or (isinstance(question, Login) and question.arrives)):
            await self._note_first(question, self._make_certain)
        return verdict

    def _may_be_new(self, question: Question) -> bool:
        match question:
            case Login(username):
                return self._book.get(username) is None
            case Topics(username, client_id) | Arrival(username, client_id):
                return self._lawful(username, client_id) is None
            case _:
                return False

    async def _note_first(self, came: Arrival | Login, make_certain: Callable[[Sighting], Awaitable[None]]) -> None:
        """A clear password is known only of users who were never seen."""
        user = self._book.get(came.username)
        if user is None or user.password is None:
            return
        await make_certain(
            Sighting(account=user.account, username=user.username, client_id=came.client_id, address=came.address)
        )
        if self._book.get(came.username) is user:
            self._book.put(replace(user, password=None))

    async def _judge_known(self, question: Question) -> Verdict:
        match question:
            case Login():
                return await self._login(question)
            case Topics(username, client_id, act, topics):
                user = self._lawful(username, client_id)
                if user is None:
                    return Verdict((False,) * len(topics))
                own = self._own(user, client_id)
                may = own.may_subscribe if act is Act.SUBSCRIBE else own.may_publish
                return Verdict(tuple(may(topic) for topic in topics), own)
            case Arrival(username, client_id, address, connection):
                user = self._lawful(username, client_id)
                if user is not None:
                    self._arrived(user, client_id, address, connection)
                elif self._book.get(username) is not None:
                    await self._cut_late(username, client_id)
                return Verdict((user is not None,))
            case Departure():
                self._left(question)
                return Verdict((True,))
            case Settled(allowed):
                return Verdict((allowed,))

    async def _login(self, login: Login) -> Verdict:
        user = await self._book.admit(login.username, login.password, login.client_id)
        if isinstance(user, str):
            _log.info("login refused from %s: %s", login.address, user)
            return _NO
        if any(c in login.client_id for c in self._format.client_id_forbidden):
            _log.info("login refused from %s: bad_client_id", login.address)
            return _NO
        if login.arrives:
            self._arrived(user, login.client_id, login.address)
        return Verdict((True,), self._own(user, login.client_id))

    def _own(self, user: BrokerUser, client_id: str) -> DeviceTopics:
        return DeviceTopics(user.account, client_id, self._control_prefix)

    def _lawful(self, username: str, client_id: str) -> BrokerUser | None:
        user = self._book.get(username)
        return user if user is not None and self._book.why_not(user, client_id) is None else None

    def _arrived(self, user: BrokerUser, client_id: str, address: str | None, connection: str | None = None) -> None:
        self._seats.take(user.account, client_id, user.username, connection)
        arrived = Sighting(
            account=user.account, username=user.username, client_id=client_id, address=address, connection=connection
        )
        self._sighted(arrived)

    def _left(self, gone: Departure) -> None:
        """The end of a connection that was taken over from, perhaps by one on another node, is none (esf 4.7). Who came
        before our start, or was told to another gate, has no seat here: of them the registry knows the newest."""
        user = self._book.get(gone.username)
        if user is None:
            return
        if self._seats.at(user.account, gone.client_id) is None:
            told = self._leave(user.account, gone.username, gone.client_id, lost=gone.lost)
            self._sighted(replace(told, connection=gone.connection))
        elif self._seats.is_taken_by(user.account, gone.client_id, gone.username, gone.connection):
            self._sighted(self._leave(user.account, gone.username, gone.client_id, lost=gone.lost))

    def _leave(self, account: str, username: str, client_id: str, *, lost: bool = False) -> Sighting:
        connection = self._seats.connection(account, client_id)
        self._seats.leave(account, client_id)
        return Sighting(
            account=account,
            username=username,
            client_id=client_id,
            address=None,
            connected=False,
            lost=lost,
            connection=connection,
        )

    async def _cut_unlawful(self, user: BrokerUser) -> None:
        """Whom the change of this user put out of place: itself elsewhere, somebody else under its client id."""
        places = [(user.username, each) for each in self._seats.of(user.username)]
        places += [(seated, user.client_id) for seated in self._seats.under(user.client_id)]
        for username, client_id in places:
            if self._lawful(username, client_id) is None:
                known = self._book.get(username)
                await self._cut(known.account if known is not None else user.account, username)

    async def _cut_late(self, username: str, client_id: str) -> None:
        """It was let in before its rights ended and is only reported now."""
        if self._management is not None:
            with contextlib.suppress(Unavailable):
                await self._management.cut(username, client_id)

    async def _cut(self, account: str, username: str) -> None:
        gone = [self._leave(account, username, client_id) for client_id in self._seats.of(username)]
        if self._management is not None:
            await self._management.cut(username, None)
            for each in gone:  # its broker's own word, if it comes at all, changes nothing then
                self._sighted(each)


def _nobody(sighting: Sighting) -> None:
    """Nobody listens before the start."""
