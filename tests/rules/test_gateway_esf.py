"""Simulated ESF and Kura gateways: against the platform's own dialect, and request by request as Kura answers."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from device_sim.actions import Action, Connect, Connected, Disconnected, Leg, Message, Publish, Subscribe, Subscribed
from device_sim.device_apps import DATA_SERVICE_PID, PROVISIONING_PID, TRANSPORT_PID
from device_sim.dialogue import Dialogue, Identity
from device_sim.esf_device import EsfDialogue, KuraDialogue
from device_sim.state import DeviceState, Outcome, Phase
from provisioner.dialects.esf import Esf, EsfSettings
from provisioner.dialects.kura_payload import KuraPayload, MetricValue, decode, encode, metric
from provisioner.dialects.kura_xml import Component, write
from provisioner.model.messages import Answer, Delivery, ProvisionMessage, Status
from provisioner.model.ports import Exchange
from provisioner.model.request import Package
from provisioner.model.secret import Secret
from tests.rules.device_bench import Bench, events, kinds, only

OURS = "$EDC/provision/meter-1"
PLATFORM = "$EDC/provision/fleetgate"
TRANSPORT: dict[str, Any] = {
    "broker-url": "mqtts://acme.example:8883/",
    "topic.context.account-name": "acme",
    "client-id": "meter-1",
    "username": "acme-meter-1",
    "password": {"type": "Password", "value": "New-password-1"},
}


def esf(identity: Identity) -> Dialogue:
    return EsfDialogue(identity, apply_delay_s=1.0)


def kura(identity: Identity) -> Dialogue:
    return KuraDialogue(identity, apply_delay_s=1.0)


def delivery(**more: Any) -> Delivery:
    return Delivery(
        device_id="dev-1",
        account="acme",
        broker_url=TRANSPORT["broker-url"],
        client_id="meter-1",
        username="acme-meter-1",
        password=Secret("New-password-1"),
        configuration={TRANSPORT_PID: TRANSPORT, DATA_SERVICE_PID: {"connect.auto-on-startup": True}},
        **more,
    )


@dataclass
class Platform:
    """The provisioner's side of the dialect, answering every question with one answer."""

    bench: Bench
    status: Status = Status.PROVISIONED
    retry_after_s: int | None = None
    delivery: Delivery | None = None
    asked: list[ProvisionMessage] = field(default_factory=list)
    exchange: Exchange | None = None
    refused_topics: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dialect = Esf(EsfSettings())
        self.rights = self.dialect.rights("meter-1")

    def hear(self, actions: list[Action]) -> list[Action]:
        """Everything that follows from what the device published, back and forth, until both are silent."""
        done = list(actions)
        for action in actions:
            if isinstance(action, Publish):
                for outgoing in self._on_publish(action):
                    done += self.hear(self.bench.feed(Message(outgoing.topic, outgoing.payload)))
        return done

    def _on_publish(self, publish: Publish) -> list[Any]:
        expected = self.exchange.expected_topics() if self.exchange else frozenset()
        if publish.topic not in self.rights.publish | expected:
            self.refused_topics.append(publish.topic)
        if self.exchange is not None and publish.topic in expected:
            return list(self.exchange.receive(publish.topic, publish.payload, 0.0))
        message = self.dialect.decode("meter-1", publish.topic, publish.payload, "0" * 32)
        if not isinstance(message, ProvisionMessage):
            return []
        self.asked.append(message)
        answer = Answer(
            status=self.status,
            message_id=message.message_id,
            server_time=datetime(2026, 1, 1, tzinfo=UTC),
            retry_after_s=self.retry_after_s,
            delivery=self.delivery,
        )
        ids = [f"{n:032x}" for n in range(self.dialect.ids_needed(answer))]
        self.exchange = self.dialect.exchange("meter-1", message, answer, ids)
        return list(self.exchange.start(0.0))


def walk_to_question(platform: Platform) -> list[Action]:
    platform.bench.start()
    return platform.hear(platform.bench.feed(Connected())) + platform.hear(platform.bench.feed(Subscribed((1,))))


@pytest.mark.parametrize("kind", [esf, kura])
def test_a_gateway_is_provisioned_by_the_platforms_own_dialect(kind: Any) -> None:
    """EC-34, EC-35: packages, then the configuration; a second later DC, disconnect, account broker, BIRTH there."""
    bench = Bench(dialogue=kind)
    package = Package(name="heater", version="1.0", url="https://x/heater.dp", sha256="0" * 64)
    platform = Platform(bench, delivery=delivery(packages=(package,)))
    walk_to_question(platform)
    assert platform.exchange is not None
    assert (platform.exchange.done, platform.exchange.failure) == (True, None)
    assert list(platform.exchange.installed) == ["heater"]
    assert platform.refused_topics == []
    # A 200 on the configuration means received; nothing has changed yet.
    assert (bench.device.state.phase, bench.wait_s()) == (Phase.PROVISIONING, 1.0)
    farewell = bench.sleep()
    assert kinds(farewell) == ["Persist", "Publish", "Disconnect"]
    assert only(farewell, Publish).topic == f"{OURS}/MQTT/DC"
    target = only(bench.feed(Disconnected()), Connect).target
    assert (target.leg, target.username, target.password) == (Leg.ACCOUNT, "acme-meter-1", Secret("New-password-1"))
    assert (target.url, target.will.topic) == ("mqtts://acme.example:8883/", "$EDC/acme/meter-1/MQTT/LWT")
    birth = only(bench.feed(Connected()), Publish)
    assert birth.topic == "$EDC/acme/meter-1/MQTT/BIRTH"
    settings = bench.device.state.settings
    assert settings is not None
    assert (settings.packages, settings.configuration[DATA_SERVICE_PID]["connect.auto-on-startup"]) == (
        ("heater 1.0",),
        True,
    )


