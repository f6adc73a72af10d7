"""Renders the settings of an EMQX 5.8 that serves as an account broker and asks us about every device.

They are appended to its ``emqx.conf``, where the last word counts, and where it stands above what was clicked in the
dashboard. docs/hardening.md says of each setting what it stops.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from broker.callback_plan import (
    ASK_WITHIN_S,
    BACKLOG,
    CIPHERS_12,
    CIPHERS_13,
    CONNECT_WITHIN_S,
    CONNECTIONS_MAX,
    PACKET_BYTES_MAX,
    POOL,
    SESSION_KEPT_S,
    CallbackPlan,
    TlsPaths,
    bracketed,
    headed,
    in_one_line,
)

CONFIGURATION, API_KEYS = "fleetgate-emqx.conf", "api-keys"
_EVENTS = (
    'SELECT event, clientid, username, peername, reason FROM "$events/client_connected", "$events/client_disconnected"'
)
_LOGIN = ("username", "password", "clientid", "peerhost")
_RIGHT = ("username", "clientid", "topic", "action")


class _Word(str):
    """A value that stands without quotes: an enum's, a duration's, a size's."""

    __slots__ = ()


def render(plan: CallbackPlan) -> dict[str, str]:
    """File name -> text."""
    settings = {
        **({"node": {"cookie": plan.cookie}} if plan.cookie is not None else {}),
        "listeners": _listeners(plan),
        **_LIMITS,
        "authentication": [_authentication(plan)],
        "authorization": _authorization(plan),
        **_reports(plan),
        **_management(plan),
    }
    lines = (line for name, value in settings.items() for line in _setting(name, value, ""))
    files = {CONFIGURATION: headed(plan, "EMQX", lines)}
    if plan.operator is not None:
        files[API_KEYS] = f"{plan.operator.username}:{plan.operator.password}\n"
    return files


def _listeners(plan: CallbackPlan) -> dict[str, object]:
    """The four that EMQX opens by itself; one of them is for devices."""
    used, kind = ("ssl", plan.tls) if plan.tls is not None else ("tcp", None)
    listener: dict[str, object] = {
        "enable": True,
        "bind": f"{bracketed(in_one_line(plan.host))}:{plan.port}",
        "max_connections": CONNECTIONS_MAX,
        "max_conn_rate": "500/s",
        "enable_authn": _Word("quick_deny_anonymous"),
        "tcp_options": {
            "backlog": BACKLOG,
            "nodelay": True,
            "send_timeout": _Word("15s"),
            "send_timeout_close": True,
        },
        **({"ssl_options": _served(kind)} if kind is not None else {}),
    }
    closed = {each: {"default": {"enable": False}} for each in ("tcp", "ssl", "ws", "wss") if each != used}
    return {used: {"default": listener}, **closed}


def _served(tls: TlsPaths) -> dict[str, object]:
    return {
        **_paths(tls.authority, tls.certificate, tls.key),
        "verify": _Word("verify_none"),
        "versions": [_Word("tlsv1.3"), _Word("tlsv1.2")],
        "ciphers": [*CIPHERS_13, *CIPHERS_12],
        "honor_cipher_order": True,
        "client_renegotiation": False,
        "secure_renegotiate": True,
        "handshake_timeout": _Word(f"{CONNECT_WITHIN_S}s"),
    }


_LIMITS: Mapping[str, object] = {
    "mqtt": {
        "idle_timeout": _Word(f"{CONNECT_WITHIN_S}s"),
        "max_packet_size": PACKET_BYTES_MAX,
        "max_clientid_len": 255,
        "max_topic_levels": 32,
        "max_subscriptions": 32,
        "max_inflight": 32,
        "max_awaiting_rel": 100,
        "max_mqueue_len": 1_000,
        "mqueue_store_qos0": False,
        "session_expiry_interval": _Word(f"{SESSION_KEPT_S // 3600}h"),
        "strict_mode": True,
    },
    "force_shutdown": {"enable": True, "max_mailbox_size": 1_000, "max_heap_size": _Word("32MB")},
    # Whoever knows a client id may make it flap: a ban that is short, for what no device does.
    "flapping_detect": {
        "enable": True,
        "max_count": 60,
        "window_time": _Word("1m"),
        "ban_time": _Word("1m"),
    },
}


