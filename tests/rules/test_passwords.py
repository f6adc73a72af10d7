"""Passwords of provision users: the same work whoever asks, one verification for many, and never too many (D8)."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from argon2 import PasswordHasher

from provisioner.model.errors import Unavailable
from provisioner.model.secret import Secret
from provisioner.model.user import ProvisionUser
from provisioner.vault import generate, passwords
from provisioner.vault.keyring import KeyRing
from provisioner.vault.passwords import Passwords
from tests.rules.nouns import NOON

HUMAN, WRONG = Secret("Abcdefghijk!"), Secret("Wrong-Canary-7f3a")
RING = KeyRing({"k1": b"\x01" * 32})
DEADLINE_S = 10.0


class Hasher:
    """Argon2id at its cheapest, that counts what it does and can be held up."""

    def __init__(self, **_: int) -> None:
        self._genuine = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        self.checked: list[str] = []
        self._begun = threading.Semaphore(0)
        self.free = threading.Event()
        self.free.set()

    def hash(self, password: str) -> str:
        return self._genuine.hash(password)

    def verify(self, verifier: str, password: str) -> bool:
        self.checked.append(verifier)
        self._begun.release()
        assert self.free.wait(DEADLINE_S)
        return self._genuine.verify(verifier, password)

    async def begun(self, count: int = 1) -> None:
        """Return once ``count`` more verifications have begun."""
        for _ in range(count):
            assert await asyncio.to_thread(self._begun.acquire, timeout=DEADLINE_S)


@pytest.fixture
def hasher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hasher]:
    made = Hasher()
    monkeypatch.setattr(passwords, "PasswordHasher", lambda **_: made)
    yield made
    made.free.set()


def run(scenario: Callable[[Passwords], Coroutine[Any, Any, None]], **settings: int) -> None:
    vault = Passwords(RING, **settings)
    try:
        asyncio.run(scenario(vault))
    finally:
        vault.close()


async def a_user(vault: Passwords, password: Secret = HUMAN, name: str = "lobby") -> ProvisionUser:
    return ProvisionUser(id=name, account="acme", verifier=await vault.verifier(name, password), created_at=NOON)


def test_the_settings_are_those_of_owasp() -> None:
    """D8: argon2id with 19 MiB and two passes, and a verifier that says so; a generated password needs an HMAC only."""

    async def scenario(vault: Passwords) -> None:
        slow = await vault.verifier("lobby", HUMAN)
        assert slow.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert (await vault.verifier("lobby", generate.password())).startswith("hmac1$k1$")
        assert await vault.verify(await a_user(vault), HUMAN, "lobby")

    run(scenario)


# F-20: the same work.


@pytest.mark.parametrize(
    ("stored", "sent", "genuine", "checks"),
    [
        (HUMAN, HUMAN, True, 1),
        (HUMAN, WRONG, False, 1),
        (HUMAN, Secret(""), False, 1),
        (None, HUMAN, False, 1),
        (None, WRONG, False, 1),
        ("generated", WRONG, False, 1),
        ("generated", "generated", True, 0),
        ("generated", "another", False, 0),
        (HUMAN, "another", False, 0),
        (None, "another", False, 0),
    ],
)
def test_the_work_depends_on_what_was_sent_and_on_nothing_else(
    stored: Secret | str | None, sent: Secret | str, genuine: bool, checks: int, hasher: Hasher
) -> None:
    """F-20: an unknown user, a wrong password and a right one cost one verification each, generated forms none."""
    generated = generate.password()

    def secret(which: Secret | str) -> Secret:
        if isinstance(which, Secret):
            return which
        return generated if which == "generated" else generate.password()

    async def scenario(vault: Passwords) -> None:
        user = None if stored is None else await a_user(vault, secret(stored))
        assert await vault.verify(user, secret(sent), "lobby") is genuine

    run(scenario)
    assert len(hasher.checked) == checks
    assert all(verifier.startswith("$argon2id$") for verifier in hasher.checked)


def test_an_unknown_user_is_checked_at_the_price_of_a_known_one() -> None:
    """F-20: the dummy verifier has the very parameters of a stored one."""

    async def scenario(vault: Passwords) -> None:
        known = (await a_user(vault)).verifier
        dummy = vault._dummy
        assert dummy.rsplit("$", 2)[0] == known.rsplit("$", 2)[0]
        assert len(dummy) == len(known)

    run(scenario)


def test_whoever_knows_the_dummy_is_still_nobody(hasher: Hasher, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-20: an unknown user is refused even by a password that the dummy verifier would accept."""

    async def scenario(vault: Passwords) -> None:
        monkeypatch.setattr(vault, "_dummy", hasher.hash(HUMAN.reveal()))
        assert not await vault.verify(None, HUMAN, "lobby")

    run(scenario)


