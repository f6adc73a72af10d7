"""ESF and Kura gateways: topics, triggers and what an answer becomes for them (docs/device-protocol.md).

Topics, payloads and the requests to a gateway's apps are public; the metrics of the PROV trigger are ours, and
therefore settings. A stock Kura gateway is triggered by its BIRTH and needs no code of ours at all.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provisioner.dialects.esf_requests import Dialogue, Step, certificate_step, configuration_step, package_step
from provisioner.dialects.esf_steps import private_key_step
from provisioner.dialects.kura_payload import KuraPayload, MalformedPayload, MetricType, decode, encode, metric
from provisioner.dialects.kura_properties import Component, MalformedConfiguration, PropertyType, Typed
from provisioner.dialects.limits import CSR_CHARACTERS_MAX, KEY_CHARACTERS_MAX, METADATA_TEXT_CHARACTERS_MAX
from provisioner.dialects.one_shot import OneShot
from provisioner.model.messages import (
    MESSAGE_ID_CHARACTERS_MAX,
    Answer,
    Delivery,
    Ignored,
    Incoming,
    Malformed,
    Outgoing,
    ProvisionMessage,
    Status,
)
from provisioner.model.ports import Exchange
from provisioner.model.secret import Secret
from provisioner.model.topics import TopicRights

PROV_VERSION = 1
# Only these four codes exist on the gateway's side (KuraResponseCode).
_CODES = {Status.PROVISIONED: 200, Status.MALFORMED: 400, Status.BUSY: 500, Status.CONFLICT: 500}
_REFUSED_CODE = 404
_STEPS_BESIDE_PACKAGES_MAX = 3  # two certificates, and the configuration


@dataclass(frozen=True, slots=True)
class EsfSettings:
    """Names that an installation may have to change to meet a vendor's own."""

    provision_account: str = "provision"
    control_prefix: str = "$EDC"
    requester: str = "fleetgate"
    trigger_on_birth: bool = True
    reply_app: str = "PROV-V1"
    metric_message_id: str = "request.id"
    metric_version: str = "prov.version"
    metric_activation_key: str = "activation.key"
    metrics_of_device: tuple[str, ...] = ("serial_number", "model_id", "firmware_version", "prov.attempt")
    metric_status: str = "prov.status"
    metric_retry_after: str = "prov.retry.after"
    metric_server_time: str = "prov.server.time"

    def __post_init__(self) -> None:
        for name in ("control_prefix", "provision_account", "requester", "reply_app"):
            level = getattr(self, name)
            if not level or set(level) & set("/+#\0"):
                raise ValueError(f"{name} has to be one topic level: not empty, without / + # and NUL")


