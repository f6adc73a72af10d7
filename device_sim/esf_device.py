"""The words of ESF and Kura gateways on `$EDC/<account>/<client id>/...` (docs/device-protocol.md).

An `esf` gateway has a ProvisioningService: it subscribes, then asks with a PROV message that may carry an activation
key. A stock `kura` gateway publishes BIRTH and only then subscribes, as every Kura does; its BIRTH is the question and
the configuration is the only answer that it understands.
"""

from collections.abc import Mapping, Sequence

from device_sim.actions import Action, Log, Publish, Subscribe, Will
from device_sim.device_apps import (
    CLOUD_SERVICE_PID,
    DATA_SERVICE_PID,
    PROVISIONING_PID,
    TRANSPORT_PID,
    Configuration,
    DeviceApps,
    Reply,
)
from device_sim.dialogue import Delivered, Heard, Identity, Progress, Refused, Unusable
from device_sim.state import AccountSettings, DeviceState
from provisioner.dialects.kura_payload import KuraPayload, MalformedPayload, Metric, MetricType, decode, encode, metric
from provisioner.model.messages import Status

_APPS = "CONF-V1,DEPLOY-V2,KEYS-V2"
_ECHOES = frozenset({"MQTT", "BA"})
# For a platform that sends a code and no status.
_STATUS_OF_CODE = {400: Status.MALFORMED, 404: Status.REFUSED, 500: Status.BUSY}


class KuraDialogue:
    """A stock gateway."""

    kind = "kura"
    version_metric = "kura_version"
    app_ids = _APPS

    def __init__(self, identity: Identity, apply_delay_s: float) -> None:
        self._identity = identity
        self._apply_delay_s = apply_delay_s
        self._prefix = f"{identity.control_prefix}/{identity.account}/{identity.client_id}"
        self._apps: DeviceApps | None = None
        self._opened_ms = 0

    def will(self, settings: AccountSettings | None) -> Will | None:
        return Will(f"{self._prefix_of(settings)}/MQTT/LWT")

    def open(self, state: DeviceState, attempt: int, clock_ms: int) -> Sequence[Action]:
        self._begin(state, clock_ms)
        return [
            Publish(f"{self._prefix}/MQTT/BIRTH", self._birth(clock_ms), asks=True),
            Subscribe((f"{self._prefix}/#",)),
        ]

    def ask(self, state: DeviceState, attempt: int, clock_ms: int) -> Sequence[Action]:
        return []

    def receive(self, state: DeviceState, topic: str, payload: bytes, clock_ms: int) -> Heard | None:
        if not topic.startswith(f"{self._prefix}/") or self._apps is None:
            return None
        levels = tuple(topic[len(self._prefix) + 1 :].split("/"))
        # Its own wildcard brings it back what it published itself.
        if levels[0] in _ECHOES:
            return None
        try:
            message = decode(payload)
        except MalformedPayload:
            return None
        if len(levels) > 1 and levels[1] in ("REPLY", "NOTIFY"):
            return self._on_reply(state, levels, message)
        return self._on_request(self._apps, levels, message, clock_ms)

    def leave(self, state: DeviceState, clock_ms: int) -> Sequence[Action]:
        return [self._death(clock_ms)]

    def arrive(self, settings: AccountSettings, clock_ms: int) -> Sequence[Action]:
        prefix = self._prefix_of(settings)
        return [Publish(f"{prefix}/MQTT/BIRTH", self._birth(clock_ms)), Subscribe((f"{prefix}/#",))]

    # --- for the gateway with a ProvisioningService -------------------------------------------------------------

    def _begin(self, state: DeviceState, clock_ms: int) -> None:
        """A new connection: what a former one delivered in part is delivered again."""
        self._apps = DeviceApps(self._factory_configuration(), state)
        self._opened_ms = clock_ms

    def _factory_configuration(self) -> Configuration:
        identity = self._identity
        return {
            TRANSPORT_PID: {
                "broker-url": identity.gate_url,
                "topic.context.account-name": identity.account,
                "client-id": identity.client_id,
                "username": identity.username,
                "password": identity.password,
                "clean-session": True,
                "lwt.topic": f"{identity.control_prefix}/#account-name/#client-id/MQTT/LWT",
            },
            DATA_SERVICE_PID: {"connect.auto-on-startup": False, "connect.retry-interval": 60},
            CLOUD_SERVICE_PID: {"topic.control-prefix": identity.control_prefix, "encode.gzip": True},
        }

    def _on_reply(self, state: DeviceState, levels: tuple[str, ...], message: KuraPayload) -> Heard | None:
        """Kura asks nothing, so replies are none of its business."""
        return None

    def _take_over(self, settings: AccountSettings) -> AccountSettings:
        return settings

    # --- requests of the platform -------------------------------------------------------------------------------

    def _on_request(
        self, apps: DeviceApps, levels: tuple[str, ...], message: KuraPayload, clock_ms: int
    ) -> Heard | None:
        request_id, requester = message.text("request.id"), message.text("requester.client.id")
        if not request_id or not requester or set(request_id + requester) & set("/+#\0"):
            return None  # as Kura, which throws and stays silent
        reply = apps.handle(levels, message)
        home = f"{self._identity.control_prefix}/{self._identity.account}/{requester}/{levels[0]}"
        messages = self._reply_messages(home, request_id, reply, clock_ms)
        if not reply.leaves:
            return Progress((Log(f"{levels[0]} {levels[1]}", str(reply.code)), *messages))
        try:
            settings = self._take_over(apps.settings())
        except ValueError as error:
            return Unusable(str(error), messages)
        return Delivered(settings, messages, self._apply_delay_s)

    def _reply_messages(self, home: str, request_id: str, reply: Reply, clock_ms: int) -> tuple[Publish, ...]:
        """REPLY first, then what NOTIFY tells; all at QoS 0, as gateways do."""
        metrics = [metric("response.code", reply.code, MetricType.INT32)]
        if reply.detail:
            metrics.append(metric("response.exception.message", reply.detail))
        answer = Publish(f"{home}/REPLY/{request_id}", self._payload(metrics, clock_ms, reply.body), qos=0)
        who = metric("client.id", self._identity.client_id)
        notices = (
            Publish(
                f"{home}/NOTIFY/{self._identity.client_id}/{resource}", self._payload([who, *told], clock_ms), qos=0
            )
            for resource, told in reply.notices
        )
        return (answer, *notices)

    # --- life cycle messages ------------------------------------------------------------------------------------

    def _prefix_of(self, settings: AccountSettings | None) -> str:
        if settings is None:
            return self._prefix
        return f"{self._identity.control_prefix}/{settings.account}/{settings.client_id}"

    def _birth(self, clock_ms: int) -> bytes:
        known = self._identity.metadata
        texts = {
            "uptime": str(max(0, clock_ms - self._opened_ms)),
            "display_name": known.get("display_name", self._identity.client_id),
            "model_id": known.get("model_id", "device-sim"),
            "serial_number": known.get("serial_number", ""),
            "firmware_version": known.get("firmware_version", ""),
            self.version_metric: "device-sim",
            "accept_encoding": "gzip",
            "application_ids": self.app_ids,
            "payload_encoding": "KURA_PROTOBUF",
        }
        return self._payload(_texts(texts), clock_ms)

    def _death(self, clock_ms: int) -> Publish:
        texts = {"uptime": str(max(0, clock_ms - self._opened_ms)), "display_name": self._identity.client_id}
        return Publish(f"{self._prefix}/MQTT/DC", self._payload(_texts(texts), clock_ms), qos=0)

    def _payload(self, metrics: Sequence[Metric], clock_ms: int, body: bytes | None = None) -> bytes:
        return encode(KuraPayload(timestamp_ms=clock_ms, metrics=tuple(metrics), body=body), compress=True)


