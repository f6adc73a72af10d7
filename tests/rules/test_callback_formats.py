"""What each broker asks over HTTP and what it is answered, by the messages that its manual documents."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provisioner.account_brokers.callback_emqx import Emqx
from provisioner.account_brokers.callback_mosquitto import MosquittoHttp
from provisioner.account_brokers.callback_rabbitmq import RabbitMq
from provisioner.account_brokers.callback_values import (
    Act,
    Arrival,
    CallbackFormat,
    Departure,
    HttpRequest,
    HttpResponse,
    Login,
    Question,
    Settled,
    Topics,
    Verdict,
)
from provisioner.account_brokers.callback_vernemq import VerneMq
from provisioner.model.topics import DeviceTopics

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OWN = DeviceTopics("acme", "gw1")
YES, NO = Verdict((True,), OWN), Verdict((False,))
FORMATS: tuple[CallbackFormat, ...] = (RabbitMq(), Emqx(), VerneMq(), MosquittoHttp())


def post(path: str, body: bytes, **headers: str) -> HttpRequest:
    return HttpRequest("POST", path, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def answered(format: CallbackFormat, request: HttpRequest, verdict: Verdict) -> HttpResponse:
    question = format.read(request)
    assert question is not None
    return format.answer(request, question, verdict, NOW)


VHOST = "username=user-1&vhost=%2F&client_id=gw1"
RABBIT: tuple[tuple[str, str, Question | None], ...] = (
    ("user", "username=user-1&password=P%26ss+1&vhost=%2F&client_id=gw1", Login("user-1", b"P&ss 1", "gw1")),
    ("user", "username=user-1&password=Pass", Login("user-1", b"Pass", "")),
    ("vhost", "username=user-1&vhost=%2F&ip=192.0.2.7&tags=&client_id=gw1", Arrival("user-1", "gw1", "192.0.2.7")),
    ("vhost", "username=user-1&vhost=other&ip=192.0.2.7&client_id=gw1", Settled(False)),
    ("resource", f"{VHOST}&resource=queue&name=mqtt-subscription-gw1qos1&permission=configure", Settled(True)),
    ("resource", f"{VHOST}&resource=queue&name=mqtt-subscription-gw2qos1&permission=read", Settled(False)),
    ("resource", f"{VHOST}&resource=queue&name=other&permission=read", Settled(False)),
    ("resource", f"{VHOST}&resource=exchange&name=amq.topic&permission=write", Settled(True)),
    ("resource", f"{VHOST}&resource=exchange&name=amq.topic&permission=configure", Settled(False)),
    ("resource", f"{VHOST}&resource=exchange&name=amq.direct&permission=write", Settled(False)),
    (
        "resource",
        "username=user-1&vhost=%2F&resource=queue&name=mqtt-subscription-qos1&permission=read",
        Settled(False),
    ),
    (
        "topic",
        f"{VHOST}&resource=topic&name=amq.topic&permission=write&routing_key=acme.gw1.data"
        "&variable_map.client_id=gw1&variable_map.username=user-1",
        Topics("user-1", "gw1", Act.PUBLISH, ("acme/gw1/data",)),
    ),
    (
        "topic",
        f"{VHOST}&resource=topic&name=amq.topic&permission=read&routing_key=acme.*.%23&variable_map.client_id=gw1",
        Topics("user-1", "gw1", Act.SUBSCRIBE, ("acme/+/#",)),
    ),
    ("topic", f"{VHOST}&name=amq.headers&permission=read&routing_key=acme.gw1", Settled(False)),
    ("topic", f"{VHOST}&name=amq.topic&permission=configure&routing_key=acme.gw1", Settled(False)),
    ("elsewhere", VHOST, None),
    ("user", "", None),
)


@pytest.mark.parametrize(("path", "body", "question"), RABBIT)
def test_rabbitmq_asks(path: str, body: str, question: Question | None) -> None:
    """Four paths with forms; an AMQP client, which says no client id, is nobody's device."""
    assert RabbitMq().read(post(f"/rabbit/{path}", body.encode())) == question