@pytest.mark.parametrize("sent", ["\ud800Abcdefghijk!", "a" * 60_000, "Abcdefghijk!\x00"])
def test_any_text_can_be_sent(sent: str, hasher: Hasher) -> None:
    """F-38: half a character, far too long or with a NUL: wrong, and nothing else."""

    async def scenario(vault: Passwords) -> None:
        assert not await vault.verify(await a_user(vault), Secret(sent), "lobby")

    run(scenario)


# A fleet that powers up.


def test_two_hundred_identical_checks_are_one(hasher: Hasher) -> None:
    """D8, F-35: a fleet with one shared password costs one verification, not one a device."""

    async def scenario(vault: Passwords) -> None:
        user = await a_user(vault)
        hasher.free.clear()
        asked = [asyncio.create_task(vault.verify(user, HUMAN, "lobby")) for _ in range(200)]
        await hasher.begun()
        hasher.free.set()
        assert await asyncio.gather(*asked) == [True] * 200
        assert len(hasher.checked) == 1

    run(scenario, waiting_max=2)


def test_different_questions_are_not_one(hasher: Hasher) -> None:
    """D8: another password, another user or another verifier is verified by itself, whatever is under way."""

    async def scenario(vault: Passwords) -> None:
        mine, theirs = await a_user(vault), await a_user(vault, name="cellar")
        renewed = await a_user(vault, WRONG)
        hasher.free.clear()
        questions = [(mine, HUMAN), (mine, WRONG), (theirs, HUMAN), (renewed, HUMAN), (renewed, WRONG)]
        asked = [asyncio.create_task(vault.verify(user, sent, user.id)) for user, sent in questions]
        asked.append(asyncio.create_task(vault.verify(None, HUMAN, "lobby")))
        await hasher.begun(2)  # the pool's two threads are busy, the others wait
        hasher.free.set()
        assert await asyncio.gather(*asked) == [True, False, True, False, True, False]
        assert len(hasher.checked) == 6

    run(scenario, workers=2)


def test_one_who_gives_up_does_not_fail_the_others(hasher: Hasher) -> None:
    """F-35: the device that asked first may hang up; who waits for the same verification gets it."""

    async def scenario(vault: Passwords) -> None:
        user = await a_user(vault)
        hasher.free.clear()
        first, second = (asyncio.create_task(vault.verify(user, HUMAN, "lobby")) for _ in range(2))
        await hasher.begun()
        first.cancel()
        await asyncio.wait([first])
        hasher.free.set()
        assert await second
        assert len(hasher.checked) == 1

    run(scenario)


def test_a_verified_login_is_remembered(hasher: Hasher) -> None:
    """D8: the second device of a fleet costs no verification, a wrong password costs one every time."""

    async def scenario(vault: Passwords) -> None:
        user = await a_user(vault)
        assert [await vault.verify(user, HUMAN, "lobby") for _ in range(3)] == [True] * 3
        assert len(hasher.checked) == 1
        assert [await vault.verify(user, WRONG, "lobby") for _ in range(3)] == [False] * 3
        assert len(hasher.checked) == 4
        assert await vault.verify(user, HUMAN, "lobby")
        assert len(hasher.checked) == 4

    run(scenario)


def test_what_is_remembered_ends_with_the_verifier(hasher: Hasher) -> None:
    """D8: a former password is not remembered past its change, nor for another user, nor for an unknown one."""

    async def scenario(vault: Passwords) -> None:
        assert await vault.verify(await a_user(vault), HUMAN, "lobby")
        assert not await vault.verify(await a_user(vault, WRONG), HUMAN, "lobby")
        assert not await vault.verify(await a_user(vault, WRONG, "cellar"), HUMAN, "cellar")
        assert not await vault.verify(None, HUMAN, "lobby")

    run(scenario)


