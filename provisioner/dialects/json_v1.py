"""Native dialect: JSON over MQTT, version 1, for any device that can publish JSON.

``prov/v1/<client-id>/request`` and ``.../ack`` come in, ``.../response`` goes out (docs/device-protocol.md).
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from provisioner.dialects import strict_json
from provisioner.dialects.limits import (
    CSR_CHARACTERS_MAX,
    DETAIL_CHARACTERS_MAX,
    KEY_CHARACTERS_MAX,
    METADATA_ENTRIES_MAX,
    METADATA_TEXT_CHARACTERS_MAX,
)
from provisioner.dialects.one_shot import OneShot
from provisioner.model.messages import (
    MESSAGE_ID_CHARACTERS_MAX,
    Acknowledgement,
    Answer,
    Delivery,
    Incoming,
    Malformed,
    Outgoing,
    ProvisionMessage,
)
from provisioner.model.secret import Secret
from provisioner.model.topics import TopicRights

PREFIX = "prov/v1"


class JsonV1:
    """The dialect as the port wants it; it has no settings and no state."""

    name = "json_v1"

    def rights(self, client_id: str) -> TopicRights:
        base = f"{PREFIX}/{client_id}"
        return TopicRights(
            publish=frozenset((f"{base}/request", f"{base}/ack")),
            # Subscribing to one's own three topics is harmless, only the response ever carries anything.
            subscribe=frozenset((f"{base}/response",)),
        )

    def decode(self, client_id: str, topic: str, payload: bytes, fresh_id: str) -> Incoming | None:
        base = f"{PREFIX}/{client_id}/"
        if not topic.startswith(base):
            return None
        try:
            body = strict_json.loads(payload)
        except strict_json.NotStrictJson as error:
            return Malformed(detail=f"payload: {error}", dialect=self.name)
        if not isinstance(body, dict):
            return Malformed(detail="payload: must be a JSON object", dialect=self.name)
        try:
            return _acknowledgement(body) if topic == base + "ack" else _message(body)
        except _BadField as error:
            return Malformed(detail=str(error), message_id=_message_id_or_none(body), dialect=self.name)

    def ids_needed(self, answer: Answer) -> int:
        return 0

    def exchange(
        self, client_id: str, message: ProvisionMessage | Malformed, answer: Answer, fresh_ids: Sequence[str]
    ) -> OneShot:
        return OneShot(Outgoing(f"{PREFIX}/{client_id}/response", encode(answer)))


class _BadField(Exception):
    """A field breaks a rule; the text names both and not the value."""


def _message(body: Mapping[str, Any]) -> ProvisionMessage:
    key = _text(body, "activation_key", KEY_CHARACTERS_MAX)
    return ProvisionMessage(
        message_id=_message_id(body),
        dialect=JsonV1.name,
        activation_key=Secret(key) if key is not None else None,
        csr=_text(body, "csr", CSR_CHARACTERS_MAX),
        device=_metadata(body.get("device")),
    )


def _acknowledgement(body: Mapping[str, Any]) -> Acknowledgement:
    result = body.get("result")
    if result not in ("applied", "failed"):
        raise _BadField("result: must be 'applied' or 'failed'")
    detail = _text(body, "detail", 65_536)
    return Acknowledgement(
        message_id=_message_id(body),
        applied=result == "applied",
        detail=detail[:DETAIL_CHARACTERS_MAX] if detail else None,
    )


def _message_id(body: Mapping[str, Any]) -> str:
    value = _message_id_or_none(body)
    if value is None:
        raise _BadField(f"request_id: must be printable text of 1 to {MESSAGE_ID_CHARACTERS_MAX} characters")
    return value


def _message_id_or_none(body: Mapping[str, Any]) -> str | None:
    value = body.get("request_id")
    fits = isinstance(value, str) and 1 <= len(value) <= MESSAGE_ID_CHARACTERS_MAX and value.isprintable()
    return value if fits else None


def _text(body: Mapping[str, Any], name: str, characters_max: int) -> str | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, str) or not value or len(value) > characters_max):
        raise _BadField(f"{name}: must be text of 1 to {characters_max} characters")
    return value


def _metadata(value: Any) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > METADATA_ENTRIES_MAX:
        raise _BadField(f"device: must be an object of at most {METADATA_ENTRIES_MAX} entries")
    for name, entry in value.items():
        plain = entry is None or isinstance(entry, bool | int | float)
        short = isinstance(entry, str) and len(entry) <= METADATA_TEXT_CHARACTERS_MAX
        if not (plain or short) or len(name) > METADATA_TEXT_CHARACTERS_MAX:
            raise _BadField(f"device: must hold texts of at most {METADATA_TEXT_CHARACTERS_MAX} characters, or numbers")
    return value


def encode(answer: Answer) -> bytes:
    """The answer as it stands on the wire; the same answer always gives the same bytes (D7)."""
    body: dict[str, Any] = {
        "request_id": answer.message_id,
        "status": answer.status.value,
        "server_time": rfc3339(answer.server_time),
    }
    if answer.retry_after_s is not None:
        body["retry_after_s"] = answer.retry_after_s
    if answer.detail is not None:
        body["detail"] = answer.detail
    if answer.delivery is not None:
        body |= delivery_fields(answer.delivery)
    return json.dumps(body, separators=(",", ":"), default=_reveal, ensure_ascii=False).encode()


def delivery_fields(delivery: Delivery) -> dict[str, Any]:
    """The fields of status ``provisioned``; those that the account does not use are left out."""
    packages = [{"name": p.name, "version": p.version, "url": p.url, "sha256": p.sha256} for p in delivery.packages]
    fields: dict[str, Any] = {
        "device_id": delivery.device_id,
        "account": delivery.account,
        "broker_url": delivery.broker_url,
        "client_id": delivery.client_id,
        "username": delivery.username,
        "password": delivery.password,
        "configuration": delivery.configuration,
        "packages": packages,
        "certificate": delivery.certificate,
        "ca": delivery.ca,
        "private_key": delivery.private_key,
        "renew_after": rfc3339(delivery.renew_after) if delivery.renew_after else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def rfc3339(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _reveal(value: object) -> str:
    """The one place where a secret becomes text on its way to the device that it belongs to."""
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(f"{type(value).__name__} is not JSON")