def test_rabbitmq_is_answered() -> None:
    """One word, with status 200."""
    request = post("/user", b"username=user-1&password=x&client_id=gw1")
    assert [answered(RabbitMq(), request, v).body for v in (YES, NO)] == [b"allow", b"deny"]
    assert answered(RabbitMq(), request, NO).status == 200


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


PEER = "192.0.2.7:55120"
WHO = {"username": "user-1", "clientid": "gw1"}
EMQX: tuple[tuple[str, bytes, Question | None], ...] = (
    (
        "authn",
        body(**WHO, password="Pass", peerhost="192.0.2.7"),
        Login("user-1", b"Pass", "gw1", "192.0.2.7"),
    ),
    ("authn", body(**WHO), Login("user-1", b"", "gw1")),
    (
        "authz",
        body(**WHO, topic="acme/gw1/#", action="subscribe"),
        Topics("user-1", "gw1", Act.SUBSCRIBE, ("acme/gw1/#",)),
    ),
    ("authz", body(**WHO, topic="a", action="publish"), Topics("user-1", "gw1", Act.PUBLISH, ("a",))),
    ("authz", body(**WHO, topic="a", action="all"), None),
    ("event", body(**WHO, event="client.connected", peername=PEER), Arrival("user-1", "gw1", "192.0.2.7", PEER)),
    ("event", body(**WHO, event="client.disconnected", reason="normal"), Departure("user-1", "gw1")),
    (
        "event",
        body(**WHO, event="client.disconnected", reason="kicked", peername=PEER),
        Departure("user-1", "gw1", PEER),
    ),
    ("event", body(**WHO, event="client.disconnected", reason="tcp_closed"), Departure("user-1", "gw1", lost=True)),
    ("event", body(**WHO, event="client.disconnected", reason="takenover"), Settled(True)),
    ("event", body(**WHO, event="message.publish"), None),
    ("authn", body(username=["user-1"], clientid="gw1"), None),
    ("authn", b'{"username": "\\ud800", "clientid": "gw1"}', None),
    ("authn", b"[" * 5000, None),
)


@pytest.mark.parametrize(("path", "sent", "question"), EMQX)
def test_emqx_asks(path: str, sent: bytes, question: Question | None) -> None:
    """JSON by our templates; a connection that was taken over is no departure."""
    assert Emqx().read(post(f"/{path}", sent)) == question


def test_emqx_is_given_the_rights_with_the_login() -> None:
    """EC-31: own topics are allowed, all others denied, so that no rule of the site widens them; an end if asked."""
    request = post("/authn", body(**WHO, password="Pass"))
    whole = json.loads(answered(Emqx(renew_s=60), request, YES).body)
    assert (whole["result"], whole["is_superuser"]) == ("allow", False)
    assert whole["expire_at"] == int(NOW.timestamp()) + 60
    rules = [(rule["permission"], rule["action"], rule["topic"]) for rule in whole["acl"]]
    assert rules == [
        ("allow", "all", "acme/gw1/#"),
        ("allow", "all", "$EDC/acme/gw1/#"),
        ("deny", "all", "#"),
        ("deny", "all", "$SYS/#"),
        ("deny", "all", "$EDC/#"),
    ]
    assert "expire_at" not in json.loads(answered(Emqx(), request, YES).body)


def test_emqx_is_told_no_in_words() -> None:
    """EMQX takes any status but 200 and 204 for "ask the next one", so that a refusal must be a 200."""
    for path, fields in (("authn", {}), ("authz", {"topic": "a", "action": "publish"})):
        response = answered(Emqx(), post(f"/{path}", body(**WHO, **fields)), NO)
        assert (response.status, json.loads(response.body)) == (200, {"result": "deny"})
    report = post("/event", body(**WHO, event="client.connected"))
    assert answered(Emqx(), report, YES) == HttpResponse(204)


