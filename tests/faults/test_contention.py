"""F-16, F-17: one identity in many hands, and one key on many requests."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import Random

import pytest

from broker.packets import V5, V311, Version
from provisioner.model.secret import Secret
from provisioner.vault.generate import normal_key
from tests.faults.scene import WAYS, FreshId, door, spy_on
from tests.support.device import Address, Credentials, JsonDevice, Wire
from tests.support.installation import Installation

CLONES = 50
TRIES_MAX = 14
BACKOFF_S, BACKOFF_S_MAX = 0.1, 4.0


class Clone:
    """One of many devices with the same identity and key; displaced, it comes back, until it has an answer."""

    def __init__(self, gate: Address, credentials: Credentials, version: Version, number: int) -> None:
        self._gate, self._credentials, self._version = gate, credentials, version
        self._draw = Random(number).random
        self.answer: bytes | None = None
        self.displaced = 0
        self.wire: Wire | None = None

    def walk(self, start: threading.Barrier) -> None:
        start.wait()
        while self.answer is None and self.displaced < TRIES_MAX:
            try:
                self.wire = Wire(self._gate, self._version)
                self.answer = self._ask(self.wire)
            except OSError:
                self.answer = None  # cut while it was writing, or in the handshake
            if self.answer is None:
                self.displaced += 1
                self.leave()
                time.sleep(self._pause_s())

    def _pause_s(self) -> float:
        """As a device does it: the gate calls it flapping otherwise, and on a busy machine those who come back sooner
        than one of them is heard would displace each other for ever."""
        longest_s = min(BACKOFF_S_MAX, BACKOFF_S * 2**self.displaced)
        return longest_s * (0.5 + self._draw() / 2)

    def _ask(self, wire: Wire) -> bytes | None:
        own = self._credentials
        if wire.connect(own.client_id, own.username, own.password) != 0:
            return None
        if wire.subscribe(f"prov/v1/{own.client_id}/response") != (1,):
            return None
        question = {"request_id": f"clone-{id(self)}", "activation_key": own.activation_key}
        wire.publish(f"prov/v1/{own.client_id}/request", json.dumps(question).encode(), wait=False)
        message = wire.message()
        return None if message is None else message.payload

    def leave(self) -> None:
        if self.wire is not None:
            self.wire.close()

    @property
    def status(self) -> str:
        return "unanswered" if self.answer is None else str(json.loads(self.answer)["status"])


@contextmanager
def clones(gate: Address, credentials: Credentials, version: Version) -> Iterator[Sequence[Clone]]:
    """All at the same moment; whoever was answered stays connected until the end of the block."""
    everybody = [Clone(gate, credentials, version, number) for number in range(CLONES)]
    start = threading.Barrier(CLONES)
    threads = [threading.Thread(target=each.walk, args=(start,)) for each in everybody]
    with ExitStack() as stack:
        for each in everybody:
            stack.callback(each.leave)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        yield everybody


@pytest.mark.parametrize(("name", "version"), [*WAYS, ("plain", V311), ("plain", V5)])
def test_f_16_of_fifty_at_once_exactly_one_is_provisioned(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-16: one of fifty clones with the right key is granted, all others hear ``conflict``, and the audit alerts."""
    credentials = shared_installation.request(fresh_id(), activation_key=True)
    client_id = credentials.client_id
    with spy_on(shared_installation, fresh_id()) as spy:
        with clones(door(shared_installation, name), credentials, version) as everybody:
            assert Counter(each.status for each in everybody) == {"provisioned": 1, "conflict": CLONES - 1}
            (winner,) = (each for each in everybody if each.status == "provisioned")
            assert winner.answer is not None and winner.wire is not None
            answer = json.loads(winner.answer)
            shared_installation.account_wire(answer, "north").close()
            shared_installation.await_state(client_id, "confirmed")
            assert winner.wire.heard() == [], "nobody displaced it"
        with JsonDevice(door(shared_installation, name), credentials, version) as late:
            assert late.ask()["status"] == "already_provisioned"
        assert spy.wire.heard() == []
    shared_installation.await_audit("alert.client_id_contended", client_id=client_id)
    assert len(shared_installation.audit("provision.granted", client_id=client_id)) == 1
    assert shared_installation.audit("provision.regranted", client_id=client_id) == []