def test_an_esf_gateway_asks_with_prov_and_its_key() -> None:
    """The ESF question: subscribe first, then PROV with activation.key and the request id."""
    bench = Bench(dialogue=esf)
    platform = Platform(bench, delivery=delivery())
    actions = walk_to_question(platform)
    assert kinds(actions)[:2] == ["Subscribe", "Publish"]
    (message,) = platform.asked
    assert (message.message_id, message.activation_key, message.by_birth) == ("ask-1", Secret("key-1"), False)
    assert message.device == {"serial_number": "S-1", "prov.attempt": 1}
    bench.sleep()
    assert bench.device.state.settings is not None
    shown = bench.device.state.settings.configuration[PROVISIONING_PID]
    assert (shown["enabled"], shown["provisioned"]) == (False, True)
    assert "password" not in shown


def test_a_stock_gateway_is_born_before_it_subscribes() -> None:
    """The race of every Kura: BIRTH, then SUBSCRIBE; requests that came in between are lost and sent again."""
    bench = Bench(dialogue=kura)
    bench.start()
    actions = bench.feed(Connected())
    assert kinds(actions) == ["Publish", "Subscribe"]
    assert (only(actions, Publish).topic, only(actions, Subscribe).filters) == (f"{OURS}/MQTT/BIRTH", (f"{OURS}/#",))
    assert bench.device.attempts == 1


@pytest.mark.parametrize("kind", [esf, kura])
def test_a_gateway_carries_its_will(kind: Any) -> None:
    """Every gateway leaves an LWT below its own topic."""
    target = only(Bench(dialogue=kind).start(), Connect).target
    assert target.will.topic == f"{OURS}/MQTT/LWT"


@pytest.mark.parametrize(
    ("status", "wait_s", "phase"),
    [
        (Status.WAITING, 5, Phase.PROVISIONING),
        (Status.NOT_YET_ACTIVE, 5, Phase.PROVISIONING),
        (Status.REFUSED, 0, Phase.PROVISIONING),
        (Status.CONFLICT, 0, Phase.PROVISIONING),
        (Status.BUSY, 5, Phase.PROVISIONING),
        (Status.EXPIRED, None, Phase.STOPPED),
        (Status.ALREADY_PROVISIONED, None, Phase.STOPPED),
        (Status.MALFORMED, None, Phase.STOPPED),
    ],
)
def test_an_esf_gateway_obeys_every_status(status: Status, wait_s: int | None, phase: Phase) -> None:
    """The statuses of the JSON protocol, carried by prov.status and prov.retry.after."""
    bench = Bench(dialogue=esf)
    walk_to_question(Platform(bench, status=status, retry_after_s=wait_s or None))
    assert (bench.device.outcome, bench.device.state.phase) == (Outcome(status), phase)
    if wait_s is not None:
        assert wait_s <= bench.wait_s() <= wait_s + 2


def test_a_stock_gateway_hears_no_refusal() -> None:
    """A refused Kura gateway is told nothing that it understands: it times out, backs off and comes back."""
    bench = Bench(dialogue=kura)
    walk_to_question(Platform(bench, status=Status.REFUSED))
    assert kinds(bench.sleep()) == ["Disconnect"]
    assert bench.device.outcome is Outcome.NO_ANSWER


def test_a_certificate_for_its_own_key_is_shown_to_the_account_broker(own_certificate: tuple[Secret, str]) -> None:
    """KEYS-V2: a certificate for the key that was made on the device becomes its own, any other is trusted."""
    key, certificate = own_certificate
    bench = Bench(dialogue=esf, state=DeviceState(client_id="meter-1", request_id="ask-1", own_key=key))
    walk_to_question(Platform(bench, delivery=delivery(certificate=certificate, ca="-----BEGIN CERTIFICATE-----")))
    bench.sleep()
    target = only(bench.feed(Disconnected()), Connect).target
    assert (target.certificate, target.private_key) == (certificate, key)
    assert target.ca == "-----BEGIN CERTIFICATE-----"