VERNE = {"username": "user-1", "client_id": "gw1", "mountpoint": ""}
FILTERS = [{"topic": "acme/gw1/#", "qos": 1}, {"topic": "#", "qos": 2}]
VERNEMQ: tuple[tuple[str, bytes, Question | None], ...] = (
    (
        "auth_on_register",
        body(**VERNE, password="Pass", peer_addr="192.0.2.7", peer_port=8888, clean_session=False),
        Login("user-1", b"Pass", "gw1", "192.0.2.7"),
    ),
    (
        "auth_on_register_m5",
        body(**VERNE, password="Pass", peer_addr="192.0.2.7", peer_port=8888, clean_start=True, properties={}),
        Login("user-1", b"Pass", "gw1", "192.0.2.7"),
    ),
    (
        "auth_on_publish",
        body(**VERNE, qos=1, topic="a/b", payload="aGVsbG8=", retain=False),
        Topics("user-1", "gw1", Act.PUBLISH, ("a/b",)),
    ),
    ("auth_on_subscribe", body(**VERNE, topics=FILTERS), Topics("user-1", "gw1", Act.SUBSCRIBE, ["acme/gw1/#", "#"])),
    ("auth_on_subscribe", body(**VERNE, topics=[{"qos": 1}]), None),
    ("auth_on_subscribe", body(**VERNE, topics="#"), None),
    ("on_register", body(**VERNE, peer_addr="192.0.2.7", peer_port=8888), Arrival("user-1", "gw1", "192.0.2.7")),
    ("auth_on_register", body(**(VERNE | {"mountpoint": "tenant"}), password="Pass"), None),
    ("on_client_gone", body(client_id="gw1", mountpoint=""), None),
    ("", body(**VERNE), None),
)


@pytest.mark.parametrize(("hook", "sent", "question"), VERNEMQ)
def test_vernemq_asks(hook: str, sent: bytes, question: Question | None) -> None:
    """The hook is in a header; those of MQTT 5 are asked alike."""
    assert VerneMq().read(post("/", sent, vernemq_hook=hook)) == question


@pytest.mark.parametrize("suffix", ["", "_m5"])
def test_vernemq_is_answered(suffix: str) -> None:
    """Granted topics may be kept for a while, logins and refusals never; always status 200."""
    login = post("/", body(**VERNE, password="Pass"), vernemq_hook=f"auth_on_register{suffix}")
    publish = post("/", body(**VERNE, topic="a"), vernemq_hook=f"auth_on_publish{suffix}")
    seen = [
        (
            answered(VerneMq(), request, verdict).headers["cache-control"],
            json.loads(answered(VerneMq(), request, verdict).body),
        )
        for request in (login, publish)
        for verdict in (YES, NO)
    ]
    refused = {"result": {"error": "not_allowed"}}
    assert seen == [
        ("no-store", {"result": "ok"}),
        ("no-store", refused),
        ("max-age=60", {"result": "ok"}),
        ("no-store", refused),
    ]
    assert answered(VerneMq(cache_s=0), publish, YES).headers == {"cache-control": "no-store"}
    assert answered(VerneMq(), publish, NO).status == 200


@pytest.mark.parametrize(("suffix", "refusing"), [("", 128), ("_m5", 135)])
def test_vernemq_is_told_which_filter_is_refused(suffix: str, refusing: int) -> None:
    """EC-31: of two filters the foreign one comes back with the QoS that refuses it, 128 or in MQTT 5 135."""
    request = post("/", body(**VERNE, topics=FILTERS), vernemq_hook=f"auth_on_subscribe{suffix}")
    whole = json.loads(answered(VerneMq(), request, Verdict((True, False), OWN)).body)
    topics = whole["modifiers"]["topics"] if suffix else whole["topics"]
    assert whole["result"] == "ok"
    assert topics == [{"topic": "acme/gw1/#", "qos": 1}, {"topic": "#", "qos": refusing}]


