"""Renders the configuration of a RabbitMQ 3.10 that serves as an account broker and asks us about every device.

No cache of answers is configured: what a device may do ends when we say so. docs/hardening.md says of each setting
what it stops.
"""

import base64
import hashlib
import ipaddress
import json
from collections.abc import Iterator

from broker.callback_plan import (
    ASK_WITHIN_S,
    BACKLOG,
    CIPHERS_12,
    CIPHERS_13,
    CONNECT_WITHIN_S,
    CONNECTIONS_MAX,
    PACKET_BYTES_MAX,
    SESSION_KEPT_S,
    CallbackPlan,
    TlsPaths,
    bracketed,
    headed,
    in_one_line,
)

CONFIGURATION, ADVANCED = "rabbitmq.conf", "advanced.config"
DEFINITIONS, PLUGINS = "definitions.json", "enabled_plugins"
EXCHANGE = "amq.topic"
_QUESTIONS = ("user", "vhost", "resource", "topic")
_SALT_BYTES = 4


def render(plan: CallbackPlan, salt: bytes) -> dict[str, str]:
    """File name -> text. salt: four random bytes for the digest of the operator's password."""
    files = {
        CONFIGURATION: headed(plan, "RabbitMQ", _configuration(plan)),
        DEFINITIONS: _definitions(plan, salt),
        PLUGINS: _plugins(plan),
    }
    return {**files, ADVANCED: _advanced(plan)} if plan.endpoint.is_tls else files


def password_hash(password: str, salt: bytes) -> str:
    """As ``rabbit_password_hashing_sha256`` keeps it."""
    if len(salt) != _SALT_BYTES:
        raise ValueError("salt has four bytes")
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _configuration(plan: CallbackPlan) -> Iterator[str]:
    yield f"load_definitions = {in_one_line(plan.folder / DEFINITIONS)}"
    yield from ("", "# Devices, and nobody by AMQP.")
    yield "listeners.tcp = none"
    yield from _devices(plan)
    yield from ("", "# Who connects is asked of us, each time; operators are RabbitMQ's own users.")
    yield from ("auth_backends.1 = internal", "auth_backends.2 = http", "auth_http.http_method = post")
    yield f"auth_http.request_timeout = {ASK_WITHIN_S * 1000}"
    yield f"auth_http.connection_timeout = {ASK_WITHIN_S * 1000}"
    for each in _QUESTIONS:
        yield f"auth_http.{each}_path = {plan.endpoint.url_with_secret}/{each}"
    yield from ("", "# Limits.")
    yield f"connection_max = {CONNECTIONS_MAX}"
    yield f"max_message_size = {PACKET_BYTES_MAX}"
    yield from ("vm_memory_high_watermark.relative = 0.4", "disk_free_limit.absolute = 1GB")
    yield from _management(plan)
    if plan.nodes:
        yield from ("", "cluster_formation.peer_discovery_backend = classic_config")
        for number, node in enumerate(plan.nodes, 1):
            yield f"cluster_formation.classic_config.nodes.{number} = {in_one_line(node)}"


def _devices(plan: CallbackPlan) -> Iterator[str]:
    used, other = ("ssl", "tcp") if plan.tls is not None else ("tcp", "ssl")
    yield f"mqtt.listeners.{other} = none"
    yield f"mqtt.listeners.{used}.1 = {bracketed(in_one_line(plan.host))}:{plan.port}"
    if plan.tls is not None:
        yield from _tls("ssl_options", plan.tls)
        yield f"ssl_handshake_timeout = {CONNECT_WITHIN_S * 1000}"
    yield from ("mqtt.allow_anonymous = false", "mqtt.ssl_cert_login = false")
    yield f"mqtt.login_timeout = {CONNECT_WITHIN_S * 1000}"
    yield from (f"mqtt.vhost = {in_one_line(plan.vhost)}", f"mqtt.exchange = {EXCHANGE}", "mqtt.prefetch = 10")
    yield f"mqtt.subscription_ttl = {SESSION_KEPT_S * 1000}"
    yield from (f"mqtt.tcp_listen_options.backlog = {BACKLOG}", "mqtt.tcp_listen_options.nodelay = true")
    yield from ("mqtt.tcp_listen_options.send_timeout = 30000", "mqtt.tcp_listen_options.send_timeout_close = true")