@pytest.fixture
def own_certificate() -> tuple[Secret, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(datetime(2026, 1, 1)).not_valid_after(datetime(2027, 1, 1))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return Secret(pem.decode()), certificate.decode()


def asked(bench: Bench, resource: str, body: bytes | None = None, **metrics: MetricValue) -> list[KuraPayload]:
    """Sends one request to a waiting gateway; its REPLYs, decoded."""
    names = {"request_id": "request.id", "requester": "requester.client.id"}
    given = {"request_id": "r1", "requester": "fleetgate"} | metrics
    rows = tuple(metric(names.get(name, name.replace("_", ".")), value) for name, value in given.items() if value != "")
    actions = bench.feed(Message(f"{OURS}/{resource}", encode(KuraPayload(metrics=rows, body=body))))
    return [decode(a.payload) for a in actions if isinstance(a, Publish) and "/REPLY/" in a.topic]


def waiting() -> Bench:
    bench = Bench(dialogue=kura)
    bench.start()
    bench.feed(Connected(), Subscribed((1,)))
    return bench


XML = write([Component("org.example.Unknown", {"x": 1})])


@pytest.mark.parametrize(
    ("resource", "body", "code"),
    [
        ("CONF-V1/PUT/configurations", XML, 200),
        ("CONF-V1/PUT/configurations", XML.replace(b"esf:", b"ns0:").replace(b":esf", b":ns0"), 400),
        ("CONF-V1/PUT/configurations", b"", 400),
        ("CONF-V1/PUT/configurations", b"<!DOCTYPE x><x/>", 400),
        ("CONF-V1/GET/configurations", None, 200),
        ("CONF-V1/GET/nothing", None, 404),
        ("CMD-V1/EXEC/command", None, 404),
        ("DEPLOY-V2/EXEC/download", None, 400),
        ("DEPLOY-V2/GET/packages", None, 200),
        ("KEYS-V2/POST/keystores/entries/certificate", b"{}", 400),
        ("KEYS-V2/POST/keystores/entries/privatekey", b'{"alias": "a", "privateKey": "k"}', 400),
        ("KEYS-V2/POST/keystores/entries/csr", b"{}", 404),
        ("KEYS-V2/GET/keystores/entries", None, 200),
    ],
)
def test_requests_get_the_code_that_kura_gives(resource: str, body: bytes | None, code: int) -> None:
    """The literal prefix `esf:` decides, not the namespace; what is missing is 400, what is unknown 404."""
    (reply,) = asked(waiting(), resource, body)
    assert reply.integer("response.code") == code


def test_a_request_without_its_two_metrics_is_not_answered() -> None:
    """Kura throws and stays silent."""
    bench = waiting()
    assert asked(bench, "CONF-V1/GET/configurations", request_id="") == []
    assert asked(bench, "CONF-V1/GET/configurations", requester="") == []


@pytest.mark.parametrize(
    "topic", ["MQTT/BIRTH", "MQTT/PROV", "BA/x", "CONF-V1/REPLY/r1", "DEPLOY-V2/NOTIFY/meter-1/install"]
)
def test_echoes_are_ignored(topic: str) -> None:
    """A gateway's own wildcard brings back what it said itself."""
    bench = waiting()
    due_s = bench.device.due_s
    own = tuple(metric(name, "meter-1") for name in ("request.id", "requester.client.id"))
    assert bench.feed(Message(f"{OURS}/{topic}", encode(KuraPayload(metrics=own)))) == []
    assert bench.device.due_s == due_s


def test_a_copy_of_the_configuration_is_answered_and_applied_once() -> None:
    """The platform sends again until it is answered; every copy gets its 200, the first one sets the time."""
    bench = waiting()
    transport = {name: value for name, value in TRANSPORT.items() if name != "password"}
    body = write([Component(TRANSPORT_PID, {**transport, "password": Secret("New-password-1")})])
    for at_s in (0.0, 0.4):
        bench.now_s = 1000.0 + at_s
        (reply,) = asked(bench, "CONF-V1/PUT/configurations", body)
        assert reply.integer("response.code") == 200
    assert bench.device.due_s == 1001.0
    assert "RES" in events(bench.actions)


def test_a_line_that_breaks_before_the_configuration_is_applied() -> None:
    """What was answered with 200 is applied all the same, and the way leads straight to the account broker."""
    bench = Bench(dialogue=esf)
    walk_to_question(Platform(bench, delivery=delivery()))
    bench.feed(Disconnected())
    actions = bench.sleep()
    assert kinds(actions) == ["Persist", "Connect"]
    assert only(actions, Connect).target.leg is Leg.ACCOUNT


def test_a_configuration_that_cannot_connect_is_not_applied() -> None:
    """A transport without a usable address leaves the gateway where it is: it keeps its configuration and retries."""
    bench = waiting()
    asked(bench, "CONF-V1/PUT/configurations", write([Component(TRANSPORT_PID, {"broker-url": 7})]))
    assert (bench.device.state.phase, bench.device.outcome) == (Phase.PROVISIONING, Outcome.UNUSABLE_ANSWER)
