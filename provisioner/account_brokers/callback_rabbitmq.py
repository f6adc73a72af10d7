"""RabbitMQ's ``rabbitmq_auth_backend_http``: four paths, form bodies, the words allow and deny.

The topics that its MQTT plugin knows are routing keys: ``/`` comes as ``.`` and ``+`` as ``*``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qsl

from provisioner.account_brokers.callback_values import (
    Act,
    Arrival,
    HttpRequest,
    HttpResponse,
    Login,
    Question,
    Settled,
    Topics,
    Verdict,
)

EXCHANGE = "amq.topic"
_FIELDS_MAX = 40
_TO_MQTT = str.maketrans({".": "/", "*": "+"})
# What the MQTT plugin does with a subscription's queue, and with the exchange that all topics are on.
_ON_QUEUE = ("configure", "read", "write")
_ON_EXCHANGE = ("read", "write")


@dataclass(frozen=True, slots=True)
class RabbitMq:
    """vhost: the only one that devices may use. A client id with a dot would be two topic levels."""

    vhost: str = "/"
    mqtt5: bool = False
    reports_leaving: bool = False
    refusal_disconnects: bool = True
    client_id_forbidden: str = "."

    def read(self, request: HttpRequest) -> Question | None:
        form = _form(request.body)
        username = form.get("username")
        if request.method != "POST" or not username:
            return None
        if form.get("vhost", self.vhost) != self.vhost:
            return Settled(False)
        match request.path.rpartition("/")[2]:
            case "user":
                # Only the MQTT plugin says a client id; an AMQP client is no device.
                client_id, password = form.get("client_id", ""), form.get("password", "")
                return Login(username, password.encode(), client_id)
            case "vhost":
                return Arrival(username, form.get("client_id", ""), form.get("ip"))
            case "resource":
                return Settled(_may_use(form))
            case "topic":
                return self._topic(username, form)
        return None

    def answer(self, request: HttpRequest, question: Question, verdict: Verdict, now: datetime) -> HttpResponse:
        return HttpResponse(200, b"allow" if verdict.allowed else b"deny")

    def _topic(self, username: str, form: Mapping[str, str]) -> Question:
        client_id, key = form.get("variable_map.client_id", ""), form.get("routing_key", "")
        acts = {"write": Act.PUBLISH, "read": Act.SUBSCRIBE}
        act = acts.get(form.get("permission", ""))
        if act is None or form.get("name") != EXCHANGE:
            return Settled(False)
        return Topics(username, client_id, act, (key.translate(_TO_MQTT),))


def _may_use(form: Mapping[str, str]) -> bool:
    """A client's own subscription queues and the topic exchange; nothing may be declared but the former."""
    kind, name, permission = form.get("resource"), form.get("name"), form.get("permission")
    if kind == "exchange":
        return name == EXCHANGE and permission in _ON_EXCHANGE
    own = [f"mqtt-subscription-{form.get('client_id', '')}qos{qos}" for qos in (0, 1)]
    return kind == "queue" and bool(form.get("client_id")) and name in own and permission in _ON_QUEUE


def _form(body: bytes) -> dict[str, str]:
    """Empty when it is no form."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS_MAX, errors="strict")
    except ValueError:
        return {}
    return dict(pairs)
