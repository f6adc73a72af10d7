"""Renders the configuration of a VerneMQ 2 that serves as an account broker and asks us about every device.

docs/hardening.md says of each setting what it stops.
"""

from collections.abc import Iterator

from broker.callback_plan import (
    ASK_WITHIN_S,
    CIPHERS_12,
    CONNECT_WITHIN_S,
    CONNECTIONS_MAX,
    PACKET_BYTES_MAX,
    POOL,
    CallbackPlan,
    TlsPaths,
    bracketed,
    headed,
    in_one_line,
)

CONFIGURATION = "vernemq.conf"
# In the order in which VerneMQ registers them. What a device says is not our business.
_HOOKS = ("auth_on_register", "auth_on_publish", "auth_on_subscribe", "on_register")
_WITHOUT_PAYLOAD = "auth_on_publish"


def render(plan: CallbackPlan) -> dict[str, str]:
    """File name -> text."""
    return {CONFIGURATION: headed(plan, "VerneMQ", _configuration(plan))}


def _configuration(plan: CallbackPlan) -> Iterator[str]:
    if plan.cookie is not None:
        yield f"distributed_cookie = {in_one_line(plan.cookie)}"
    yield from ("", "# Devices.")
    yield from _listeners(plan)
    yield from ("", "# Who connects is asked of us, and nobody else says yes.")
    yield "allow_anonymous = off"
    yield from (f"plugins.{each} = off" for each in ("vmq_passwd", "vmq_acl", "vmq_diversity", "vmq_bridge"))
    yield "plugins.vmq_webhooks = on"
    yield from _webhooks(plan)
    yield from ("", "# While the cluster is torn apart nobody knows who took over whom.")
    yield from (f"allow_{each}_during_netsplit = off" for each in ("register", "publish", "subscribe", "unsubscribe"))
    yield from ("allow_multiple_sessions = off", "coordinate_registrations = on")
    yield from ("", "# Limits.")
    yield f"mqtt_connect_timeout = {CONNECT_WITHIN_S * 1000}"
    yield f"max_message_size = {PACKET_BYTES_MAX}"
    yield from ("max_client_id_size = 255", "max_inflight_messages = 20")
    yield from ("max_online_messages = 1000", "max_offline_messages = 1000")
    yield from ("persistent_client_expiration = 1d", "max_last_will_delay = 1h")


def _listeners(plan: CallbackPlan) -> Iterator[str]:
    place = f"{bracketed(in_one_line(plan.host))}:{plan.port}"
    yield f"listener.max_connections = {CONNECTIONS_MAX}"
    if plan.tls is None:
        yield f"listener.tcp.default = {place}"
        yield "listener.tcp.allowed_protocol_versions = 3,4,5"
    else:
        yield f"listener.ssl.default = {place}"
        yield from _tls(plan.tls)
        # VerneMQ opens it whether it is named or not.
        yield "listener.tcp.default = 127.0.0.1:1883"
    yield "listener.http.default = 127.0.0.1:8888"
    yield "listener.vmq.clustering = 127.0.0.1:44053"


def _tls(tls: TlsPaths) -> Iterator[str]:
    yield f"listener.ssl.cafile = {in_one_line(tls.authority)}"
    yield f"listener.ssl.certfile = {in_one_line(tls.certificate)}"
    yield f"listener.ssl.keyfile = {in_one_line(tls.key)}"
    yield from ("listener.ssl.require_certificate = off", "listener.ssl.use_identity_as_username = off")
    yield "listener.ssl.tls_version = tlsv1.2"
    yield f"listener.ssl.ciphers = {':'.join(CIPHERS_12)}"
    yield "listener.ssl.allowed_protocol_versions = 3,4,5"


def _webhooks(plan: CallbackPlan) -> Iterator[str]:
    endpoint = plan.endpoint
    yield f"vmq_webhooks.pool_max_connections = {POOL}"
    if endpoint.authority is not None:
        yield f"vmq_webhooks.cafile = {in_one_line(endpoint.authority)}"
        yield from ("vmq_webhooks.verify_peer = on", "vmq_webhooks.tls_version = tlsv1.2")
    if endpoint.certificate is not None and endpoint.key is not None:
        yield f"vmq_webhooks.certfile = {in_one_line(endpoint.certificate)}"
        yield f"vmq_webhooks.keyfile = {in_one_line(endpoint.key)}"
    for number, hook in enumerate((*_HOOKS, *(f"{each}_m5" for each in _HOOKS)), 1):
        name = f"vmq_webhooks.fleetgate{number}"
        yield f"{name}.hook = {hook}"
        yield f"{name}.endpoint = {endpoint.url_with_secret}/"
        yield f"{name}.response_timeout = {ASK_WITHIN_S * 1000}"
        if hook.startswith(_WITHOUT_PAYLOAD):
            yield f"{name}.no_payload = on"
