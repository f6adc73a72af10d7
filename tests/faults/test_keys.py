"""F-18: guessing an activation key is hopeless, stops by itself, and disturbs nobody else."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from broker.packets import V5, V311, Publish, SubAck, Subscribe, Subscription, Version
from provisioner.dialects.kura_payload import KuraPayload, decode, encode, metric
from tests.faults.scene import FreshId, spy_on
from tests.support.device import Credentials, JsonDevice, Wire
from tests.support.installation import Installation

GUESSES = 10_000
AT_ONCE = 200
AT_FIRST = 40  # so few that also a busy machine is through with them before the first back-off is over
BACKOFF_S = 1
WRONG = "000000-000000-000000-000000-{:06d}"


class Guesser:
    """One connection that asks with one wrong key after the other and counts what it is told."""

    def __init__(self, installation: Installation, credentials: Credentials, version: Version) -> None:
        self.told: Counter[str] = Counter()
        self._base, self._sent = f"prov/v1/{credentials.client_id}", 0
        self._wire = Wire(installation.plain, version)
        assert self._wire.connect(credentials.client_id, credentials.username, credentials.password) == 0
        # QoS 0: nothing has to be acknowledged, so nothing slows the guessing down.
        self._wire.send(Subscribe(1, (Subscription(f"{self._base}/response", 0),)))
        assert self._wire.next(SubAck) is not None

    def guess(self, count: int) -> Counter[str]:
        """So many keys, all different; what came back, by status. Every question is answered."""
        told: Counter[str] = Counter()
        bodies = [{"request_id": "m", "activation_key": WRONG.format(self._sent + n)} for n in range(count)]
        self._sent += count
        self._wire.send(*(Publish(f"{self._base}/request", json.dumps(body).encode()) for body in bodies))
        for _ in range(count):
            message = self._wire.message()
            assert message is not None, "a question was met with silence"
            told[json.loads(message.payload)["status"]] += 1
        self.told += told
        return told

    def close(self) -> None:
        self._wire.close()


@pytest.fixture
def quick(make_installation: Callable[..., Installation]) -> Installation:
    """With a back-off short enough for a test, and a gate that does not slow a guesser down by itself."""
    limits = {"messages_per_s": 100_000, "messages_burst": 100_000}
    return make_installation(policy={"key_backoff_s": BACKOFF_S}, gate={"limits": limits})


def key_failures(installation: Installation, client_id: str = "target") -> int:
    return int(installation.ask("request.show", id=client_id)["key_failures"])


def key_row_counts(installation: Installation, client_id: str) -> Counter[str]:
    rows = installation.audit(client_id=client_id)
    return Counter(row["action"] for row in rows if row["action"].startswith("provision.key"))


class Neighbours:
    """Devices that come and are provisioned one after the other while the block runs."""

    def __init__(self, installation: Installation) -> None:
        self.served = 0
        self.slowest_s = 0.0
        self._installation, self._done = installation, threading.Event()
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._live)

    def __enter__(self) -> "Neighbours":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        assert self._errors == []

    def _live(self) -> None:
        try:
            while not self._done.wait(0.2):
                started_s = time.monotonic()
                self._installation.legitimate_device_provisions(f"neighbour-{self.served}")
                self.served += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - started_s)
        except BaseException as error:
            self._errors.append(error)


@pytest.mark.parametrize("version", [V311, V5])
def test_f_18_ten_thousand_wrong_keys_are_ten_guesses(quick: Installation, version: Version) -> None:
    """F-18: of 10,000 keys ten are compared; after five each waits, after ten nothing opens but ``rearm``."""
    with quick.running():
        quick.account()
        target = quick.request("target", activation_key=True)
        with spy_on(quick, "spy") as spy, Neighbours(quick) as neighbours:
            guesser = Guesser(quick, target, version)
            started_s = time.monotonic()
            assert guesser.guess(AT_FIRST) == {"refused": 5, "busy": AT_FIRST - 5}
            while (failures := key_failures(quick)) < 10:
                guesser.guess(20)
                assert key_failures(quick) <= failures + 1, "one more comparison for each back-off"
                assert time.monotonic() - started_s < 30, "the lock comes at the tenth wrong key"
            while sum(guesser.told.values()) < GUESSES:
                assert guesser.guess(AT_ONCE) == {"refused": AT_ONCE}
            assert time.monotonic() - started_s < 60
            guesser.close()
            assert spy.wire.heard() == []
        assert neighbours.served >= 5 and neighbours.slowest_s < 5
        assert guesser.told.keys() == {"refused", "busy"}
        assert key_row_counts(quick, "target") == {"provision.key_failure": 9, "provision.key_locked": 1}
        assert (quick.state("target"), key_failures(quick)) == ("pending", 10)
        assert_only_rearm_opens(quick, target, version)


def assert_only_rearm_opens(installation: Installation, target: Credentials, version: Version) -> None:
    def ask_with_the_right_key() -> Any:
        with installation.device(target, version=version) as device:
            return device.ask()["status"]

    time.sleep(BACKOFF_S)  # the back-off of the tenth failure is over, the lock is not
    assert ask_with_the_right_key() == "refused"
    installation.ask("request.update", id=target.client_id, fields={"max_attempts": 5})
    assert ask_with_the_right_key() == "refused"
    installation.stop()
    installation.start()
    assert ask_with_the_right_key() == "refused", "a restart forgives nothing"
    assert installation.await_audit("provision.refused", 3, client_id=target.client_id, reason="key_locked")
    installation.ask("request.rearm", id=target.client_id)
    assert ask_with_the_right_key() == "provisioned"


@pytest.mark.parametrize("version", [V311, V5])
def test_f_18_five_wrong_keys_make_the_request_wait(
    shared_installation: Installation, fresh_id: FreshId, version: Version
) -> None:
    """F-18: by default the sixth question, even with the right key, waits up to 30 s; a neighbour does not."""
    username = f"factory-{fresh_id()}"
    target = shared_installation.request(fresh_id(), username=username, activation_key=True)
    with shared_installation.device(target, version=version) as device:
        for number in range(5):
            answer = device.ask(f"m-{number}", activation_key=WRONG.format(number))
            assert answer["status"] == "refused"
            assert answer.keys() <= {"request_id", "status", "server_time"}
        for key in (WRONG.format(6), target.activation_key):
            answer = device.ask("m-6", activation_key=key)
            assert answer["status"] == "busy"
            assert 1 <= answer["retry_after_s"] <= 30
    assert key_failures(shared_installation, target.client_id) == 5
    wanted = {"account": "acme", "client_id": fresh_id(), "username": username, "activation_key": True}
    made = shared_installation.ask("request.create", fields=wanted)
    neighbour = Credentials(
        client_id=str(wanted["client_id"]),
        username=username,
        password=target.password,
        activation_key=made["secrets"]["activation_key"],
    )
    with shared_installation.device(neighbour, version=version) as device:
        assert device.ask()["status"] == "provisioned", "same user, same address, other request"
    shared_installation.await_audit("provision.refused", client_id=target.client_id, reason="key_throttled")


def test_f_18_both_dialects_share_one_count(shared_installation: Installation, fresh_id: FreshId) -> None:
    """F-18: wrong keys that come by the ESF trigger and by JSON are counted together; neither is a way around."""
    target = shared_installation.request(fresh_id(), activation_key=True)
    base = f"$EDC/provision/{target.client_id}"
    with shared_installation.device(target) as device:
        assert device.wire.subscribe(f"{base}/#") == (1,)

        def by_trigger(number: int) -> str | None:
            key = metric("activation.key", WRONG.format(number))
            trigger = KuraPayload(metrics=(metric("request.id", f"e-{number}"), metric("prov.version", 1), key))
            device.wire.publish(f"{base}/MQTT/PROV", encode(trigger))
            reply = device.wire.message()
            return decode(reply.payload).text("prov.status") if reply else None

        told = [by_trigger(1), device.ask("m-2", activation_key=WRONG.format(2))["status"], by_trigger(3)]
        told += [device.ask("m-4", activation_key=WRONG.format(4))["status"], by_trigger(5)]
        assert told == ["refused"] * 5
        assert by_trigger(6) == "busy"
        assert device.ask("m-7", activation_key=WRONG.format(7))["status"] == "busy"
        # A BIRTH asks without a key: with one required it is neither a guess nor a way in.
        device.wire.publish(f"{base}/MQTT/BIRTH", encode(KuraPayload(metrics=(metric("serial_number", "SN"),))))
        assert device.wire.heard() == []
    assert key_row_counts(shared_installation, target.client_id) == {"provision.key_failure": 5}


def test_f_18_guesses_at_the_same_instant_are_all_counted(shared_installation: Installation, fresh_id: FreshId) -> None:
    """F-18: from many connections at once not one key more is compared than from a single one."""
    target = shared_installation.request(fresh_id(), activation_key=True)
    start, told = threading.Barrier(20), []

    def guess(number: int) -> None:
        start.wait()
        try:
            with JsonDevice(shared_installation.plain, target) as device:
                device.wire.publish(f"{device.base}/request", device.payload(activation_key=WRONG.format(number)))
                message = device.wire.message()
                told.append(json.loads(message.payload)["status"] if message else "displaced")
        except OSError:
            told.append("displaced")  # by a newer one, in the middle of its walk

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(told) == 20 and set(told) <= {"refused", "busy", "conflict", "displaced"}
    failures = key_failures(shared_installation, target.client_id)
    assert 1 <= failures <= 5
    assert key_row_counts(shared_installation, target.client_id) == {"provision.key_failure": failures}