MOSQUITTO: tuple[tuple[str, bytes, Question | None], ...] = (
    ("getuser", body(**WHO, password="Pass"), Login("user-1", b"Pass", "gw1", arrives=True)),
    ("superuser", body(username="user-1"), Settled(False)),
    ("aclcheck", body(**WHO, topic="a", acc=1), Topics("user-1", "gw1", Act.RECEIVE, ("a",))),
    ("aclcheck", body(**WHO, topic="a", acc=2), Topics("user-1", "gw1", Act.PUBLISH, ("a",))),
    ("aclcheck", body(**WHO, topic="a/#", acc=4), Topics("user-1", "gw1", Act.SUBSCRIBE, ("a/#",))),
    ("aclcheck", body(**WHO, topic="a", acc=3), Settled(False)),
    ("aclcheck", body(**WHO, topic="a", acc=[1]), Settled(False)),
    ("aclcheck", body(username="user-1", topic="a", acc=1), None),
    ("getuser", body(username="", clientid="gw1"), None),
)


@pytest.mark.parametrize(("path", "sent", "question"), MOSQUITTO)
def test_mosquitto_asks(path: str, sent: bytes, question: Question | None) -> None:
    """getuser, superuser, aclcheck; nobody is a super user."""
    assert MosquittoHttp().read(post(f"/{path}", sent)) == question


def test_mosquitto_is_answered_by_status_and_body() -> None:
    """Both ways that the plugin can be set to read the answer say the same."""
    request = post("/getuser", body(**WHO, password="Pass"))
    seen = [
        (answered(MosquittoHttp(), request, v).status, answered(MosquittoHttp(), request, v).body) for v in (YES, NO)
    ]
    assert [(status, json.loads(sent)["Ok"]) for status, sent in seen] == [(200, True), (403, False)]


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: type(format).__name__)
def test_only_a_post_is_a_question(format: CallbackFormat) -> None:
    """What a GET would leave in logs is not taken."""
    for path in ("user", "authn", "getuser"):
        sent = b"username=user-1&client_id=gw1" if path == "user" else body(**(WHO | VERNE))
        request = HttpRequest("GET", f"/{path}", {"vernemq-hook": "auth_on_register"}, sent)
        assert format.read(request) is None


PATHS = ("user", "vhost", "resource", "topic", "authn", "authz", "event", "getuser", "superuser", "aclcheck")
HOOKS = ("auth_on_register", "auth_on_publish_m5", "auth_on_subscribe", "on_register", "x")
VALUES = st.one_of(st.none(), st.text(max_size=8), st.integers(), st.lists(st.text(max_size=3), max_size=2))


@example(path="x", hook="auth_on_register", sent=b'{"username": "", "client_id": "", "mountpoint": ""}')
@given(
    path=st.sampled_from(PATHS),
    hook=st.sampled_from(HOOKS),
    sent=st.one_of(
        st.binary(max_size=200),
        st.dictionaries(
            st.sampled_from(("username", "clientid", "client_id", "mountpoint", "topic", "topics", "acc", "action")),
            VALUES,
        ).map(lambda fields: json.dumps(fields).encode()),
    ),
)
def test_no_body_upsets_a_format(path: str, hook: str, sent: bytes) -> None:
    """F-14: whatever comes is a question or none, and a refusal of it can be said."""
    for format in FORMATS:
        request = post(f"/{path}", sent, vernemq_hook=hook)
        question = format.read(request)
        if question is not None:
            count = len(question.topics) if isinstance(question, Topics) else 1
            response = format.answer(request, question, Verdict((False,) * count), NOW)
            assert not response.body.startswith(b"allow")  # RabbitMQ's yes; VerneMQ's no is "not_allowed"
            assert b'"allow"' not in response.body
            assert b'"ok"' not in response.body


def test_a_password_is_in_no_repr() -> None:
    """Secrets stay out of what a log could show."""
    request = post("/user", b"username=user-1&password=Secret-word-1&client_id=gw1")
    assert "Secret-word-1" not in repr(request) + repr(RabbitMq().read(request))
    assert base64.b64encode(b"Secret-word-1").decode() not in repr(request)
