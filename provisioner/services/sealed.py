"""The answer that must be said again byte for byte, sealed into its request until the device is confirmed (D7)."""

from dataclasses import fields
from datetime import datetime
from typing import Any

import orjson

from provisioner.model import records
from provisioner.model.device_config import TRANSPORT_PID
from provisioner.model.messages import Answer, Delivery, Status
from provisioner.model.request import Package, ProvisionRequest
from provisioner.model.secret import Secret
from provisioner.vault.keyring import KeyRing

_PART = "answer"
_SECRETS = ("password", "private_key")


def seal(ring: KeyRing, request_id: str, answer: Answer) -> str:
    """The box to store in the grant; it opens only for this request."""
    if answer.delivery is None:
        raise ValueError("only an answer with a delivery is sealed")
    body: dict[str, Any] = {f.name: getattr(answer.delivery, f.name) for f in fields(Delivery)}
    for name in _SECRETS:
        body[name] = body[name].reveal() if body[name] is not None else None
    body["packages"] = [records.dump(package) for package in answer.delivery.packages]
    body["renew_after"] = answer.delivery.renew_after.isoformat() if answer.delivery.renew_after else None
    text = orjson.dumps({"server_time": answer.server_time.isoformat(), "delivery": body}, default=_reveal)
    return ring.seal(text, request_id, _PART)


def unseal(ring: KeyRing, request: ProvisionRequest) -> Answer | None:
    """The answer of the request's grant as it was first given; None once it is erased."""
    if request.grant is None or request.grant.sealed is None:
        return None
    whole = orjson.loads(ring.open(request.grant.sealed, request.id, _PART))
    body = whole["delivery"]
    for name in _SECRETS:
        body[name] = Secret(body[name]) if body[name] is not None else None
    body["packages"] = tuple(records.load(Package, package) for package in body["packages"])
    body["renew_after"] = datetime.fromisoformat(body["renew_after"]) if body["renew_after"] else None
    # The password stands in the configuration too; there as here it must not be seen.
    body["configuration"][TRANSPORT_PID]["password"] = body["password"]
    return Answer(
        status=Status.PROVISIONED,
        message_id=request.grant.message_id,
        server_time=datetime.fromisoformat(whole["server_time"]),
        delivery=Delivery(**body),
    )


def _reveal(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(f"{type(value).__name__} is not JSON")
