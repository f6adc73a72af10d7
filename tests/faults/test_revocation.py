"""F-08: rights end at once, for who is connected and for what is already on its way."""

import threading
import time
from collections.abc import Callable

import pytest

from broker.packets import V5, V311, PubAck, Publish, Version
from broker.properties import NO_PROPERTIES, Properties
from tests.faults.scene import NOT_AUTHORIZED, WAYS, FreshId, door, spy_on
from tests.support.device import Credentials, JsonDevice, Wire
from tests.support.installation import Installation

CUT_S_MAX = 2.0
IN_FLIGHT_MAX = 8  # answers that the gate sends a 3.1.1 device before it wants the first PUBACK

Verb = Callable[[Installation, str], None]


def revoke(installation: Installation, client_id: str) -> None:
    installation.ask("request.revoke", id=client_id)


def delete(installation: Installation, client_id: str) -> None:
    installation.ask("request.delete", id=client_id)


def disable(installation: Installation, client_id: str) -> None:
    installation.ask("device.disable", id=client_id)


VERBS = (revoke, delete, disable)


def assert_is_cut(wire: Wire, since_s: float) -> None:
    assert wire.is_cut(CUT_S_MAX)
    assert time.monotonic() - since_s < CUT_S_MAX


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_08_a_connected_device_is_cut(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version, verb: Verb
) -> None:
    """F-08: with its answer in hand and still at the gate it is cut within 2 s, and what it was given opens nothing."""
    credentials = shared_installation.request(fresh_id())
    gate = door(shared_installation, name)
    with spy_on(shared_installation, fresh_id()) as spy, JsonDevice(gate, credentials, version) as device:
        answer = device.ask()
        assert answer["status"] == "provisioned"
        started_s = time.monotonic()
        verb(shared_installation, credentials.client_id)
        assert_is_cut(device.wire, started_s)
        assert spy.ask()["status"] == "provisioned", "its neighbour is still served"
    with pytest.raises(ConnectionRefusedError):
        shared_installation.account_wire(answer, "north")
    assert_nothing_more_is_to_be_had(shared_installation, credentials, version, verb)


def assert_nothing_more_is_to_be_had(
    installation: Installation, credentials: Credentials, version: Version, verb: Verb
) -> None:
    """A disabled device is told so in words; a request that is gone admits nobody."""
    if verb is disable:
        with installation.device(credentials, version=version) as device:
            assert device.ask()["status"] == "refused"
            assert device.ask("m-2")["status"] == "refused"
        assert installation.await_audit("provision.refused", client_id=credentials.client_id, reason="device_disabled")
        return
    with Wire(installation.plain, version) as wire:
        code = wire.connect(credentials.client_id, credentials.username, credentials.password)
        assert code == NOT_AUTHORIZED[version]


@pytest.mark.parametrize("verb", [revoke, delete])
@pytest.mark.parametrize("version", [V311, V5])
def test_f_08_a_device_that_has_not_asked_yet_is_cut(
    shared_installation: Installation, fresh_id: FreshId, version: Version, verb: Verb
) -> None:
    """F-08: a pending request ends under its connected device, and nothing is ever granted for it."""
    credentials = shared_installation.request(fresh_id())
    with shared_installation.device(credentials, version=version) as device:
        started_s = time.monotonic()
        verb(shared_installation, credentials.client_id)
        assert_is_cut(device.wire, started_s)
    assert_nothing_more_is_to_be_had(shared_installation, credentials, version, verb)
    assert shared_installation.audit("provision.granted", client_id=credentials.client_id) == []


def hold_back_answers(wire: Wire, client_id: str) -> None:
    """Leave so many answers unacknowledged that the gate has to keep the next one waiting."""
    for number in range(1 if wire.version == V5 else IN_FLIGHT_MAX):
        wire.publish(f"prov/v1/{client_id}/request", b"unreadable %d" % number)
        assert wire.message(acknowledge=False) is not None


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("version", [V311, V5])
def test_f_08_an_answer_in_flight_is_not_delivered(
    shared_installation: Installation, fresh_id: FreshId, version: Version, verb: Verb
) -> None:
    """F-08: an answer that was granted but still waits for its turn on the line dies with the right to it."""
    credentials = shared_installation.request(fresh_id())
    client_id = credentials.client_id
    one_at_a_time = Properties(receive_maximum=1) if version == V5 else NO_PROPERTIES
    with spy_on(shared_installation, fresh_id()) as spy, Wire(shared_installation.plain, version) as wire:
        assert wire.connect(client_id, credentials.username, credentials.password, properties=one_at_a_time) == 0
        assert wire.subscribe(f"prov/v1/{client_id}/response") == (1,)
        hold_back_answers(wire, client_id)
        wire.publish(f"prov/v1/{client_id}/request", b'{"request_id":"m-1"}')
        shared_installation.await_state(client_id, "granted")
        started_s = time.monotonic()
        verb(shared_installation, client_id)
        # Making room now is too late: what waited is gone.
        wire.send(*(PubAck(number) for number in range(1, IN_FLIGHT_MAX + 1)))
        late = wire.next(Publish, timeout_s=CUT_S_MAX)
        assert not isinstance(late, Publish) or b"provisioned" not in late.payload
        assert time.monotonic() - started_s < CUT_S_MAX
        assert spy.wire.heard() == []
    assert users(shared_installation, client_id) == ([False] if verb is disable else [])