def _tls(prefix: str, tls: TlsPaths) -> Iterator[str]:
    yield f"{prefix}.cacertfile = {in_one_line(tls.authority)}"
    yield f"{prefix}.certfile = {in_one_line(tls.certificate)}"
    yield f"{prefix}.keyfile = {in_one_line(tls.key)}"
    yield from (f"{prefix}.verify = verify_none", f"{prefix}.fail_if_no_peer_cert = false")
    yield from (f"{prefix}.versions.1 = tlsv1.3", f"{prefix}.versions.2 = tlsv1.2")
    for number, cipher in enumerate((*CIPHERS_13, *CIPHERS_12), 1):
        yield f"{prefix}.ciphers.{number} = {cipher}"
    yield from (f"{prefix}.honor_cipher_order = true", f"{prefix}.client_renegotiation = false")
    yield f"{prefix}.secure_renegotiate = true"


def _management(plan: CallbackPlan) -> Iterator[str]:
    operator = plan.operator
    if operator is None:
        return
    yield from ("", "# For cutting live connections.")
    kind, host = "ssl" if operator.is_tls else "tcp", "127.0.0.1" if operator.is_near else "0.0.0.0"
    yield from (f"management.{kind}.ip = {host}", f"management.{kind}.port = {operator.port}")
    if operator.is_tls and plan.tls is not None:
        yield from _tls("management.ssl", plan.tls)
    yield "management.login_session_timeout = 60"
    if operator.is_near and operator.username.replace("-", "").replace("_", "").isalnum():
        yield f"loopback_users.{operator.username} = true"


def _definitions(plan: CallbackPlan, salt: bytes) -> str:
    """Loaded at each start, so that no default user is made. The operator may look at connections and cut them."""
    operator = plan.operator
    users = []
    if operator is not None:
        users.append(
            {
                "name": operator.username,
                "password_hash": password_hash(operator.password, salt),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": ["administrator"],
                "limits": {},
            }
        )
    return json.dumps({"users": users, "vhosts": [{"name": plan.vhost}], "permissions": []}, indent=1) + "\n"


def _plugins(plan: CallbackPlan) -> str:
    management = ("rabbitmq_management",) if plan.operator is not None else ()
    return f"[{','.join(('rabbitmq_mqtt', 'rabbitmq_auth_backend_http', *management))}].\n"


def _advanced(plan: CallbackPlan) -> str:
    """Erlang terms; what rabbitmq.conf has no words for: our endpoint has to show a certificate of that authority for
    its name. Raises ValueError for an address: Erlang's HTTP client takes it for a name, and verifies it nowhere."""
    endpoint = plan.endpoint
    assert endpoint.authority is not None
    if _is_address(endpoint.host):
        raise ValueError("callback_url_host has to be a name: RabbitMQ verifies no certificate of an address")
    options = [
        f'{{cacertfile, "{in_one_line(endpoint.authority)}"}}',
        "{verify, verify_peer}",
        "{customize_hostname_check, [{match_fun, public_key:pkix_verify_hostname_match_fun(https)}]}",
        "{versions, ['tlsv1.3', 'tlsv1.2']}",
    ]
    if endpoint.certificate is not None and endpoint.key is not None:
        options.append(f'{{certfile, "{in_one_line(endpoint.certificate)}"}}')
        options.append(f'{{keyfile, "{in_one_line(endpoint.key)}"}}')
    listed = ",\n    ".join(options)
    return f"[\n {{rabbitmq_auth_backend_http, [\n   {{ssl_options, [\n    {listed}\n   ]}}\n ]}}\n].\n"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