class Esf:
    """The dialect as the port wants it."""

    name = "esf"

    def __init__(self, settings: EsfSettings) -> None:
        self._settings = settings

    def rights(self, client_id: str) -> TopicRights:
        if client_id == self._settings.requester:
            return TopicRights()  # what is its own would be what all others say to us
        base, to_us = self._base(client_id), self._base(self._settings.requester)
        return TopicRights(
            publish=frozenset(f"{base}MQTT/{what}" for what in ("BIRTH", "APPS", "DC", "PROV")),
            below=base,
            wills=frozenset((f"{base}MQTT/LWT",)),
            # A request id cannot be guessed, so that nobody else can say the reply to it.
            replies=frozenset((f"{to_us}+/REPLY/+", f"{to_us}+/NOTIFY/{client_id}/+")),
        )

    def decode(self, client_id: str, topic: str, payload: bytes, fresh_id: str) -> Incoming | None:
        lifecycle = f"{self._base(client_id)}MQTT/"
        if not topic.startswith(lifecycle):
            return None
        what = topic.removeprefix(lifecycle)
        triggers = what == "PROV" or (what == "BIRTH" and self._settings.trigger_on_birth)
        if not triggers:
            return Ignored(what=what)
        try:
            message = decode(payload)
        except MalformedPayload as error:
            # A BIRTH asks nothing, so nothing is answered to one that cannot be read.
            bad = Malformed(detail=f"payload: {error}", dialect=self.name, message_id=None)
            return bad if what == "PROV" else Ignored(what=what)
        return self._trigger(message) if what == "PROV" else self._birth(message, fresh_id)

    def ids_needed(self, answer: Answer) -> int:
        return _STEPS_BESIDE_PACKAGES_MAX + len(answer.delivery.packages) if answer.delivery else 0

    def exchange(
        self, client_id: str, message: ProvisionMessage | Malformed, answer: Answer, fresh_ids: Sequence[str]
    ) -> Exchange:
        by_birth = isinstance(message, ProvisionMessage) and message.by_birth
        reply = () if by_birth else (self._reply(client_id, answer),)
        if answer.delivery is None:
            return OneShot(*reply)
        try:
            steps = _steps(answer.delivery)
        except (MalformedConfiguration, ValueError) as error:
            return OneShot(*reply, failure=f"configuration: {error}")
        dialogue = Dialogue(
            steps,
            requester=self._settings.requester,
            control_prefix=self._settings.control_prefix,
            account=self._settings.provision_account,
            client_id=client_id,
            request_ids=fresh_ids,
        )
        return Announced(reply, dialogue)

    def _base(self, client_id: str) -> str:
        return f"{self._settings.control_prefix}/{self._settings.provision_account}/{client_id}/"

    def _trigger(self, message: KuraPayload) -> ProvisionMessage | Malformed:
        names = self._settings
        message_id = message.text(names.metric_message_id)
        if message_id is None or not _is_id(message_id):
            rule = f"must be printable STRING of 1 to {MESSAGE_ID_CHARACTERS_MAX}, free of / + #"
            return Malformed(detail=f"{names.metric_message_id}: {rule}", dialect=self.name)
        if message.metric(names.metric_version) not in (None, PROV_VERSION):
            return self._malformed(message_id, f"{names.metric_version}: must be {PROV_VERSION}")
        key = message.metric(names.metric_activation_key)
        if key is not None and not (isinstance(key, str) and 1 <= len(key) <= KEY_CHARACTERS_MAX):
            rule = f"must be STRING of 1 to {KEY_CHARACTERS_MAX}"
            return self._malformed(message_id, f"{names.metric_activation_key}: {rule}")
        try:
            csr = message.body.decode("ascii") if message.body else None
        except UnicodeDecodeError:
            return self._malformed(message_id, "body: must be a PEM certificate request")
        if csr is not None and len(csr) > CSR_CHARACTERS_MAX:
            return self._malformed(message_id, f"body: must be at most {CSR_CHARACTERS_MAX} characters")
        return ProvisionMessage(
            message_id=message_id,
            dialect=self.name,
            activation_key=Secret(key) if key is not None else None,
            csr=csr,
            device=_metadata(message, names.metrics_of_device),
        )

    def _birth(self, message: KuraPayload, fresh_id: str) -> ProvisionMessage:
        device = _metadata(message, (*self._settings.metrics_of_device, "display_name", "kura_version", "esf_version"))
        return ProvisionMessage(message_id=fresh_id, dialect=self.name, device=device, by_birth=True)

    def _malformed(self, message_id: str, detail: str) -> Malformed:
        return Malformed(detail=detail, message_id=message_id, dialect=self.name)

    def _reply(self, client_id: str, answer: Answer) -> Outgoing:
        names = self._settings
        at_ms = int(answer.server_time.timestamp() * 1000)
        metrics = [
            metric("response.code", _CODES.get(answer.status, _REFUSED_CODE), MetricType.INT32),
            metric(names.metric_status, answer.status.value),
            metric(names.metric_server_time, at_ms, MetricType.INT64),
        ]
        if answer.retry_after_s is not None:
            metrics.append(metric(names.metric_retry_after, answer.retry_after_s * 1000, MetricType.INT64))
        if answer.status is not Status.PROVISIONED:
            metrics.append(metric("response.exception.message", answer.detail or answer.status.value))
        # A message whose id could not be read is still answered; its answer has a level of its own.
        level = answer.message_id or "unknown"
        topic = f"{self._base(client_id)}{names.reply_app}/REPLY/{level}"
        return Outgoing(topic, encode(KuraPayload(timestamp_ms=at_ms, metrics=tuple(metrics)), compress=True))


