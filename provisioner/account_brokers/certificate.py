"""mosquitto that trusts our authority: the certificate is the account, and nothing is written for a device.

Its common name ``<account>/<client id>`` is the user's name and, by ``use_username_as_clientid``, the client id too;
two patterns in the rights of all give each its own topics. Who may no longer come is on the revocation list, which
mosquitto reads again on a sign; who is there is ended by taking its client id over. So is whoever else comes by a
certificate of the authority, which certifies devices of other account brokers as well.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt

from provisioner.account_brokers.batching import Batch
from provisioner.account_brokers.certificate_record import CertificateRecord, Holder
from provisioner.account_brokers.mosquitto_link import ControlAddress, MosquittoLink
from provisioner.account_brokers.mosquitto_log import NOTICES, Arrived, read_identity_notice
from provisioner.account_brokers.mosquitto_passwords import Reload, password_digest, replace_file
from provisioner.account_brokers.mosquitto_presence import Presence
from provisioner.account_brokers.mosquitto_user_files import (
    CONTROL_ACL,
    CONTROL_PASSWORDS,
    MARKS,
    OURS_ONLY,
    WITH_GROUP,
    control_acl,
)
from provisioner.model.capabilities import Capabilities
from provisioner.model.errors import Conflict, Unavailable
from provisioner.model.ports import BrokerUser, Gap, Sighting, heedless

_log = logging.getLogger(__name__)

REVOKED, ACL = "revoked.pem", "acl"
HOME_CHARACTERS_MAX = 64  # of a common name (RFC 5280, ub-common-name)
UP_WITHIN_S = 3.0
PROVEN_WITHIN_S = 10.0
TAKEN_WITHIN_S = 2.0
_ASK_AGAIN_S = 0.02

_NOTHING_IS_OLDER_S = 91 * 86_400  # than the certificates of a device

Sign = Callable[[Sequence[str]], str]
"""Serials, lower-case hex -> the revocation list, PEM; each newer than the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePlace:
    """folder: of what mosquitto reads. group: who may read it besides us."""

    folder: Path
    group: str | None = None
    control_prefix: str = "$EDC"


@dataclass(slots=True)
class _Ending:
    """A client id that is being taken over. told: mosquitto said that our connection ended, so what was there had
    ended before."""

    left_before: int
    told: asyncio.Event = field(default_factory=asyncio.Event)
    was_there: bool = False