def _authentication(plan: CallbackPlan) -> dict[str, object]:
    return {
        "mechanism": _Word("password_based"),
        "backend": _Word("http"),
        "enable": True,
        **_asked(plan, "/authn", _LOGIN),
    }


def _authorization(plan: CallbackPlan) -> dict[str, object]:
    return {
        "no_match": _Word("deny"),
        "deny_action": _Word("ignore"),
        "cache": {"enable": False},
        "sources": [{"type": _Word("http"), "enable": True, **_asked(plan, "/authz", _RIGHT)}],
    }


def _asked(plan: CallbackPlan, path: str, told: Sequence[str]) -> dict[str, object]:
    return {
        "method": _Word("post"),
        "url": f"{plan.endpoint.url}{path}",
        "headers": _headers(plan),
        "body": {name: f"${{{name}}}" for name in told},
        "request_timeout": _Word(f"{ASK_WITHIN_S}s"),
        **_connection(plan),
    }


def _reports(plan: CallbackPlan) -> dict[str, object]:
    """Who connected and who left, told without being asked."""
    return {
        "connectors": {
            "http": {"fleetgate": {"enable": True, "url": plan.endpoint.url, **_connection(plan)}},
        },
        "actions": {
            "http": {
                "fleetgate": {
                    "enable": True,
                    "connector": "fleetgate",
                    "parameters": {
                        "path": "/event",
                        "method": _Word("post"),
                        "headers": _headers(plan),
                        "body": "${.}",
                    },
                }
            }
        },
        "rule_engine": {"rules": {"fleetgate": {"enable": True, "sql": _EVENTS, "actions": ["http:fleetgate"]}}},
    }


def _headers(plan: CallbackPlan) -> dict[str, object]:
    secret = plan.endpoint.secret
    return {
        "content-type": "application/json",
        **({"authorization": f"Bearer {secret}"} if secret is not None else {}),
    }


def _connection(plan: CallbackPlan) -> dict[str, object]:
    endpoint = plan.endpoint
    opened: dict[str, object] = {
        "connect_timeout": _Word(f"{ASK_WITHIN_S}s"),
        "pool_size": POOL,
        "enable_pipelining": 1,
    }
    if endpoint.authority is None:
        return opened
    shown = _paths(endpoint.authority, endpoint.certificate, endpoint.key)
    return {**opened, "ssl": {"enable": True, **shown, "verify": _Word("verify_peer")}}


def _management(plan: CallbackPlan) -> dict[str, object]:
    """The dashboard's interface is that of the operator; without one it is reached from the host alone."""
    operator = plan.operator
    listeners: dict[str, object] = {"http": {"bind": "127.0.0.1:18083"}}
    if operator is not None:
        bind = f"{'127.0.0.1' if operator.is_near else '0.0.0.0'}:{operator.port}"
        listeners = {"http": {"bind": bind}}
        if operator.is_tls and plan.tls is not None:
            shown = {"bind": bind, "ssl_options": _paths(plan.tls.authority, plan.tls.certificate, plan.tls.key)}
            listeners = {"http": {"bind": 0}, "https": shown}
    console: dict[str, object] = {"listeners": listeners, "cors": False, "token_expired_time": _Word("15m")}
    if plan.console_password is not None:
        console["default_password"] = in_one_line(plan.console_password)
    keys = {"api_key": {"bootstrap_file": in_one_line(plan.folder / API_KEYS)}} if operator is not None else {}
    return {"dashboard": console, **keys}


def _paths(authority: Path, certificate: Path | None, key: Path | None) -> dict[str, object]:
    named = {"cacertfile": authority, "certfile": certificate, "keyfile": key}
    return {name: in_one_line(path) for name, path in named.items() if path is not None}


def _setting(name: str, value: object, indent: str) -> Iterator[str]:
    """HOCON, one setting on a line."""
    named = name if name.replace("_", "").isalnum() else json.dumps(name)
    if isinstance(value, Mapping):
        yield f"{indent}{named} {{"
        for inner, each in value.items():
            yield from _setting(inner, each, indent + "  ")
        yield f"{indent}}}"
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        yield f"{indent}{named} = ["
        for each in value:
            yield f"{indent}  {{"
            for inner, part in each.items():
                yield from _setting(inner, part, indent + "    ")
            yield f"{indent}  }}"
        yield f"{indent}]"
    else:
        yield f"{indent}{named} = {_text(value)}"


def _text(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return str(value) if isinstance(value, _Word) else json.dumps(value)