def test_the_memory_is_bounded_and_forgets_the_longest_unused(hasher: Hasher) -> None:
    """D8: two places for three users; the one that was not seen for longest is verified again."""

    async def scenario(vault: Passwords) -> None:
        users = {name: await a_user(vault, name=name) for name in ("aaa", "bbb", "ccc")}
        for name in ("aaa", "bbb", "aaa", "ccc"):
            assert await vault.verify(users[name], HUMAN, name)
        assert len(hasher.checked) == 3
        assert await vault.verify(users["aaa"], HUMAN, "aaa")
        assert len(hasher.checked) == 3
        assert await vault.verify(users["bbb"], HUMAN, "bbb")
        assert len(hasher.checked) == 4

    run(scenario, remembered_max=2)


# F-35: the pool.


@pytest.mark.parametrize("known", [True, False])
def test_a_full_pool_is_unavailable_to_everybody_alike(known: bool, hasher: Hasher) -> None:
    """D8, F-20, F-35: known or unknown, who finds the queue full is told so at once; generated ones need no place."""

    async def scenario(vault: Passwords) -> None:
        user = await a_user(vault)
        generated = generate.password()
        fast = await a_user(vault, generated, "fast")
        hasher.free.clear()
        waiting = [asyncio.create_task(vault.verify(None, Secret(f"guess {n}"), "lobby")) for n in range(3)]
        await hasher.begun()
        with pytest.raises(Unavailable, match="waiting"):
            await vault.verify(user if known else None, HUMAN, "lobby")
        assert await vault.verify(fast, generated, "fast")
        hasher.free.set()
        assert await asyncio.gather(*waiting) == [False] * 3
        assert await vault.verify(user, HUMAN, "lobby")

    run(scenario, workers=1, waiting_max=3)


def test_one_site_leaves_places_for_the_others(hasher: Hasher) -> None:
    """F-19, F-35: a site that guesses fills its own places only; they are free again when its guesses are judged."""

    async def scenario(vault: Passwords) -> None:
        user = await a_user(vault)
        hasher.free.clear()
        guesses = [asyncio.create_task(vault.verify(None, Secret(f"guess {n}"), "lobby", "there")) for n in range(2)]
        await hasher.begun()
        with pytest.raises(Unavailable, match="from there"):
            await vault.verify(None, WRONG, "lobby", "there")
        genuine = asyncio.create_task(vault.verify(user, HUMAN, "lobby", "here"))
        hasher.free.set()
        assert await asyncio.gather(*guesses, genuine) == [False, False, True]
        assert not await vault.verify(None, WRONG, "lobby", "there")

    run(scenario, workers=1, waiting_max=4, waiting_of_site_max=2)


def test_making_a_verifier_takes_a_place_too(hasher: Hasher) -> None:
    """F-35: administrators and devices share the bounded pool."""

    async def scenario(vault: Passwords) -> None:
        hasher.free.clear()
        waiting = asyncio.create_task(vault.verify(None, WRONG, "lobby"))
        await hasher.begun()
        with pytest.raises(Unavailable):
            await vault.verifier("lobby", HUMAN)
        hasher.free.set()
        await waiting

    run(scenario, workers=1, waiting_max=1)


def test_the_event_loop_stays_free_while_a_password_is_checked(hasher: Hasher) -> None:
    """D8: verification runs on threads of its own."""

    async def scenario(vault: Passwords) -> None:
        hasher.free.clear()
        checking = asyncio.create_task(vault.verify(None, HUMAN, "lobby"))
        await hasher.begun()
        assert not checking.done()  # the loop is running this line while the hasher is held up
        hasher.free.set()
        assert not await checking

    run(scenario)


def test_a_damaged_verifier_is_met_by_no_password(hasher: Hasher) -> None:
    """F-42: text that argon2 cannot read refuses, at the same price, and does not break the gate."""

    async def scenario(vault: Passwords) -> None:
        for verifier in ("$argon2id$", "$argon2id$v=19$m=8,t=1,p=1$AAAA$AAAA", "nonsense"):
            user = ProvisionUser(id="lobby", account="acme", verifier=verifier, created_at=NOON)
            assert not await vault.verify(user, HUMAN, "lobby")

    run(scenario)
    assert len(hasher.checked) == 3