@pytest.mark.parametrize("version", [V311, V5])
def test_f_16_who_lost_gets_the_same_answer_or_none(
    shared_installation: Installation, fresh_id: FreshId, version: Version
) -> None:
    """F-16: when the winner vanishes without a word the next one is given the same credentials, never a second set."""
    credentials = shared_installation.request(fresh_id(), activation_key=True)
    with shared_installation.device(credentials, version=version) as winner:
        first = winner.ask("m-1")
        with shared_installation.device(credentials, version=version) as loser:
            told = loser.ask("m-2")
            assert told.keys() == {"request_id", "status", "server_time", "retry_after_s"}
            assert told["status"] == "conflict"
            winner.wire.close()
            second = answered(loser)
    assert first["status"] == second["status"] == "provisioned"
    same = ("username", "password", "device_id", "broker_url", "client_id")
    assert [first[field] for field in same] == [second[field] for field in same]
    with shared_installation.client() as client:
        made = [u for u in client.pages("user.page", account="acme") if u["client_id"] == credentials.client_id]
    assert len(made) == 1


def answered(device: JsonDevice) -> dict[str, object]:
    """Its first answer that is not ``conflict``: the end of the other connection may take a moment to be seen."""
    for number in range(200):
        answer = device.ask(f"again-{number}")
        if answer["status"] != "conflict":
            return answer
    raise AssertionError("the winner is gone and its place is still taken")


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_17_a_key_opens_its_own_request_only(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-17: with shared credentials the key of one request is refused on another, and opens its own after that."""
    username = f"factory-{fresh_id()}"
    one = shared_installation.request(fresh_id(), username=username, activation_key=True)
    client_id = fresh_id()
    wanted = {"account": "acme", "client_id": client_id, "username": username, "activation_key": True}
    key = shared_installation.ask("request.create", fields=wanted)["secrets"]["activation_key"]
    other = Credentials(client_id=client_id, username=username, password=one.password, activation_key=key)
    gate = door(shared_installation, name)
    with spy_on(shared_installation, fresh_id()) as spy, JsonDevice(gate, other, version) as device:
        answer = device.ask(activation_key=one.activation_key)
        assert answer.keys() <= {"request_id", "status", "server_time"} and answer["status"] == "refused"
        assert spy.wire.heard() == []
    assert shared_installation.state(other.client_id) == "pending"
    (row,) = shared_installation.audit("provision.key_failure", client_id=other.client_id)
    assert row["reason"] == "activation_key"
    for own in (one, other):
        with JsonDevice(gate, own, version) as device:
            assert device.ask()["client_id"] == own.client_id


@pytest.mark.parametrize("version", [V311, V5])
def test_f_17_a_used_key_is_used_up(shared_installation: Installation, fresh_id: FreshId, version: Version) -> None:
    """F-17: after the walk the key brings nothing more, nor does it open a new request for the same device."""
    credentials = shared_installation.request(fresh_id(), activation_key=True)
    shared_installation.provision(credentials, broker="north")
    with shared_installation.device(credentials, version=version) as device:
        assert device.ask("m-2")["status"] == "already_provisioned"
    shared_installation.ask("request.delete", id=credentials.client_id)
    wanted = {"account": "acme", "client_id": credentials.client_id, "username": credentials.username}
    made = shared_installation.ask("request.create", fields={**wanted, "activation_key": True})
    assert made["secrets"]["activation_key"] != credentials.activation_key
    with shared_installation.device(credentials, version=version) as device:
        assert device.ask("m-3")["status"] == "refused"
        assert device.ask("m-4", activation_key=made["secrets"]["activation_key"])["status"] == "provisioned"


def test_f_17_a_key_is_stored_as_a_digest_only(shared_installation: Installation, fresh_id: FreshId) -> None:
    """F-17: neither as it was typed nor as it is compared does the key stand in any file of the installation."""
    credentials = shared_installation.request(fresh_id(), activation_key=True)
    key = Secret(credentials.activation_key or "")
    with shared_installation.device(credentials) as device:
        assert device.ask(activation_key=key.reveal()[:-1] + "!")["status"] == "refused"
        assert device.ask("m-2")["status"] == "provisioned"
    needles = [text.encode() for text in (key.reveal(), normal_key(key).reveal(), credentials.password)]
    files = [path for path in shared_installation.folder.rglob("*") if path.is_file()]
    assert any(credentials.client_id.encode() in path.read_bytes() for path in files), "the request is stored there"
    for path in files:
        assert not any(needle in path.read_bytes() for needle in needles), path