def users(installation: Installation, client_id: str) -> list[bool]:
    """Of each account user of this device in acme whether it is enabled."""
    with installation.client() as client:
        return [u["enabled"] for u in client.pages("user.page", account="acme") if u["client_id"] == client_id]


@pytest.mark.parametrize("verb", [revoke, delete])
def test_f_08_asking_and_revoking_at_the_same_instant(
    shared_installation: Installation, fresh_id: FreshId, verb: Verb
) -> None:
    """F-08: whoever is first, the device is cut, and credentials that were granted before are dead after."""
    for _ in range(15):
        credentials = shared_installation.request(fresh_id())
        client_id, ready = credentials.client_id, threading.Barrier(2)

        def end_it(client_id: str = client_id, ready: threading.Barrier = ready) -> None:
            with shared_installation.client() as client:
                ready.wait()
                client.ask(f"request.{verb.__name__}", id=client_id)

        with shared_installation.device(credentials) as device:
            ending = threading.Thread(target=end_it)
            ending.start()
            ready.wait()
            started_s = time.monotonic()
            device.wire.publish(f"{device.base}/request", device.payload(), wait=False)
            message = device.wire.message()
            ending.join()
            assert_is_cut(device.wire, started_s)
        granted = shared_installation.audit("provision.granted", client_id=client_id)
        (ended,) = shared_installation.audit(f"request.{verb.__name__}", client_id=client_id)
        assert all(row["seq"] < ended["seq"] for row in granted)
        assert message is None or granted, "an answer without a grant"
        assert users(shared_installation, client_id) == []
    assert shared_installation.ask("fsck")["findings"] == []


@pytest.mark.parametrize("version", [V311, V5])
def test_f_08_disabling_cuts_the_device_at_home_too(
    shared_installation: Installation, fresh_id: FreshId, version: Version
) -> None:
    """F-08: a confirmed device is cut from its account broker within 2 s and stays out until it is enabled again."""
    credentials = shared_installation.request(fresh_id())
    answer = shared_installation.provision(credentials, broker="north")
    with (
        shared_installation.account_wire(answer, "north") as home,
        shared_installation.device(credentials, version=version) as at_gate,
    ):
        started_s = time.monotonic()
        disable(shared_installation, credentials.client_id)
        assert_is_cut(home, started_s)
        assert_is_cut(at_gate.wire, started_s)
    with pytest.raises(ConnectionRefusedError):
        shared_installation.account_wire(answer, "north")
    shared_installation.ask("device.enable", id=credentials.client_id)
    shared_installation.account_wire(answer, "north").close()


def test_f_08_disabling_an_account_cuts_its_devices_at_both_brokers(
    shared_installation: Installation, fresh_id: FreshId
) -> None:
    """F-08: the devices of a disabled account are cut everywhere, with an answer in flight too; others stay."""
    account = f"tenant-{fresh_id()}"
    shared_installation.account(account, "south")
    settled, asking = (shared_installation.request(fresh_id(), account) for _ in range(2))
    answer = shared_installation.provision(settled, broker="south")
    with (
        spy_on(shared_installation, fresh_id()) as spy,
        shared_installation.account_wire(answer, "south") as home,
        Wire(shared_installation.plain) as wire,
    ):
        assert wire.connect(asking.client_id, asking.username, asking.password) == 0
        assert wire.subscribe(f"prov/v1/{asking.client_id}/response") == (1,)
        hold_back_answers(wire, asking.client_id)
        wire.publish(f"prov/v1/{asking.client_id}/request", b'{"request_id":"m-1"}')
        shared_installation.await_state(asking.client_id, "granted")
        started_s = time.monotonic()
        shared_installation.ask("account.update", id=account, fields={"enabled": False})
        wire.send(*(PubAck(number) for number in range(1, IN_FLIGHT_MAX + 1)))
        assert wire.next(Publish, timeout_s=CUT_S_MAX) is None
        assert time.monotonic() - started_s < CUT_S_MAX
        assert_is_cut(home, started_s)
        assert spy.wire.heard() == []
    with shared_installation.device(asking) as device:
        assert device.ask()["status"] == "refused"
