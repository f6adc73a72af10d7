"""What a CONNECT settles for the rest of the connection, and the CONNACKs that answer it [3.1, 3.2]."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from broker.encoding import encode
from broker.packets import V5, V311, ConnAck, Connect, Version
from broker.properties import NO_PROPERTIES, Properties
from broker.reason_codes import CONNACK_CODES_V5, ProtocolViolation, ReasonCode
from broker.session_events import ConnectReceived, WillAnnounced
from broker.session_settings import Refusal, SessionSettings

_RECEIVE_MAXIMUM_DEFAULT: Final = 65_535
_RETURN_CODES_V311: Final = {
    ReasonCode.UNSUPPORTED_PROTOCOL_VERSION: Refusal.UNSUPPORTED_VERSION.code_v311,
    ReasonCode.CLIENT_IDENTIFIER_NOT_VALID: Refusal.CLIENT_ID_NOT_VALID.code_v311,
}


@dataclass(frozen=True, slots=True)
class Peer:
    """The client's side of the bargain.

    `keep_alive_s` is the one in force, 0 for none. `packet_bytes_max` is None when the client named no maximum.
    `server_keep_alive_s` is None unless the CONNACK has to impose it.
    """

    version: Version
    keep_alive_s: int = 0
    server_keep_alive_s: int | None = None
    receive_maximum: int = _RECEIVE_MAXIMUM_DEFAULT
    packet_bytes_max: int | None = None
    wants_reasons: bool = True


def peer_of(connect: Connect, version: Version, settings: SessionSettings) -> Peer:
    """Reads what the session has to remember of a CONNECT; its secrets are not among that."""
    if version == V311:
        return Peer(version, connect.keep_alive_s)
    given = connect.properties
    imposed: int | None = None
    if not 0 < connect.keep_alive_s <= settings.keep_alive_s_max:
        imposed = settings.keep_alive_s_max
    return Peer(
        version,
        connect.keep_alive_s if imposed is None else imposed,
        imposed,
        _RECEIVE_MAXIMUM_DEFAULT if given.receive_maximum is None else given.receive_maximum,
        given.maximum_packet_size_bytes,
        given.request_problem_information is not False,
    )


def connect_event(connect: Connect, version: Version) -> ConnectReceived:
    """What the owner decides on."""
    will = connect.will
    return ConnectReceived(
        version,
        connect.client_id,
        connect.username,
        connect.password,
        connect.clean_start,
        connect.keep_alive_s,
        None if will is None else WillAnnounced(will.topic, will.qos, will.retain),
    )


def welcome(peer: Peer, settings: SessionSettings) -> bytes:
    """CONNACK of success. Session present is always 0: the gate keeps no session."""
    if peer.version == V311:
        return b"\x20\x02\x00\x00"
    return _welcome_v5(settings, peer.server_keep_alive_s)


@lru_cache(maxsize=8)
def _welcome_v5(settings: SessionSettings, server_keep_alive_s: int | None) -> bytes:
    """What MQTT 5 clients are told about the gate [3.2.2.3]."""
    told = Properties(
        session_expiry_interval_s=0,
        receive_maximum=settings.receive_maximum,
        maximum_qos=1,
        retain_available=False,
        maximum_packet_size_bytes=settings.packet_bytes_max,
        topic_alias_maximum=0,
        wildcard_subscription_available=settings.wildcard_subscription_available,
        subscription_identifiers_available=False,
        shared_subscription_available=False,
        server_keep_alive_s=server_keep_alive_s,
    )
    return encode(ConnAck(properties=told), V5)


def refusal(version: Version, kind: Refusal, reason_string: str | None) -> bytes:
    """CONNACK of a refusal by the owner; pass a reason string only if the client wants one."""
    if version == V311:
        return encode(ConnAck(kind.code_v311), V311)
    properties = NO_PROPERTIES if reason_string is None else Properties(reason_string=reason_string)
    return encode(ConnAck(kind.code_v5, properties=properties), V5)


def violation_answer(version: Version | None, violation: ProtocolViolation) -> bytes:
    """CONNACK for a CONNECT that breaks the rules: MQTT 5 may be told why [3.1.4]. In 3.1.1 only the version and the
    client identifier have a return code; all else is closed without answer [MQTT-3.1.4-1].
    """
    code = violation.reason_code
    if version == V5:
        return encode(ConnAck(code if code in CONNACK_CODES_V5 else ReasonCode.PROTOCOL_ERROR), V5)
    if version == V311 and code in _RETURN_CODES_V311:
        return encode(ConnAck(_RETURN_CODES_V311[code]), V311)
    return b""
