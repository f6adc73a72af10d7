"""MQTT reason codes, which packet may carry which, and the one exception that bad bytes raise.

MQTT 5 section 2.4 has the list; MQTT 3.1.1 knows return codes in CONNACK (3.2.2.3) and SUBACK (3.9.3) only.
"""

from enum import IntEnum
from typing import Final


class ReasonCode(IntEnum):
    """Every reason code of MQTT 5 [section 2.4]; packets hold them as plain ints."""

    SUCCESS = 0x00
    GRANTED_QOS_1 = 0x01
    GRANTED_QOS_2 = 0x02
    DISCONNECT_WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    CONTINUE_AUTHENTICATION = 0x18
    RE_AUTHENTICATE = 0x19
    UNSPECIFIED_ERROR = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_IDENTIFIER_IN_USE = 0x91
    PACKET_IDENTIFIER_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    MESSAGE_RATE_TOO_HIGH = 0x96
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    RETAIN_NOT_SUPPORTED = 0x9A
    QOS_NOT_SUPPORTED = 0x9B
    USE_ANOTHER_SERVER = 0x9C
    SERVER_MOVED = 0x9D
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E
    CONNECTION_RATE_EXCEEDED = 0x9F
    MAXIMUM_CONNECT_TIME = 0xA0
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2


CONNACK_CODES_V5: Final = frozenset((0x00, *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, *range(0x99, 0x9E), 0x9F))
PUBACK_CODES_V5: Final = frozenset((0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99))
PUBREL_CODES_V5: Final = frozenset((0x00, 0x92))
SUBACK_CODES_V5: Final = frozenset((0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2))
UNSUBACK_CODES_V5: Final = frozenset((0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91))
DISCONNECT_CODES_V5: Final = frozenset(
    (0x00, 0x04, *range(0x80, 0x84), 0x87, 0x89, 0x8B, *range(0x8D, 0x91), *range(0x93, 0xA3))
)
AUTH_CODES_V5: Final = frozenset((0x00, 0x18, 0x19))
CONNACK_CODES_V311: Final = frozenset(range(6))
SUBACK_CODES_V311: Final = frozenset((0, 1, 2, 0x80))


class ProtocolViolation(ValueError):
    """The bytes, or the fields of a packet under construction, break the protocol.

    `reason_code` is the MQTT 5 code that the offender may be told; `reason` names the rule and never quotes the
    input, which may hold a secret.
    """

    def __init__(self, reason_code: ReasonCode, reason: str) -> None:
        super().__init__(f"0x{reason_code:02X} {reason}")
        self.reason_code = reason_code
        self.reason = reason


def malformed(reason: str) -> ProtocolViolation:
    """0x81: the bytes cannot be parsed [MQTT 5 section 1.2]."""
    return ProtocolViolation(ReasonCode.MALFORMED_PACKET, reason)


def protocol_error(reason: str) -> ProtocolViolation:
    """0x82: parsed, but against the protocol or the state of the connection [MQTT 5 section 1.2]."""
    return ProtocolViolation(ReasonCode.PROTOCOL_ERROR, reason)
