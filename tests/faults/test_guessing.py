"""F-19, F-20, F-22: guessing passwords, learning names from refusals, and a shared password in wrong hands."""

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from broker.packets import V5, V311, Version
from provisioner.doors.control_client import Refused
from provisioner.vault import generate
from tests.faults.scene import NOT_AUTHORIZED, WAYS, FreshId, door, new_source, resident, spy_on
from tests.support.device import Address, Credentials, JsonDevice, Wire
from tests.support.installation import Installation

RATE_EXCEEDED = {V311: 3, V5: 0x9F}
CHOSEN = "Correct-horse-battery"
SOON_S = 5.0  # whoever does not guess is let in


def attempt(gate: Address, client_id: str, username: str, password: str, version: Version = V5) -> int:
    with Wire(gate, version) as wire:
        return wire.connect(client_id, username, password)


def wrong() -> str:
    return generate.password().reveal()


@pytest.mark.parametrize("version", [V311, V5])
@pytest.mark.parametrize("name", ["plain", "secure", "websocket"])
def test_f_19_ten_wrong_passwords_lock_that_device_at_that_address(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-19: after ten the right password is not even tried, at any listener; elsewhere and for others all goes on."""
    username, source = f"factory-{fresh_id()}", new_source()
    target, neighbour = fleet_pair(shared_installation, fresh_id, username)
    gate = door(shared_installation, name, source)
    codes = [attempt(gate, target.client_id, username, wrong(), version) for _ in range(12)]
    assert codes == [NOT_AUTHORIZED[version]] * 10 + [RATE_EXCEEDED[version]] * 2
    for other_door in ("plain", "secure", "websocket"):
        same_source = door(shared_installation, other_door, source)
        assert attempt(same_source, target.client_id, username, target.password, version) == RATE_EXCEEDED[version]
    with JsonDevice(gate, neighbour, version) as device:
        assert device.ask()["status"] == "provisioned", "same user, same address, other client id"
    with JsonDevice(door(shared_installation, name, new_source()), target, version) as device:
        assert device.ask()["status"] == "provisioned", "same user, same client id, other address"
    assert shared_installation.await_audit("connect.refused", address=source, reason="locked_out")


def fleet_pair(
    installation: Installation, fresh_id: FreshId, username: str, password: str | None = None
) -> tuple[Credentials, Credentials]:
    """Two devices with the same factory user and password, each with its own key."""
    one = installation.request(fresh_id(), username=username, activation_key=True, password=password)
    client_id = fresh_id()
    fields = {"account": "acme", "client_id": client_id, "username": username, "activation_key": True}
    key = installation.ask("request.create", fields=fields)["secrets"]["activation_key"]
    return one, replace(one, client_id=client_id, activation_key=key)


def test_f_19_a_lock_ends_by_itself(make_installation: Callable[..., Installation]) -> None:
    """F-19: when its time is over the device at that address gets in again, without an administrator."""
    installation = make_installation(gate={"limits": {"lockout_s": 1.0}})
    with installation.running():
        installation.account()
        target = installation.request("target")
        codes = {attempt(installation.plain, "target", target.username, wrong()) for _ in range(10)}
        assert codes == {NOT_AUTHORIZED[V5]}
        locked_s = time.monotonic()
        assert attempt(installation.plain, "target", target.username, target.password) == RATE_EXCEEDED[V5]
        while attempt(installation.plain, "target", target.username, target.password) != 0:
            assert time.monotonic() - locked_s < 5
        assert time.monotonic() - locked_s > 0.5


class Guessers:
    """Threads that guess until the block ends. ``codes``: what they were told."""

    def __init__(self, guess: Callable[[int], int], threads: int = 4) -> None:
        self.codes: Counter[int] = Counter()
        self._guess, self._done, self._lock = guess, threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._go_on, args=(n, threads)) for n in range(threads)]

    def __enter__(self) -> "Guessers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def await_told(self, code: int, count: int) -> None:
        until_s = time.monotonic() + 20
        while self.codes[code] < count:
            assert time.monotonic() < until_s, f"{self.codes}"
            time.sleep(0.02)

    def _go_on(self, number: int, step: int) -> None:
        while not self._done.is_set():
            code = self._guess(number)
            number += step
            with self._lock:
                self.codes[code] += 1


def seconds_until_in(gate: Address, credentials: Credentials) -> float:
    """How long a device that tries every 50 ms takes to be admitted, and then to be provisioned."""
    started_s = time.monotonic()
    while True:
        try:
            with JsonDevice(gate, credentials, V5) as device:
                assert device.ask()["status"] == "provisioned"
                return time.monotonic() - started_s
        except ConnectionRefusedError:
            assert time.monotonic() - started_s < 20, "it never got in"
            time.sleep(0.05)


def get_in_at_once(gate: Address, credentials: Credentials) -> None:
    """Admitted at its first try, however long that takes: a throttle that is waited for would refuse it."""
    with JsonDevice(gate, credentials, V5) as device:
        assert device.ask()["status"] == "provisioned"


@contextmanager
def with_account(installation: Installation) -> Iterator[Installation]:
    with installation.running():
        installation.account()
        yield installation


@pytest.mark.parametrize(("form", "at_once"), [("generated", 4), ("chosen", 4), ("chosen", 40)])
def test_f_19_one_address_many_users(make_installation: Callable[..., Installation], form: str, at_once: int) -> None:
    """F-19: while an address tries user after user, its rate is bounded, and devices get in there and elsewhere."""
    with with_account(make_installation()) as installation:
        gate = door(installation, "plain", "127.0.0.2")
        newcomer = installation.request("newcomer")
        chosen, elsewhere = (installation.request(name, password=CHOSEN) for name in ("chosen", "elsewhere"))
        guess = wrong if form == "generated" else lambda: CHOSEN
        with spy_on(installation, "spy") as spy:
            started_s = time.monotonic()
            with Guessers(lambda n: attempt(gate, f"gw-{n}", f"user-{n}", guess()), at_once) as guessers:
                guessers.await_told(NOT_AUTHORIZED[V5], 20)
                if form == "generated":
                    guessers.await_told(RATE_EXCEEDED[V5], 100)
                assert seconds_until_in(gate, newcomer) < SOON_S
                assert seconds_until_in(installation.plain, elsewhere) < SOON_S, "with a password that costs the same"
                if at_once == 4:
                    assert seconds_until_in(gate, chosen) < SOON_S, "and at the same address"
            lasted_s = time.monotonic() - started_s
            assert spy.ask()["status"] == "provisioned"
        assert guessers.codes[NOT_AUTHORIZED[V5]] <= 1_000 + 100 * lasted_s + 64
        assert 0 not in guessers.codes


def test_f_19_one_user_is_throttled_at_one_address_only(make_installation: Callable[..., Installation]) -> None:
    """F-19: guessing at a shared user with ever new client ids is throttled there; its fleet is not locked."""
    with with_account(make_installation()) as installation:
        numbers = iter(range(1_000_000))
        one, other = fleet_pair(installation, lambda: f"gw-{next(numbers)}", "factory")
        stranger = installation.request("stranger")
        gate = door(installation, "plain", "127.0.0.2")
        with JsonDevice(gate, one, V5):
            pass  # was here before, with the right password
        with Guessers(lambda n: attempt(gate, f"guess-{n}", "factory", wrong())) as guessers:
            guessers.await_told(RATE_EXCEEDED[V5], 50)
            assert seconds_until_in(gate, stranger) < SOON_S, "another user behind the same address"
            get_in_at_once(installation.plain, other)  # the same user elsewhere
            assert seconds_until_in(gate, one) < SOON_S, "a device that proved itself at that address"
        assert 0 not in guessers.codes
        assert installation.await_audit("connect.refused", reason="username_throttled", address="127.0.0.2")


def test_f_19_many_addresses_one_user(make_installation: Callable[..., Installation]) -> None:
    """F-19: forty addresses guess at one device until each is locked; its own address and its fleet are not."""
    with with_account(make_installation()) as installation:
        numbers = iter(range(1_000_000))
        one, other = fleet_pair(installation, lambda: f"gw-{next(numbers)}", "factory")
        for n in range(40):
            gate = door(installation, "plain", f"127.3.0.{n + 1}")
            codes = [attempt(gate, one.client_id, "factory", wrong()) for _ in range(11)]
            assert codes == [NOT_AUTHORIZED[V5]] * 10 + [RATE_EXCEEDED[V5]]
        get_in_at_once(installation.plain, one)
        get_in_at_once(door(installation, "plain", "127.3.0.1"), other)  # behind a locked address


SAMPLES = 60


def connect_s(gate: Address, client_id: str, username: str, password: str) -> float:
    """From CONNECT to CONNACK, in seconds; refused like any other."""
    with Wire(gate, V311) as wire:
        started_s = time.perf_counter()
        assert wire.connect(client_id, username, password) == 5
        return time.perf_counter() - started_s


@pytest.mark.parametrize("stored", ["generated", "chosen"])
@pytest.mark.parametrize("sent", ["generated", "chosen"])
def test_f_20_a_refusal_takes_as_long_for_unknown_as_for_known(
    shared_installation: Installation, fresh_id: FreshId, stored: str, sent: str
) -> None:
    """F-20: medians differ by less than 20 %, whichever form the stored and the sent password have."""

    def guess() -> str:
        return wrong() if sent == "generated" else f"{CHOSEN}-{wrong()}"

    gaps = []
    for _ in range(3):  # a real difference, such as an argon2 that is left out, shows every time; noise does not
        known = shared_installation.request(fresh_id(), password=None if stored == "generated" else CHOSEN)
        gate = door(shared_installation, "plain", new_source())
        unknown = f"{known.username}x"
        times: dict[str, list[float]] = {known.username: [], unknown: []}
        for number in range(SAMPLES):
            for username in (known.username, unknown) if number % 2 else (unknown, known.username):
                times[username].append(connect_s(gate, f"{known.client_id}-{number}", username, guess()))
        of_known, of_unknown = (statistics.median(times[username]) for username in (known.username, unknown))
        gaps.append(abs(of_known - of_unknown) / of_known)
        if gaps[-1] < 0.2:
            break
    assert min(gaps) < 0.2, gaps


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_20_every_refusal_reads_the_same(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-20: unknown user, wrong password, foreign, unknown or revoked client id: the same CONNACK, byte for byte."""
    known, other, revoked = (shared_installation.request(fresh_id()) for _ in range(3))
    shared_installation.ask("request.revoke", id=revoked.client_id)
    logins = [
        (known.client_id, "nobody-at-all", wrong()),
        (known.client_id, "nobody-at-all", CHOSEN),
        (known.client_id, known.username, wrong()),
        (known.client_id, known.username, CHOSEN),
        (other.client_id, known.username, known.password),
        (fresh_id(), known.username, known.password),
        (revoked.client_id, revoked.username, revoked.password),
    ]
    greetings = set()
    for client_id, username, password in logins:
        with Wire(door(shared_installation, name, new_source()), version) as wire:
            wire.connect(client_id, username, password)
            greetings.add(wire.greeting)
            assert wire.is_cut()
    (greeting,) = greetings
    assert greeting is not None and greeting.code == NOT_AUTHORIZED[version]


def test_f_20_account_broker_refuses_all_alike(shared_installation: Installation, fresh_id: FreshId) -> None:
    """F-20: the account broker too says one thing to an unknown user, a wrong password and a foreign client id."""
    one, other = (resident(shared_installation, fresh_id()) for _ in range(2))
    mine = one.answer
    for client_id, username, password in (
        (mine["client_id"], "nobody-at-all", wrong()),
        (mine["client_id"], mine["username"], wrong()),
        (other.answer["client_id"], mine["username"], mine["password"]),
        ("never-seen", mine["username"], mine["password"]),
    ):
        assert attempt(one.home, client_id, username, password, V311) == 5


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_22_a_leaked_factory_password_provisions_nothing(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-22: without the key the shared password opens no request, claimed or not, and the audit has each attempt."""
    username, source = f"factory-{fresh_id()}", new_source()
    target, _ = fleet_pair(shared_installation, fresh_id, username, CHOSEN)
    gate = door(shared_installation, name, source)
    assert attempt(gate, fresh_id(), username, CHOSEN, version) == NOT_AUTHORIZED[version], "a client id nobody has"
    with spy_on(shared_installation, fresh_id()) as spy, JsonDevice(gate, target, version) as thief:
        for key in (None, "", generate.activation_key().reveal()):
            answer = thief.ask(activation_key=key)
            assert answer["status"] in ("refused", "malformed")
            assert answer.keys() <= {"request_id", "status", "server_time", "detail"}
        assert spy.wire.heard() == []
    assert shared_installation.state(target.client_id) == "pending"
    assert shared_installation.await_audit("connect.refused", address=source, reason="client_id_mismatch")
    rows = shared_installation.await_audit("provision.key_failure", 2, client_id=target.client_id)
    assert {row["address"] for row in rows} == {source}
    with JsonDevice(shared_installation.plain, target, version) as genuine:
        assert genuine.ask()["status"] == "provisioned"


def test_f_22_shared_credentials_without_a_key_are_not_made(
    shared_installation: Installation, fresh_id: FreshId
) -> None:
    """F-22: by default neither a second request nor the first one of a shared user may do without a key."""
    keyed = shared_installation.request(fresh_id(), activation_key=True)
    with pytest.raises(Refused) as refusal:
        shared_installation.request(fresh_id(), username=keyed.username)
    assert (refusal.value.kind, refusal.value.problems[0].field) == ("invalid_input", "activation_key")
    keyless = shared_installation.request(fresh_id())
    with pytest.raises(Refused) as refusal:
        shared_installation.request(fresh_id(), username=keyless.username, activation_key=True)
    assert refusal.value.kind == "conflict"


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_22_one_client_id_at_two_addresses_alerts(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-22: the same client id from two addresses within a minute is an alert that names both, once a change."""
    target = shared_installation.request(fresh_id(), activation_key=True)
    here, there = (door(shared_installation, name, source) for source in ("127.0.0.1", "127.0.0.2"))
    for gate in (here, here, there, here):
        attempt(gate, target.client_id, target.username, target.password, version)
    rows = shared_installation.await_audit("alert.two_addresses", 2, client_id=target.client_id)
    assert [(row["address"], row["details"]["other_address"]) for row in rows] == [
        ("127.0.0.2", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.2"),
    ]
    with JsonDevice(here, target, version) as genuine:
        assert genuine.ask()["status"] == "provisioned", "an alert, not a refusal"
