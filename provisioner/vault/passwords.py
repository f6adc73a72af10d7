"""Passwords of provision users: fast digests for generated ones, argon2id for human-chosen ones (D8).

The work done depends only on what the client sent, never on whether the user exists (F-20): a password
of the generated form takes one HMAC, any other takes one argon2id verification, real or dummy.
"""

import asyncio
import contextlib
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from provisioner.model.errors import Unavailable
from provisioner.model.secret import Secret
from provisioner.model.user import ProvisionUser
from provisioner.vault.generate import looks_generated
from provisioner.vault.keyring import KeyRing

PURPOSE = "provision password"
# OWASP Password Storage Cheat Sheet, argon2id minimum: 19 MiB, t=2, p=1; 24 ms on one core.
MEMORY_KIB, TIME_COST, LANES = 19_456, 2, 1


R = TypeVar("R")


class Passwords:
    """Makes and checks verifiers. ``close()`` ends its threads."""

    def __init__(
        self,
        ring: KeyRing,
        *,
        workers: int = 2,
        waiting_max: int = 64,
        waiting_of_site_max: int = 12,
        remembered_max: int = 4_096,
    ) -> None:
        """waiting_of_site_max: places in the pool for what comes from one site (see ``verify``)."""
        self._ring = ring
        self._hasher = PasswordHasher(time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=LANES)
        self._dummy = self._hasher.hash(secrets.token_hex(16))
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="argon2")
        self._waiting = 0
        self._waiting_max = waiting_max
        self._waiting_of_site: Counter[str] = Counter()
        self._waiting_of_site_max = waiting_of_site_max
        self._remembered: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._remembered_max = remembered_max
        self._under_way: dict[tuple[str, bytes], asyncio.Future[bool]] = {}

    async def verifier(self, username: str, password: Secret) -> str:
        """A verifier to store for ``username``."""
        if looks_generated(password):
            return self._ring.verifier(password, PURPOSE, username)
        return await self._on_pool(self._hasher.hash, password.reveal())

    async def verify(self, user: ProvisionUser | None, password: Secret, username: str, site: str = "") -> bool:
        """Whether the password is the user's. None stands for an unknown user: same work, False.

        site: where the login comes from; one that guesses leaves places in the pool for all others (F-19). Raises
        Unavailable when more verifications wait than the pool will take, in all or from there, whoever asks.
        """
        if looks_generated(password):
            stored = user.verifier if user is not None and user.verifier.startswith("hmac1$") else None
            return self._ring.verify(stored, password, PURPOSE, username)
        mark = self._ring.mark(password, username)
        if user is not None and self._remembered.get(username) == (user.verifier, mark):
            self._remembered.move_to_end(username)
            return True
        slow = user.verifier if user is not None and user.verifier.startswith("$argon2id$") else None
        genuine = await self._check_once(slow or self._dummy, mark, password, site)
        if genuine and slow is not None and user is not None:
            self._remember(username, user.verifier, mark)
            return True
        return False

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _check_once(self, verifier: str, mark: bytes, password: Secret, site: str) -> bool:
        """A fleet that powers up with one shared password costs one verification, not one a device."""
        question = (verifier, mark)
        running = self._under_way.get(question)
        if running is None:
            running = asyncio.ensure_future(self._check_for(site, verifier, password))
            self._under_way[question] = running
            running.add_done_callback(lambda _: self._under_way.pop(question, None))
        return await asyncio.shield(running)

    async def _check_for(self, site: str, verifier: str, password: Secret) -> bool:
        if self._waiting_of_site[site] >= self._waiting_of_site_max:
            raise Unavailable("too many password checks from there are waiting")
        self._waiting_of_site[site] += 1
        try:
            return await self._on_pool(self._check, verifier, password.reveal())
        finally:
            self._waiting_of_site[site] -= 1
            if not self._waiting_of_site[site]:
                del self._waiting_of_site[site]

    def _check(self, verifier: str, password: str) -> bool:
        with contextlib.suppress(VerificationError, InvalidHashError, UnicodeEncodeError):
            return self._hasher.verify(verifier, password)
        return False

    def _remember(self, username: str, verifier: str, mark: bytes) -> None:
        self._remembered[username] = (verifier, mark)
        while len(self._remembered) > self._remembered_max:
            self._remembered.popitem(last=False)

    async def _on_pool(self, work: Callable[..., R], *args: str) -> R:
        if self._waiting >= self._waiting_max:
            raise Unavailable("too many password checks are waiting")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        finally:
            self._waiting -= 1
