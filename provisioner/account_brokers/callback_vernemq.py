"""VerneMQ's webhooks: the hook is named by a header, ``_m5`` for clients of MQTT 5; POST, JSON, always 200."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from provisioner.account_brokers.callback_values import (
    Act,
    Arrival,
    HttpRequest,
    HttpResponse,
    Login,
    Question,
    Topics,
    Verdict,
    json_body,
    json_response,
    text,
)

_REFUSED = 128
_REFUSED_M5 = 135


@dataclass(frozen=True, slots=True)
class VerneMq:
    """cache_s: how long VerneMQ may keep a granted publish or subscribe; a login is never kept."""

    cache_s: int = 60
    mqtt5: bool = True
    reports_leaving: bool = False
    refusal_disconnects: bool = False
    client_id_forbidden: str = ""

    def read(self, request: HttpRequest) -> Question | None:
        body = json_body(request)
        username, client_id = text(body, "username"), text(body, "client_id")
        hook = _hook(request)
        if request.method != "POST" or client_id is None or username is None or text(body, "mountpoint") != "":
            return None
        return self._of_user(hook, body, username, client_id)

    def _of_user(self, hook: str, body: Mapping[str, Any], username: str, client_id: str) -> Question | None:
        match hook:
            case "auth_on_register":
                return Login(username, (text(body, "password") or "").encode(), client_id, text(body, "peer_addr"))
            case "on_register":
                return Arrival(username, client_id, text(body, "peer_addr"))
            case "auth_on_publish":
                topic = text(body, "topic")
                return Topics(username, client_id, Act.PUBLISH, (topic,)) if topic else None
            case "auth_on_subscribe":
                filters = [each["topic"] for each in _asked(body)]
                return Topics(username, client_id, Act.SUBSCRIBE, filters) if filters else None
        return None

    def answer(self, request: HttpRequest, question: Question, verdict: Verdict, now: datetime) -> HttpResponse:
        if isinstance(question, Arrival):
            return json_response({})
        if not any(verdict.granted):
            return json_response({"result": {"error": "not_allowed"}}, cache_control="no-store")
        result: dict[str, Any] = {"result": "ok"}
        if not verdict.allowed:
            result |= _partly(request, verdict)
        fresh = isinstance(question, Login) or self.cache_s == 0
        return json_response(result, cache_control="no-store" if fresh else f"max-age={self.cache_s}")


def _hook(request: HttpRequest) -> str:
    return request.headers.get("vernemq-hook", "").removesuffix("_m5")


def _asked(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of ``topics``; empty when one of them is none."""
    topics = body.get("topics")
    whole = isinstance(topics, list) and all(isinstance(each, dict) and text(each, "topic") for each in topics)
    return list(topics) if whole and isinstance(topics, list) else []


def _partly(request: HttpRequest, verdict: Verdict) -> dict[str, Any]:
    """The asked filters with the QoS that refuses in place of the asked one."""
    is_m5 = request.headers.get("vernemq-hook", "").endswith("_m5")
    refused = _REFUSED_M5 if is_m5 else _REFUSED
    pairs = zip(_asked(json_body(request)), verdict.granted, strict=True)
    topics = [{"topic": each["topic"], "qos": each.get("qos", 0) if granted else refused} for each, granted in pairs]
    return {"modifiers": {"topics": topics}} if is_m5 else {"topics": topics}
