"""F-13 to F-15: acknowledgements prove nothing, and an answer is given once, however often it is asked for."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.packets import V5, V311, Publish, Version
from device_sim import factory
from device_sim.dialogue import Dialogue, Identity
from device_sim.scenario import FleetSettings
from provisioner.dialects.kura_payload import KuraPayload, decode, encode, metric
from tests.faults.scene import WAYS, FreshId, door, new_source, spy_on
from tests.support.device import Credentials, JsonDevice
from tests.support.fleet import fleet_of, run_fleet
from tests.support.installation import Installation

HASTY = {"reply_s": 0.3, "backoff_base_s": 0.05, "backoff_cap_s": 0.1, "connect_s": 5.0, "connack_s": 5.0}


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_13_what_the_acknowledgement_of_a_denied_action_says(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-13: a denied PUBLISH is acknowledged like any other in 3.1.1, with 0x87 in MQTT 5, and is dropped."""
    attacker, victim_id = shared_installation.request(fresh_id()), fresh_id()
    gate = door(shared_installation, name, new_source())
    with (
        spy_on(shared_installation, fresh_id()) as spy,
        spy_on(shared_installation, victim_id) as victim,
        JsonDevice(gate, attacker, version) as device,
    ):
        for topic in (f"{victim.base}/request", f"{victim.base}/response", f"{device.base}/response", "anything"):
            assert device.wire.publish(topic, b'{"request_id":"m-1"}') == {V311: 0, V5: 0x87}[version], topic
        assert (device.wire.heard(), victim.wire.heard(), spy.wire.heard()) == ([], [], [])
        assert device.ask()["status"] == "provisioned", "its own way is still open"
    assert shared_installation.state(victim_id) == "pending"
    assert shared_installation.await_audit("publish.refused", reason="topic", address=gate.source)


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_f_13_a_device_that_is_only_acknowledged_does_not_hang(
    shared_installation: Installation, fresh_id: FreshId, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """F-13: a device that talks on foreign topics gets SUBACK and PUBACK but no answer: it times out and retries."""
    misled, victim_id = shared_installation.request(fresh_id()), fresh_id()

    def misleading(settings: FleetSettings, identity: Identity) -> Dialogue:
        return factory.make_dialogue(settings, replace(identity, client_id=victim_id))

    monkeypatch.setattr("device_sim.fleet.make_dialogue", misleading)
    with spy_on(shared_installation, victim_id) as victim:
        settings = fleet_of(misled, protocol=protocol, timeouts={**HASTY, "reply_s": 0.1})
        report, fleet = run_fleet(shared_installation, settings, deadline_s=4.0)
        assert victim.wire.heard() == []
    ((runner,),) = fleet.runners
    assert report.outcomes() == {"no_answer": 1}
    assert report.fleets[0].attempts >= 3, "it tried again by itself"
    assert report.fleets[0].answers == {}
    assert not runner.device.is_over
    assert [shared_installation.state(one) for one in (misled.client_id, victim_id)] == ["pending", "pending"]


@pytest.mark.parametrize("kind", ["json", "esf", "kura"])
def test_f_13_only_the_answer_itself_counts_as_success(
    shared_installation: Installation, fresh_id: FreshId, kind: str
) -> None:
    """F-13: though every packet is acknowledged, a device whose answers get lost asks until it has one."""
    devices = [shared_installation.request(fresh_id()) for _ in range(3)]
    lossy = {"faults": {"lost_answer": {"count": 2, "how": "drop"}}, "kind": kind}
    # A stock gateway subscribes behind its BIRTH, so the gate's first repeat, after 1 s, is the one that it hears.
    timeouts = {**HASTY, "reply_s": 1.6 if kind == "kura" else 0.4, "apply_delay_s": 0.05}
    fleets = [fleet_of(each, timeouts=timeouts, **lossy) for each in devices]
    report, _ = run_fleet(shared_installation, *fleets, deadline_s=40.0)
    assert report.outcomes() == {"connected": 3}
    assert sum(part.faults["lost_answer"] for part in report.fleets) == 6
    for each in devices:
        shared_installation.await_state(each.client_id, "confirmed")
        assert len(users(shared_installation, each.client_id)) == 1


def users(installation: Installation, client_id: str, account: str = "acme") -> list[Mapping[str, Any]]:
    with installation.client() as client:
        return [user for user in client.pages("user.page", account=account) if user["client_id"] == client_id]


def assert_says_nothing(answer: Mapping[str, Any], status: str) -> None:
    assert answer["status"] == status
    assert answer.keys() <= {"request_id", "status", "server_time", "retry_after_s"}


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_14_a_replayed_message_after_completion(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-14: whoever replays a captured question is told ``already_provisioned``; nothing is made, the audit has it."""
    credentials = shared_installation.request(fresh_id(), activation_key=True)
    answer = shared_installation.provision(credentials, broker="north")
    before = users(shared_installation, credentials.client_id)
    captured = JsonDevice.payload
    with (
        spy_on(shared_installation, fresh_id()) as spy,
        JsonDevice(door(shared_installation, name, "127.0.0.2"), credentials, version) as replayer,
    ):
        for message_id in ("m-1", "m-1", "m-2"):
            heard = json.loads(replayer.ask_raw(captured(replayer, message_id)))
            assert_says_nothing(heard, "already_provisioned")
        assert (replayer.wire.heard(), spy.wire.heard()) == ([], [])
    assert users(shared_installation, credentials.client_id) == before
    rows = shared_installation.await_audit(
        "provision.refused", 3, client_id=credentials.client_id, reason="already_provisioned"
    )
    assert {row["address"] for row in rows} == {"127.0.0.2"}
    assert len(shared_installation.audit("provision.granted", client_id=credentials.client_id)) == 1
    shared_installation.account_wire(answer, "north").close()


@pytest.mark.parametrize("version", [V311, V5])
def test_f_14_a_replayed_gateway_trigger_after_completion(
    shared_installation: Installation, fresh_id: FreshId, version: Version
) -> None:
    """F-14: in the ESF dialect a PROV or a BIRTH that is replayed brings no configuration either."""
    credentials = shared_installation.request(fresh_id())
    shared_installation.provision(credentials, broker="north")
    base = f"$EDC/provision/{credentials.client_id}"
    trigger = encode(KuraPayload(metrics=(metric("request.id", "m-1"), metric("prov.version", 1))))
    with spy_on(shared_installation, credentials.client_id, version, credentials) as replayer:
        replayer.wire.publish(f"{base}/MQTT/PROV", trigger)
        reply = replayer.wire.message()
        assert reply is not None and reply.topic == f"{base}/PROV-V1/REPLY/m-1"
        assert decode(reply.payload).text("prov.status") == "already_provisioned"
        replayer.wire.publish(f"{base}/MQTT/BIRTH", trigger)
        assert replayer.wire.heard() == []
    assert len(users(shared_installation, credentials.client_id)) == 1


def csr_pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "anything")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(params=["server-key", "csr"])
def certified(
    request: pytest.FixtureRequest, shared_installation: Installation, fresh_id: FreshId
) -> tuple[Credentials, dict[str, str]]:
    """A device of an account that uses certificates, and what its question has beside the usual."""
    account = f"{request.param}-{fresh_id()}"
    shared_installation.account(account, "north", certificates=request.param)
    more = {"csr": csr_pem()} if request.param == "csr" else {}
    return shared_installation.request(fresh_id(), account), more


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_15_a_replay_before_the_ack_gets_the_identical_answer(
    shared_installation: Installation, certified: tuple[Credentials, dict[str, str]], name: str, version: Version
) -> None:
    """F-15: repeated, redelivered, pipelined or from a new connection: the same bytes, one user, one serial."""
    credentials, more = certified
    gate = door(shared_installation, name)
    with JsonDevice(gate, credentials, version) as device:
        question = device.payload(**more)
        first = device.ask_raw(question)
        copies = [device.ask_raw(question)]
        device.wire.publish(f"{device.base}/request", question, dup=True)
        copies.append(taken(device))
        for _ in range(3):
            device.wire.publish(f"{device.base}/request", question, wait=False)
        copies += [taken(device) for _ in range(3)]
    for _ in range(2):
        with JsonDevice(gate, credentials, version) as again:
            copies.append(again.ask_raw(question))
    assert set(copies) == {first}
    answer = json.loads(first)
    account, client_id = answer["account"], credentials.client_id
    (user,) = users(shared_installation, client_id, account)
    assert user["username"] == answer["username"]
    serial = x509.load_pem_x509_certificate(answer["certificate"].encode()).serial_number
    device_view = shared_installation.ask("device.show", id=client_id)
    assert int(device_view["certificate_serial"], 16) == serial
    assert len(shared_installation.audit("provision.granted", client_id=client_id)) == 1
    assert shared_installation.audit("provision.regranted", client_id=client_id) == []
    assert len(shared_installation.await_audit("provision.repeated", len(copies), client_id=client_id)) == len(copies)


def taken(device: JsonDevice) -> bytes:
    message = device.wire.message()
    assert isinstance(message, Publish), "no answer came"
    return message.payload
