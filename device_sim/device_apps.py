"""What a gateway does with the requests of the platform: CONF-V1, DEPLOY-V2 and KEYS-V2, as Eclipse Kura answers them.

Requests come as `<APP>/<METHOD>/<resource...>`; every copy of a request is answered. What arrives here stays on trial
until the configuration is applied: `running` is merged, never replaced, and unknown components are ignored unless they
name their factory.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from device_sim.keys import certifies
from device_sim.state import AccountSettings, DeviceState
from provisioner.dialects import strict_json
from provisioner.dialects.kura_payload import KuraPayload, Metric, MetricType, metric
from provisioner.dialects.kura_properties import Value, items, plain, typed
from provisioner.dialects.kura_xml import Component, MalformedConfiguration, read, write
from provisioner.model.secret import Secret

TRANSPORT_PID = "org.eclipse.kura.core.data.transport.mqtt.MqttDataTransport"
DATA_SERVICE_PID = "org.eclipse.kura.data.DataService"
CLOUD_SERVICE_PID = "org.eclipse.kura.cloud.CloudService"
PROVISIONING_PID = "org.eclipse.kura.provisioning.ProvisioningService"

OK, BAD_REQUEST, NOT_FOUND = 200, 400, 404

Configuration = dict[str, dict[str, Value]]

# Kura's DEPLOY-V2 answers 400 when one of these is missing.
_DOWNLOAD_METRICS = ("dp.uri", "dp.name", "dp.version", "dp.download.protocol", "dp.install.system.update")


@dataclass(frozen=True, slots=True)
class Reply:
    """code: one of 200, 400, 404, 500. notices: NOTIFY resource and metrics. leaves: the configuration moves it."""

    code: int
    detail: str = ""
    body: bytes | None = field(default=None, repr=False)
    notices: Sequence[tuple[str, tuple[Metric, ...]]] = ()
    leaves: bool = False


class DeviceApps:
    """The apps of one gateway, and what they were given so far."""

    def __init__(self, running: Configuration, state: DeviceState) -> None:
        self.running = running
        self._state = state
        self._packages: list[str] = []
        self._trusted: list[str] = []
        self._aliases: dict[str, str] = {}
        self._certificate: str | None = None
        self._private_key: Secret | None = None
        self._verbs: Mapping[tuple[str, ...], Callable[[KuraPayload], Reply]] = {
            ("CONF-V1", "PUT", "configurations"): self._put_configuration,
            ("CONF-V1", "GET", "configurations"): self._get_configuration,
            ("DEPLOY-V2", "EXEC", "download"): self._download,
            ("DEPLOY-V2", "GET", "packages"): self._get_packages,
            ("KEYS-V2", "GET", "keystores", "entries"): self._get_entries,
            ("KEYS-V2", "POST", "keystores", "entries", "certificate"): self._post_certificate,
            ("KEYS-V2", "POST", "keystores", "entries", "privatekey"): self._post_private_key,
            ("KEYS-V2", "POST", "keystores", "entries", "csr"): self._post_csr,
        }

    def handle(self, levels: tuple[str, ...], request: KuraPayload) -> Reply:
        if levels[:3] == ("CONF-V1", "PUT", "configurations") and len(levels) == 4:
            return self._put_configuration(request, levels[3])
        verb = self._verbs.get(levels)
        return verb(request) if verb else Reply(NOT_FOUND, "no such resource")

    def settings(self) -> AccountSettings:
        """What the gateway will run with. Raises ValueError when it could not connect with that."""
        transport = self.running[TRANSPORT_PID]
        password = transport.get("password")
        return AccountSettings(
            broker_url=self._text("broker-url"),
            account=self._text("topic.context.account-name"),
            client_id=self._text("client-id"),
            username=self._text("username"),
            password=password if isinstance(password, Secret) else Secret(self._text("password")),
            certificate=self._certificate,
            private_key=self._private_key,
            ca="".join(self._trusted) or None,
            configuration={pid: _without_passwords(properties) for pid, properties in self.running.items()},
            packages=tuple(self._packages),
        )

    def _text(self, name: str) -> str:
        value = self.running[TRANSPORT_PID].get(name)
        if not isinstance(value, str):
            raise ValueError(f"{name}: must be a String")
        return value

    # --- CONF-V1 ------------------------------------------------------------------------------------------------

    def _put_configuration(self, request: KuraPayload, only_pid: str | None = None) -> Reply:
        try:
            components = [each for each in read(request.body or b"") if only_pid in (None, each.pid)]
        except MalformedConfiguration as refused:
            return Reply(BAD_REQUEST, str(refused))
        if not components:
            return Reply(BAD_REQUEST, "no esf:configuration in the body")
        for each in components:
            if each.pid in self.running or "service.factoryPid" in each.properties:
                self.running[each.pid] = {**self.running.get(each.pid, {}), **each.properties}
        return Reply(OK, leaves=any(each.pid == TRANSPORT_PID for each in components))

    def _get_configuration(self, request: KuraPayload) -> Reply:
        return Reply(OK, body=write([Component(pid, properties) for pid, properties in self.running.items()]))

    # --- DEPLOY-V2 ----------------------------------------------------------------------------------------------

    def _download(self, request: KuraPayload) -> Reply:
        missing = [name for name in _DOWNLOAD_METRICS if request.metric(name) is None]
        if missing:
            return Reply(BAD_REQUEST, f"{missing[0]} is missing")
        name, number = str(request.text("dp.name")), request.integer("job.id") or 0
        label = f"{name} {request.text('dp.version')}"
        notices = [("download", _notice("download", name, number))]
        if request.metric("dp.install") is True:
            notices.append(("install", _notice("install", name, number)))
            if label not in self._packages:
                self._packages.append(label)
        return Reply(OK, notices=notices)

    def _get_packages(self, request: KuraPayload) -> Reply:
        rows = (label.rpartition(" ") for label in self._packages)
        packages = "".join(
            f"<package><name>{escape(name)}</name><version>{escape(version)}</version></package>"
            for name, _, version in rows
        )
        return Reply(OK, body=f'<?xml version="1.0" encoding="UTF-8"?><packages>{packages}</packages>'.encode())

    # --- KEYS-V2 ------------------------------------------------------------------------------------------------

    def _get_entries(self, request: KuraPayload) -> Reply:
        rows = [{"alias": alias, "type": kind} for alias, kind in self._aliases.items()]
        return Reply(OK, body=json.dumps(rows).encode())

    def _post_certificate(self, request: KuraPayload) -> Reply:
        entry = _entry(request, "alias", "certificate")
        if entry is None:
            return Reply(BAD_REQUEST, "alias and certificate are needed")
        alias, pem = entry
        own_key = self._state.own_key
        if own_key is not None and certifies(pem, own_key):
            self._certificate, self._private_key = pem, own_key
        elif pem not in self._trusted:
            self._trusted.append(pem)
        self._aliases[alias] = "TRUSTED_CERTIFICATE"
        return Reply(OK)

    def _post_private_key(self, request: KuraPayload) -> Reply:
        entry = _entry(request, "alias", "privateKey")
        chain = (_body(request) or {}).get("certificateChain")
        if entry is None or not isinstance(chain, list) or not chain or not all(isinstance(pem, str) for pem in chain):
            return Reply(BAD_REQUEST, "alias, privateKey and certificateChain are needed")
        alias, key = entry
        self._certificate, self._private_key = "".join(chain), Secret(key)
        self._aliases[alias] = "PRIVATE_KEY"
        return Reply(OK)

    def _post_csr(self, request: KuraPayload) -> Reply:
        if self._state.csr is None:
            return Reply(NOT_FOUND, "no key pair with that alias")
        return Reply(OK, body=json.dumps({"signingRequest": self._state.csr}).encode())


def _without_passwords(properties: Mapping[str, Value]) -> dict[str, object]:
    """They stay out of what is kept for show; the one password that the device needs has its own field."""
    shown = {name: value for name, value in properties.items() if value is not None}
    return {n: plain(v) for n, v in shown.items() if not any(isinstance(i, Secret) for i in items(typed(v).value))}


def _notice(resource: str, name: str, number: int) -> tuple[Metric, ...]:
    return (
        metric("job.id", number, MetricType.INT64),
        metric("dp.name", name),
        metric(f"dp.{resource}.status", "COMPLETED"),
        metric(f"dp.{resource}.progress", 100),
    )


def _body(request: KuraPayload) -> dict[str, object] | None:
    try:
        body = strict_json.loads(request.body or b"")
    except strict_json.NotStrictJson:
        return None
    return body if isinstance(body, dict) else None


def _entry(request: KuraPayload, *names: str) -> tuple[str, str] | None:
    """The two named texts of the body, or None."""
    first, second = ((_body(request) or {}).get(name) for name in names)
    return (first, second) if isinstance(first, str) and isinstance(second, str) else None