class EsfDialogue(KuraDialogue):
    """A gateway with ProvisioningService."""

    kind = "esf"
    version_metric = "esf_version"
    app_ids = f"{_APPS},PROV-V1"

    def open(self, state: DeviceState, attempt: int, clock_ms: int) -> Sequence[Action]:
        self._begin(state, clock_ms)
        return [Subscribe((f"{self._prefix}/#",))]

    def ask(self, state: DeviceState, attempt: int, clock_ms: int) -> Sequence[Action]:
        metrics = [
            metric("request.id", state.request_id),
            metric("requester.client.id", self._identity.client_id),
            metric("prov.version", 1),
            metric("prov.attempt", attempt),
        ]
        if self._identity.activation_key is not None:
            metrics.append(metric("activation.key", self._identity.activation_key.reveal()))
        known = ("serial_number", "model_id", "firmware_version")
        metrics += _texts({name: text for name, text in self._identity.metadata.items() if name in known})
        body = state.csr.encode() if state.csr is not None else None
        return [Publish(f"{self._prefix}/MQTT/PROV", self._payload(metrics, clock_ms, body), asks=True)]

    def _factory_configuration(self) -> Configuration:
        identity = self._identity
        key = {"activation.key": identity.activation_key} if identity.activation_key is not None else {}
        return super()._factory_configuration() | {
            PROVISIONING_PID: {
                "enabled": identity.provisioning,
                "provisioned": False,
                "ca-authentication": False,
                "broker-url": identity.gate_url,
                "account-name": identity.account,
                "client-id": identity.client_id,
                "username": identity.username,
                "password": identity.password,
                **key,
            }
        }

    def _on_reply(self, state: DeviceState, levels: tuple[str, ...], message: KuraPayload) -> Heard | None:
        if levels != ("PROV-V1", "REPLY", state.request_id):
            return None
        said = message.text("prov.status") or _STATUS_OF_CODE.get(message.integer("response.code") or 0)
        if said not in tuple(Status):
            return Unusable("prov.status: is none of the known ones")
        status = Status(said)
        if status is Status.PROVISIONED:
            # No more than an announcement: keys, packages and configuration follow as requests.
            return Progress((Log("PROV", status),))
        retry_after_s = max(0, message.integer("prov.retry.after") or 0) / 1000
        return Refused(status, retry_after_s, message.text("response.exception.message") or "")

    def _take_over(self, settings: AccountSettings) -> AccountSettings:
        """On success the service switches itself off."""
        if self._apps is not None:
            self._apps.running[PROVISIONING_PID] |= {"enabled": False, "provisioned": True}
            return self._apps.settings()
        return settings


def _texts(values: Mapping[str, str]) -> list[Metric]:
    return [metric(name, text) for name, text in values.items()]