class CertificateBroker:
    """An `AccountBroker` for any number of accounts. Passwords have no meaning on it."""

    def __init__(
        self,
        name: str,
        place: CertificatePlace,
        control: ControlAddress,
        reload: Reload,
        sign: Sign,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._name, self._place, self._control, self._reload, self._sign = name, place, control, reload, sign
        self._now_s = now_s
        self._record = CertificateRecord(place.folder)
        self._writing = asyncio.Lock()
        self._link = MosquittoLink(control, (NOTICES, f"{MARKS}/#"))
        self._presence = Presence(self._sighting, self._there_before, read_identity_notice)
        self._batch = Batch(self._flush)
        self._proven: set[str] = set()
        self._to_cut: set[str] = set()
        self._ending: dict[str, _Ending] = {}
        self._strangers: dict[str, bool] = {}  # who is being ended, and whether it came again meanwhile
        self._seen: Callable[[Sighting], None] = lambda sighting: None
        self._changes, self._changes_read = 1, 0  # of the list; what mosquitto read before us may be an older one

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
            certificate_logins=True,
            home_characters_max=HOME_CHARACTERS_MAX,
        )

    async def start(self, seen: Callable[[Sighting], None], gap: Callable[[Gap], None] = heedless) -> None:
        """Write the files, so that mosquitto can be started after us; then wait a little for it, but not for ever."""
        self._seen, self._presence.tell, self._presence.gap = seen, self._tell, gap
        await asyncio.to_thread(self.prepare)
        await asyncio.to_thread(self._record.shrink, self._now_s() - _NOTHING_IS_OLDER_S)
        self._to_cut = self._record.shut_homes()  # a crash may have come before that
        await self._link.start(self._up, self._hear)
        if await self._link.wait_up(UP_WITHIN_S):
            await self._catch_up()
        else:
            _log.warning("account broker %s: mosquitto does not answer yet", self._name)

    async def stop(self) -> None:
        await self._batch.settle()
        await self._link.stop()

    def prepare(self) -> list[Path]:
        """Everything that mosquitto needs to be started; the files. The record stays as it is, for a service that runs
        writes to it. Blocks. Raises Unavailable."""
        service, prefix = self._control.username, self._place.control_prefix
        self._record.load()
        self._write(REVOKED, self._sign(self._record.refused()))
        self._write(ACL, f"pattern readwrite %u/#\npattern readwrite {prefix}/%u/#\n")
        self._write(CONTROL_PASSWORDS, f"{service}:{password_digest(self._control.password)}\n")
        self._write(CONTROL_ACL, control_acl(service, secrets.token_hex(8)))
        return [self._place.folder / name for name in (REVOKED, ACL, CONTROL_PASSWORDS, CONTROL_ACL)]

    async def put_user(self, user: BrokerUser) -> None:
        """As the port says; Conflict when another account on this broker has the username."""
        if len(f"{user.account}/{user.client_id}") > HOME_CHARACTERS_MAX:
            raise Conflict(f"account and client id have more than {HOME_CHARACTERS_MAX} characters together")
        former = self._record.get(user.username)
        if former is not None and former.account != user.account:
            raise Conflict("another account on this broker has a user of that name")
        certificates = user.certificates or (former.certificates if former else ())
        holder = Holder(user.account, user.username, user.client_id, certificates, user.enabled, 0)
        await self._changing(holder.home, lambda: self._record.put(holder))
        if former is None:
            self._link.check_up()

    async def remove_user(self, account: str, username: str) -> None:
        holder = self._record.last(username)
        if holder is not None and holder.account == account:
            await self._changing(holder.home, lambda: self._record.remove(username, self._now_s()))
        elif self._is_stale:
            await self._batch.request()

    async def kick(self, account: str, client_id: str) -> bool:
        self._link.check_up()
        return await self._take_over(f"{account}/{client_id}")

    async def users(self) -> Sequence[tuple[str, str]]:
        return sorted((holder.account, holder.username) for holder in self._record.present())

    async def _changing(self, home: str, change: Callable[[], Holder | None]) -> None:
        """The change, what it refuses or lets in again, and the end of a connection whose certificate it refused."""
        async with self._writing:
            if (holder := change()) is not None:
                await asyncio.to_thread(self._record.write, holder)
                changed = self._record.keep(holder)
                self._changes += bool(changed)
                self._to_cut |= {home} if changed.ends else set()
        if not self._is_stale and home not in self._to_cut:
            return
        self._link.check_up()
        if self._is_stale:
            await self._batch.request()
        if home in self._to_cut:
            await self._take_over(home)
            self._to_cut.discard(home)

    @property
    def _is_stale(self) -> bool:
        return self._changes_read < self._changes

    async def _catch_up(self) -> None:
        """A crash may have come between the list and the sign."""
        try:
            if self._is_stale:
                await self._batch.request()
        except Unavailable as error:
            _log.warning("account broker %s: %s", self._name, error)

    async def _flush(self) -> None:
        """The list that holds now, read by mosquitto. Raises Unavailable; then it is tried at the next change."""
        changes, refused, mark = self._changes, self._record.refused(), secrets.token_hex(8)
        await asyncio.to_thread(lambda: self._write(REVOKED, self._sign(refused)))
        await asyncio.to_thread(self._write, CONTROL_ACL, control_acl(self._control.username, mark))
        await asyncio.to_thread(self._reload)
        deadline_s = asyncio.get_running_loop().time() + PROVEN_WITHIN_S
        while mark not in self._proven:
            if asyncio.get_running_loop().time() > deadline_s:
                raise Unavailable("mosquitto did not read its files again; its log says why")
            self._link.publish(f"{MARKS}/{mark}", b"", qos=1)
            await asyncio.sleep(_ASK_AGAIN_S)
        self._proven.clear()
        self._changes_read = changes

    async def _take_over(self, home: str) -> bool:
        """The newest connection of a client id is the only one; ours ends at once. False when there was no other."""
        ending = self._ending.setdefault(home, _Ending(self._presence.departures[home]))
        try:
            await asyncio.to_thread(self._connect_as, home)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.told.wait(), TAKEN_WITHIN_S)
        finally:
            self._ending.pop(home, None)
        return ending.was_there

    def _connect_as(self, client_id: str) -> None:
        client = self._control.client(client_id, clean=True, comes_back=False)
        client.on_connect = _leave
        try:
            client.connect(self._control.host, self._control.port, keepalive=5)
            client.loop_forever(timeout=0.1)
        except OSError as error:
            raise Unavailable(f"mosquitto does not answer: {type(error).__name__}") from None

    def _write(self, name: str, text: str) -> None:
        group = self._place.group
        try:
            replace_file(self._place.folder / name, text, mode=WITH_GROUP if group else OURS_ONLY, group=group)
        except (OSError, LookupError) as error:
            raise Unavailable(f"{self._place.folder / name} cannot be written: {type(error).__name__}") from None

    def _up(self, kept_session: bool) -> None:
        if not kept_session:
            self._presence.begin_anew(self._name)
        self._link.soon(self._catch_up())

    def _stranger_came(self, name: str) -> None:
        is_being_ended = name in self._strangers
        self._strangers[name] = True
        if not is_being_ended:
            _log.warning("account broker %s: a certificate of no device of it: %r", self._name, name)
            self._link.soon(self._end_stranger(name))

    async def _end_stranger(self, name: str) -> None:
        try:
            while self._strangers[name]:
                self._strangers[name] = False
                await self._take_over(name)
        except Unavailable as error:
            _log.warning("account broker %s: %r may stay: %s", self._name, name, error)
        finally:
            del self._strangers[name]

    def _tell(self, sighting: Sighting) -> None:
        ending = self._ending.get(f"{sighting.account}/{sighting.client_id}")
        if ending is not None and not sighting.connected:
            ending.was_there = True
        self._seen(sighting)

    def _hear(self, topic: str, payload: bytes) -> None:
        if topic == NOTICES:
            self._presence.hear(payload)
            for home, ending in self._ending.items():
                if self._presence.departures[home] > ending.left_before:
                    ending.told.set()
        else:
            self._proven.add(topic.removeprefix(f"{MARKS}/"))

    def _there_before(self, client_id: str) -> Iterator[Sighting]:
        holder = self._record.at(client_id)
        if holder is not None and client_id not in self._ending:  # else it is we who leave
            yield Sighting(account=holder.account, username=holder.username, client_id=holder.client_id, address=None)

    def _sighting(self, arrived: Arrived) -> Sighting | None:
        if arrived.client_id != arrived.username:  # not by the devices' listener
            return None
        holder = self._record.at(arrived.client_id)
        if holder is None:
            self._stranger_came(arrived.client_id)
            return None
        return Sighting(
            account=holder.account, username=holder.username, client_id=holder.client_id, address=arrived.address
        )


def _leave(client: mqtt.Client, *_: Any) -> None:
    client.disconnect()
