"""The words of a device that speaks JSON over MQTT, version 1 (docs/device-protocol.md)."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from device_sim.actions import Action, Publish, Subscribe, Will
from device_sim.dialogue import Delivered, Heard, Identity, Refused, Unusable
from device_sim.state import AccountSettings, DeviceState
from provisioner.dialects import strict_json
from provisioner.model.messages import Status
from provisioner.model.secret import Secret

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXTS = ("broker_url", "account", "client_id", "username", "password")
_OPTIONAL_TEXTS = ("device_id", "certificate", "ca", "private_key", "renew_after")


class JsonDialogue:
    """`prov/v1/<client id>/request`, `response` and `ack`; on the account broker `<account>/<client id>/status`."""

    kind = "json"

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        base = f"prov/v1/{identity.client_id}"
        self._request, self._response, self._ack = f"{base}/request", f"{base}/response", f"{base}/ack"

    def will(self, settings: AccountSettings | None) -> Will | None:
        return None

    def open(self, state: DeviceState, attempt: int, clock_ms: int) -> Sequence[Action]:
        return [Subscribe((self._response,))]

    def ask(self, state: DeviceState, attempt: int, clock_ms: int) -> Sequence[Action]:
        body: dict[str, Any] = {"request_id": state.request_id}
        if self._identity.activation_key is not None:
            body["activation_key"] = self._identity.activation_key.reveal()
        if state.csr is not None:
            body["csr"] = state.csr
        body["device"] = {**self._identity.metadata, "attempt": attempt, "clock": _rfc3339(clock_ms)}
        return [Publish(self._request, json.dumps(body).encode(), asks=True)]

    def receive(self, state: DeviceState, topic: str, payload: bytes, clock_ms: int) -> Heard | None:
        """None also for an answer to another question. An answer without a request_id is to a message that the gate
        could not read, which can only have been ours."""
        if topic != self._response:
            return None
        try:
            # The answer of an account with a long configuration may exceed what a provision message may have.
            body = strict_json.loads(payload, bytes_max=1 << 20)
        except strict_json.NotStrictJson as error:
            return self._unusable(state, f"answer: {error}")
        if not isinstance(body, dict):
            return self._unusable(state, "answer: must be a JSON object")
        if body.get("request_id") not in (state.request_id, None):
            return None
        return self._heard(state, body)

    def _heard(self, state: DeviceState, body: Mapping[str, Any]) -> Heard:
        try:
            if body.get("status") not in tuple(Status):
                raise ValueError("status: is none of the known ones")
            status = Status(body["status"])
            if status is Status.PROVISIONED:
                return Delivered(_settings(body, state.own_key))
            retry_after_s = body.get("retry_after_s") or 0
            if not isinstance(retry_after_s, int | float) or retry_after_s < 0:
                raise ValueError("retry_after_s: must be a number of seconds")
            return Refused(status, float(retry_after_s), str(body.get("detail") or ""))
        except ValueError as error:
            return self._unusable(state, str(error))

    def _unusable(self, state: DeviceState, detail: str) -> Unusable:
        return Unusable(detail, (self._acknowledgement(state, "failed", detail),))

    def leave(self, state: DeviceState, clock_ms: int) -> Sequence[Action]:
        return [self._acknowledgement(state, "applied")]

    def arrive(self, settings: AccountSettings, clock_ms: int) -> Sequence[Action]:
        body = {"state": "connected", "clock": _rfc3339(clock_ms), "packages": list(settings.packages)}
        return [Publish(f"{settings.account}/{settings.client_id}/status", json.dumps(body).encode())]

    def _acknowledgement(self, state: DeviceState, result: str, detail: str = "") -> Publish:
        body = {"request_id": state.request_id, "result": result} | ({"detail": detail} if detail else {})
        return Publish(self._ack, json.dumps(body).encode())


def _settings(body: Mapping[str, Any], own_key: Secret | None) -> AccountSettings:
    """Raises ValueError that names the field and its rule."""
    for name in (*_TEXTS, *_OPTIONAL_TEXTS):
        if not isinstance(body.get(name), str) and (name in _TEXTS or body.get(name) is not None):
            raise ValueError(f"{name}: must be text")
    configuration = body.get("configuration", {})
    if not isinstance(configuration, dict):
        raise ValueError("configuration: must be an object")
    sent_key = body.get("private_key")
    return AccountSettings(
        broker_url=body["broker_url"],
        account=body["account"],
        client_id=body["client_id"],
        username=body["username"],
        password=Secret(body["password"]),
        device_id=body.get("device_id"),
        certificate=body.get("certificate"),
        ca=body.get("ca"),
        private_key=Secret(sent_key) if sent_key else own_key if body.get("certificate") else None,
        configuration=configuration,
        packages=_packages(body.get("packages", [])),
        renew_after=body.get("renew_after"),
    )


def _packages(listed: object) -> tuple[str, ...]:
    """`name version` of each."""
    try:
        return tuple(f"{each['name']} {each['version']}" for each in listed)  # type: ignore[attr-defined]  # or TypeError
    except (TypeError, KeyError):
        raise ValueError("packages: must be a list of objects with name and version") from None


def _rfc3339(clock_ms: int) -> str:
    """Also for a clock before 1970."""
    instant = _EPOCH + timedelta(milliseconds=clock_ms)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