class Announced:
    """The reply to the trigger, then the dialogue with the gateway's apps."""

    def __init__(self, reply: Sequence[Outgoing], dialogue: Dialogue) -> None:
        self._reply, self._dialogue = tuple(reply), dialogue

    def start(self, now_s: float) -> Sequence[Outgoing]:
        return (*self._reply, *self._dialogue.start(now_s))

    def receive(self, topic: str, payload: bytes, now_s: float) -> Sequence[Outgoing]:
        return self._dialogue.receive(topic, payload, now_s)

    def tick(self, now_s: float) -> Sequence[Outgoing]:
        return self._dialogue.tick(now_s)

    def deadline(self) -> float | None:
        return self._dialogue.deadline()

    def expected_topics(self) -> frozenset[str]:
        return self._dialogue.expected_topics()

    @property
    def done(self) -> bool:
        return self._dialogue.done

    @property
    def taken(self) -> bool:
        """A 200 on the configuration, which comes last: received, and applied a second later."""
        return self._dialogue.done and self._dialogue.failure is None

    @property
    def failure(self) -> str | None:
        return self._dialogue.failure

    @property
    def installed(self) -> Sequence[str]:
        return self._dialogue.installed


def _steps(delivery: Delivery) -> list[Step]:
    steps: list[Step] = []
    if delivery.certificate and delivery.ca and delivery.private_key:
        chain = [delivery.certificate, delivery.ca]
        steps.append(private_key_step(delivery.client_id, delivery.private_key, chain))
    elif delivery.certificate and delivery.ca:
        steps.append(certificate_step(delivery.client_id, delivery.certificate))
        steps.append(certificate_step(f"{delivery.account}-ca", delivery.ca))
    steps += [package_step(package) for package in delivery.packages]
    return [*steps, configuration_step(components(delivery.configuration))]


def components(configuration: Mapping[str, Any]) -> list[Component]:
    """The configuration as a gateway's components: nested names joined by dots, ``{"type", "value"}`` as stated.

    Raises MalformedConfiguration naming component, property and rule."""
    return [Component(pid, dict(_properties(pid, "", properties))) for pid, properties in configuration.items()]


def _properties(pid: str, prefix: str, properties: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in properties.items():
        if not isinstance(value, Mapping):
            yield prefix + name, value
        elif value.keys() == {"type", "value"}:
            yield prefix + name, _stated(f"{pid!r}: {prefix + name!r}", value)
        else:
            yield from _properties(pid, f"{prefix}{name}.", value)


def _stated(where: str, value: Mapping[str, Any]) -> Typed:
    try:
        kind = PropertyType(value["type"])
    except ValueError:
        raise MalformedConfiguration(f"{where}: type must be one of {', '.join(PropertyType)}") from None
    try:
        return Typed(kind, value["value"])
    except MalformedConfiguration as misfit:
        raise MalformedConfiguration(f"{where}: {misfit}") from None


def _is_id(text: str) -> bool:
    return 1 <= len(text) <= MESSAGE_ID_CHARACTERS_MAX and text.isprintable() and not set(text) & set("/+#")


def _metadata(message: KuraPayload, names: Sequence[str]) -> dict[str, object]:
    found = {name: message.metric(name) for name in names}
    return {
        name: value[:METADATA_TEXT_CHARACTERS_MAX] if isinstance(value, str) else value
        for name, value in found.items()
        if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    }
