"""EMQX 5.8 or newer: HTTP authentication with the rights in its answer, HTTP authorisation for what asks once more,
and a webhook for ``client.connected`` and ``client.disconnected``."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from provisioner.account_brokers.callback_values import (
    Act,
    Arrival,
    Departure,
    HttpRequest,
    HttpResponse,
    Login,
    Question,
    Settled,
    Topics,
    Verdict,
    json_body,
    json_response,
    text,
)
from provisioner.model.topics import DeviceTopics

# The same client connected again: its former connection ended, and it is there all the same.
_TAKEN_OVER = ("takenover", "takeovered", "discarded")
_ORDERLY = ("normal", "kicked")


@dataclass(frozen=True, slots=True)
class Emqx:
    """renew_s: how long a login holds before EMQX cuts the client, which then logs in again; None: as long as it
    stays. A ``$`` in a client id could become one of EMQX's placeholders in a rule."""

    renew_s: int | None = None
    mqtt5: bool = True
    reports_leaving: bool = True
    refusal_disconnects: bool = False
    client_id_forbidden: str = "$"

    def read(self, request: HttpRequest) -> Question | None:
        body = json_body(request)
        username, client_id = text(body, "username"), text(body, "clientid")
        if request.method != "POST" or username is None or client_id is None:
            return None
        match request.path.rpartition("/")[2]:
            case "authn":
                return Login(username, (text(body, "password") or "").encode(), client_id, text(body, "peerhost"))
            case "authz":
                act, topic = text(body, "action"), text(body, "topic")
                return Topics(username, client_id, Act(act), (topic,)) if act in _ACTS and topic else None
            case "event":
                return _event(body, username, client_id)
        return None

    def answer(self, request: HttpRequest, question: Question, verdict: Verdict, now: datetime) -> HttpResponse:
        if isinstance(question, Arrival | Departure | Settled):
            return HttpResponse(204)  # a report
        result: dict[str, Any] = {"result": "allow" if verdict.allowed else "deny"}
        if isinstance(question, Login) and verdict.allowed and verdict.own is not None:
            result |= {"is_superuser": False, "acl": _rules(verdict.own)}
            if self.renew_s is not None:
                result["expire_at"] = int((now + timedelta(seconds=self.renew_s)).timestamp())
        return json_response(result)


_ACTS = (Act.PUBLISH, Act.SUBSCRIBE)


def _rules(own: DeviceTopics) -> list[dict[str, str]]:
    """What is not allowed is denied at once, so that no other rule of the site widens it."""
    allowed = [f"{prefix}{own.home}/#" for prefix in ("", f"{own.control_prefix}/")]
    rules = [{"permission": "allow", "action": "all", "topic": topic} for topic in allowed]
    # A lone # reaches no topic that begins with $.
    denied = ("#", "$SYS/#", f"{own.control_prefix}/#")
    return rules + [{"permission": "deny", "action": "all", "topic": topic} for topic in denied]


def _event(body: Mapping[str, Any], username: str, client_id: str) -> Question | None:
    peer = text(body, "peername")
    match text(body, "event"):
        case "client.connected":
            host, _, _ = (peer or "").rpartition(":")
            return Arrival(username, client_id, host or None, peer)
        case "client.disconnected":
            reason = text(body, "reason")
            if reason in _TAKEN_OVER:
                return Settled(True)
            return Departure(username, client_id, peer, lost=reason not in _ORDERLY)
    return None
