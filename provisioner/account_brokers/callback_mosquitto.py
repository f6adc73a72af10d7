"""mosquitto with an HTTP plugin in the style of mosquitto-go-auth: getuser, superuser, aclcheck; JSON parameters.

The status answers by itself (``response_mode status``); the body serves ``response_mode json``.
"""

from dataclasses import dataclass
from datetime import datetime

from provisioner.account_brokers.callback_values import (
    Act,
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

# MOSQ_ACL_READ, MOSQ_ACL_WRITE, MOSQ_ACL_SUBSCRIBE; read-and-write is asked by nothing that a device does.
_ACTS = {"1": Act.RECEIVE, "2": Act.PUBLISH, "4": Act.SUBSCRIBE}


@dataclass(frozen=True, slots=True)
class MosquittoHttp:
    mqtt5: bool = True
    reports_leaving: bool = False
    refusal_disconnects: bool = False
    client_id_forbidden: str = ""

    def read(self, request: HttpRequest) -> Question | None:
        body = json_body(request)
        username, client_id = text(body, "username"), text(body, "clientid")
        if request.method != "POST" or not username:
            return None
        match request.path.rpartition("/")[2]:
            case "superuser":
                return Settled(False)
            case "getuser" if client_id is not None:
                return Login(username, (text(body, "password") or "").encode(), client_id, arrives=True)
            case "aclcheck" if client_id is not None:
                act, topic = _ACTS.get(str(body.get("acc"))), text(body, "topic")
                return Topics(username, client_id, act, (topic,)) if act and topic else Settled(False)
        return None

    def answer(self, request: HttpRequest, question: Question, verdict: Verdict, now: datetime) -> HttpResponse:
        if verdict.allowed:
            return json_response({"Ok": True, "Error": ""})
        return json_response({"Ok": False, "Error": "refused"}, status=403)
