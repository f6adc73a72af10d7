"""MQTT bytes as the two specifications lay them out, and bytes that they forbid."""

import pytest

from broker.decoding import Decoder
from broker.encoding import encode
from broker.fields import read_text, read_varint, write_text, write_varint
from broker.packets import (
    FILTERS_PER_PACKET_MAX,
    V5,
    V311,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    PubRel,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Version,
    Will,
)
from broker.properties import Properties
from broker.reason_codes import ProtocolViolation, ReasonCode

_CONNECT_V311 = Connect("c", True, 10, "u", b"p", Will("w", b"m", 1))
_CONNECT_V5 = Connect("c", True, 10, "u", b"p", Will("w", b"m", 1), Properties(session_expiry_interval_s=10))
_TWO = (Subscription("a/b", 1), Subscription("c/d", 2))

# Built around the values of the specifications' own non-normative examples: flags 0xCE and keep alive 10 in CONNECT,
# topics a/b and c/d, packet identifier 10.
GOLDEN: list[tuple[Version, Packet, str]] = [
    (V311, _CONNECT_V311, "10 19 0004 4d515454 04 ce 000a 0001 63 0001 77 0001 6d 0001 75 0001 70"),
    (V5, _CONNECT_V5, "10 20 0004 4d515454 05 ce 000a 05 11 0000000a 0001 63 00 0001 77 0001 6d 0001 75 0001 70"),
    (V311, ConnAck(5), "20 02 00 05"),
    (V311, ConnAck(0, True), "20 02 01 00"),
    (V5, ConnAck(0x87, False), "20 03 00 87 00"),
    (V311, Publish("a/b", b"", 1, packet_id=10), "32 07 0003 61 2f 62 000a"),
    (V5, Publish("a/b", b"", 1, packet_id=10), "32 08 0003 61 2f 62 000a 00"),
    (V311, Publish("a/b", b"x", 2, True, True, 10), "3d 08 0003 61 2f 62 000a 78"),
    (V311, PubAck(10), "40 02 000a"),
    (V5, PubAck(10, 0x97), "40 03 000a 97"),
    (V5, PubAck(10, 0, Properties(reason_string="r")), "40 08 000a 00 04 1f 0001 72"),
    (V311, PubRel(10), "62 02 000a"),
    (V311, Subscribe(10, _TWO), "82 0e 000a 0003 61 2f 62 01 0003 63 2f 64 02"),
    (V5, Subscribe(10, _TWO), "82 0f 000a 00 0003 61 2f 62 01 0003 63 2f 64 02"),
    (V5, Subscribe(1, (Subscription("a", 1, True, True, 2),)), "82 07 0001 00 0001 61 2d"),
    (V311, SubAck(10, (0, 2, 0x80)), "90 05 000a 00 02 80"),
    (V5, SubAck(10, (1, 0x87)), "90 05 000a 00 01 87"),
    (V311, Unsubscribe(10, ("a/b", "c/d")), "a2 0c 000a 0003 61 2f 62 0003 63 2f 64"),
    (V311, UnsubAck(10), "b0 02 000a"),
    (V5, UnsubAck(10, (0x11,)), "b0 04 000a 00 11"),
    (V311, PingReq(), "c0 00"),
    (V311, PingResp(), "d0 00"),
    (V311, Disconnect(), "e0 00"),
    (V5, Disconnect(0x8E), "e0 01 8e"),
    (
        V5,
        Auth(0x18, Properties(authentication_method="m", authentication_data=b"d")),
        "f0 0a 18 08 15 0001 6d 16 0001 64",
    ),
]

# Both versions unless one is named; the code is the one that MQTT 5 gives the case.
FORBIDDEN: list[tuple[Version, str, int, str]] = [
    (V311, "00 00", 0x81, "type 0 is reserved [2.1.2]"),
    (V311, "f0 00", 0x81, "AUTH does not exist in 3.1.1"),
    (V5, "42 02 0001", 0x81, "flags of PUBACK are zero [2.1.3]"),
    (V311, "80 06 0001 0001 61 00", 0x81, "flags of SUBSCRIBE are 2 [MQTT-3.8.1-1]"),
    (V311, "60 02 0001", 0x81, "flags of PUBREL are 2 [MQTT-3.6.1-1]"),
    (V311, "36 03 0001 61", 0x81, "QoS 3 [MQTT-3.3.1-4]"),
    (V311, "38 03 0001 61", 0x81, "DUP at QoS 0 [MQTT-3.3.1-2]"),
    (V311, "32 05 0001 61 0000", 0x82, "packet identifier 0 [MQTT-2.2.1-3]"),
    (V311, "32 04 0001 61 00", 0x81, "truncated packet identifier"),
    (V311, "30 03 0001 23", 0x81, "wildcard in a topic name [MQTT-3.3.2-2]"),
    (V311, "30 03 0001 2b", 0x81, "wildcard in a topic name [MQTT-3.3.2-2]"),
    (V311, "30 02 0000", 0x81, "empty topic name [MQTT-4.7.3-1]"),
    (V5, "30 03 0000 00", 0x82, "empty topic name without an alias [3.3.2.3.4]"),
    (V311, "30 03 0001 00", 0x81, "NUL in a string [MQTT-1.5.4-2]"),
    (V311, "30 05 0003 eda080", 0x81, "surrogate in a string [MQTT-1.5.4-1]"),
    (V311, "30 04 0002 c080", 0x81, "overlong UTF-8"),
    (V311, "30 03 0002 61", 0x81, "string longer than the packet"),
    (V311, "82 02 0001", 0x82, "SUBSCRIBE without a filter [MQTT-3.8.3-2]"),
    (V311, "82 05 0001 0000 01", 0x81, "empty filter [MQTT-4.7.3-1]"),
    (V311, "82 06 0001 0001 61 03", 0x81, "requested QoS 3"),
    (V311, "82 06 0001 0001 61 04", 0x81, "no local in 3.1.1 [MQTT-3.8.3-4 of 3.1.1]"),
    (V5, "82 07 0001 00 0001 61 40", 0x81, "reserved subscription option [MQTT-3.8.3-5]"),
    (V5, "82 07 0001 00 0001 61 30", 0x82, "retain handling 3 [3.8.3.1]"),
    (V5, "82 0f 0001 00 0009 2473686172652f672f 04", 0x82, "no local on a shared subscription [MQTT-3.8.3-4]"),
    (V311, "82 08 0001 0003 61 23 62 00", 0x81, "# inside a level [MQTT-4.7.1-1]"),
    (V311, "82 08 0001 0003 23 2f 61 00", 0x81, "# before the last level [MQTT-4.7.1-1]"),
    (V311, "82 07 0001 0002 61 2b 00", 0x81, "+ inside a level [MQTT-4.7.1-2]"),
    (V311, "a2 02 0001", 0x82, "UNSUBSCRIBE without a filter [MQTT-3.10.3-2]"),
    (V311, "c0 01 00", 0x81, "PINGREQ with a body"),
    (V311, "e0 01 00", 0x81, "3.1.1 DISCONNECT with a body"),
    (V311, "40 03 0001 00", 0x81, "3.1.1 PUBACK with a reason code"),
    (V5, "40 03 0001 01", 0x82, "reason code of another packet [MQTT-3.4.2-1]"),
    (V5, "40 05 0001 00 00 00", 0x81, "bytes behind the properties"),
    (V5, "30 05 0001 61 8000", 0x81, "property length longer than needed [MQTT-1.5.5-1]"),
    (V5, "40 04 0001 00 7f", 0x81, "properties longer than the packet"),
    (V5, "e0 02 00 80", 0x81, "property length without an end"),
    (V5, "e0 04 00 02 1f 00", 0x81, "truncated property"),
    (V5, "e0 04 00 02 25 01", 0x81, "property of another packet [2.2.2.2]"),
    (V5, "e0 04 00 02 7f 01", 0x81, "unknown property [2.2.2.2]"),
    (V5, "e0 0c 00 0a 11 00000000 11 00000000", 0x82, "the same property twice [2.2.2.2]"),
    (V5, "82 0a 0001 04 0b01 0b02 0001 61 00", 0x82, "subscription identifier twice in SUBSCRIBE [3.8.2.1.2]"),
    (V5, "82 08 0001 02 0b00 0001 61 00", 0x82, "subscription identifier 0 [3.8.2.1.2]"),
    (V5, "30 06 0001 61 02 01 02", 0x82, "flag property that is neither 0 nor 1 [3.3.2.3.2]"),
    (V5, "30 07 0001 61 03 23 0000", 0x94, "topic alias 0 [MQTT-3.3.2-8]"),
    (V5, "30 08 0001 61 04 08 0001 23", 0x82, "wildcard in the response topic [MQTT-3.3.2-14]"),
    (V5, "20 06 00 00 03 21 0000", 0x82, "receive maximum 0 [3.1.2.11.3]"),
    (V5, "20 05 00 00 02 24 02", 0x82, "maximum QoS 2 [3.2.2.3.4]"),
    (V5, "f0 06 18 04 16 0001 64", 0x82, "authentication data without a method [3.1.2.11.10]"),
    (V311, "20 02 02 00", 0x81, "reserved CONNACK flag [MQTT-3.2.2-1]"),
    (V311, "20 02 01 05", 0x82, "refused with a session present [MQTT-3.2.2-6]"),
    (V311, "20 02 00 06", 0x82, "return code 6 [3.2.2.3 of 3.1.1]"),
    (V311, "90 03 0001 03", 0x82, "SUBACK with QoS 3 [MQTT-3.9.3-2 of 3.1.1]"),
    (V5, "b0 03 0001 00", 0x82, "MQTT 5 UNSUBACK without a code [3.11.3]"),
    (V5, "c0 80 00", 0x81, "remaining length longer than needed [MQTT-1.5.5-1]"),
    (V311, "c0 80 80 80 80", 0x81, "remaining length of more than four bytes [2.1.4]"),
]

FORBIDDEN_CONNECTS = [
    ("10 0d 0004 4d515454 04 03 000a 0001 63", 0x81, V311, "reserved flag [MQTT-3.1.2-3]"),
    ("10 10 0004 4d515454 04 42 000a 0001 63 0001 70", 0x81, V311, "password without user [MQTT-3.1.2-22]"),
    ("10 0d 0004 4d515454 04 0a 000a 0001 63", 0x81, V311, "will QoS without a will [MQTT-3.1.2-11]"),
    ("10 0d 0004 4d515454 04 22 000a 0001 63", 0x81, V311, "will retain without a will [MQTT-3.1.2-13]"),
    ("10 13 0004 4d515454 04 1e 000a 0001 63 0001 77 0001 6d", 0x81, V311, "will QoS 3 [MQTT-3.1.2-12]"),
    ("10 13 0004 4d515454 04 06 000a 0001 63 0001 23 0001 6d", 0x81, V311, "wildcard in the will topic"),
    ("10 0e 0004 4d515454 04 02 000a 0001 63 00", 0x81, V311, "bytes behind the payload"),
    ("10 0c 0004 4d515454 04 02 000a 0002 63", 0x81, V311, "truncated client id"),
    ("10 06 0004 4d515454", 0x81, None, "no protocol level"),
    ("10 0c 0004 4d515454 03 02 000a 0000", 0x84, V311, "level 3 with the newer name [MQTT-3.1.2-2]"),
    ("10 0e 0006 4d5149736470 03 02 000a 0000", 0x84, V311, "MQTT 3.1"),
    ("10 0c 0004 4d515454 84 02 000a 0000", 0x84, V311, "bridge bit of some 3.1.1 bridges"),
    ("10 0c 0004 4d515454 06 02 000a 0000", 0x84, V5, "a level of the future"),
    ("10 0c 0004 4d515455 04 02 000a 0000", 0x84, None, "another protocol name [MQTT-3.1.2-1]"),
    ("10 0d 0004 4d515454 05 02 000a 00 0003 63", 0x81, V5, "truncated MQTT 5 client id"),
    ("30 03 0001 61", 0x82, None, "PUBLISH before CONNECT [MQTT-3.1.0-1]"),
    ("47 45 54 20", 0x82, None, "HTTP"),
    ("16 03 01", 0x82, None, "a TLS hello on the plain port"),
]


def _raised(decoder: Decoder, stream: bytes) -> int:
    decoder.feed(stream)
    with pytest.raises(ProtocolViolation) as caught:
        list(decoder.packets())
    return caught.value.reason_code


@pytest.mark.parametrize(("version", "packet", "printed"), GOLDEN, ids=[row[2][:24] for row in GOLDEN])
def test_bytes_are_those_of_the_specification(version: Version, packet: Packet, printed: str) -> None:
    """Each example encodes to the printed bytes and decodes from them."""
    stream = bytes.fromhex(printed)
    assert encode(packet, version) == stream
    decoder = Decoder() if isinstance(packet, Connect) else Decoder(version)
    decoder.feed(stream)
    assert decoder.next_packet() == packet


@pytest.mark.parametrize(("version", "printed", "code", "rule"), FORBIDDEN, ids=[row[3] for row in FORBIDDEN])
def test_forbidden_bytes_are_refused(version: Version, printed: str, code: int, rule: str) -> None:
    """Each breach of a rule has the reason code of MQTT 5 for it."""
    assert _raised(Decoder(version), bytes.fromhex(printed)) == code, rule


@pytest.mark.parametrize(
    ("printed", "code", "answer_in", "rule"), FORBIDDEN_CONNECTS, ids=[row[3] for row in FORBIDDEN_CONNECTS]
)
def test_forbidden_connects_are_refused(printed: str, code: int, answer_in: Version | None, rule: str) -> None:
    """A bad CONNECT has its code, and the decoder says in which version it may be answered."""
    decoder = Decoder()
    assert _raised(decoder, bytes.fromhex(printed)) == code, rule
    assert decoder.version == answer_in


def test_string_and_integer_examples_of_section_1_5() -> None:
    """The printed string A + U+2A6D4 and the limits of table 1-1 read and write as printed."""
    assert write_text("A\U0002a6d4") == bytes.fromhex("0005 41 f0aa9b94")
    assert read_text(bytes.fromhex("0005 41 f0aa9b94"), 0) == ("A\U0002a6d4", 7)
    for value, printed in (
        (0, "00"), (127, "7f"), (128, "8001"), (16_383, "ff7f"), (16_384, "808001"), (2_097_151, "ffff7f"),
        (2_097_152, "80808001"), (268_435_455, "ffffff7f"),
    ):  # fmt: skip
        assert write_varint(value) == bytes.fromhex(printed)
        assert read_varint(bytes.fromhex(printed), 0) == (value, len(printed) // 2)


def test_byte_order_mark_is_kept() -> None:
    """U+FEFF is a character like any other [MQTT-1.5.4-3]: two client ids that differ by it stay two."""
    decoder = Decoder()
    decoder.feed(encode(Connect("\ufeffdev"), V311))
    connect = decoder.next_packet()
    assert isinstance(connect, Connect)
    assert connect.client_id == "\ufeffdev"


def test_longer_remaining_length_is_read_in_311() -> None:
    """Only MQTT 5 demands the shortest form; clients with a fixed-width length field speak 3.1.1."""
    decoder = Decoder(V311)
    decoder.feed(bytes.fromhex("c0 8000"))
    assert decoder.next_packet() == PingReq()


@pytest.mark.parametrize("version", [None, V311, V5])
def test_256_mib_is_refused_from_five_bytes(version: Version | None) -> None:
    """F-36: the fixed header alone is enough to refuse, and nothing stays buffered, then or later."""
    decoder = Decoder(version)
    assert _raised(decoder, bytes.fromhex("10 ffffff7f")) == ReasonCode.PACKET_TOO_LARGE
    assert decoder.buffered_bytes == 0
    assert _raised(decoder, b"x" * 100_000) == ReasonCode.PACKET_TOO_LARGE
    assert decoder.buffered_bytes == 0


def test_packet_limit_counts_the_whole_packet_and_can_be_raised() -> None:
    """F-36: a packet of exactly the limit passes, one byte more does not; the limit may grow after the login."""
    fits, exceeds = encode(Publish("t", b"x" * 4_090), V311), encode(Publish("t", b"x" * 4_091), V311)
    assert len(fits) == 4_096
    decoder = Decoder(V311)
    decoder.feed(fits)
    assert isinstance(decoder.next_packet(), Publish)
    assert _raised(Decoder(V311), exceeds) == ReasonCode.PACKET_TOO_LARGE
    decoder.packet_bytes_max = 4_097
    decoder.feed(exceeds)
    assert isinstance(decoder.next_packet(), Publish)


def test_lists_are_bounded() -> None:
    """One packet cannot blow up to thousands of filters or user properties."""
    filters = b"\x00\x01a\x00" * (FILTERS_PER_PACKET_MAX + 1)
    body = b"\x00\x01" + filters
    subscribe = b"\x82" + write_varint(len(body)) + body
    assert _raised(Decoder(V311), subscribe) == ReasonCode.QUOTA_EXCEEDED
    pairs = bytes.fromhex("26 0000 0000") * 65
    body = b"\x00" + write_varint(len(pairs)) + pairs
    disconnect = b"\xe0" + write_varint(len(body)) + body
    assert _raised(Decoder(V5), disconnect) == ReasonCode.QUOTA_EXCEEDED


UNWRITABLE: list[tuple[Version, Packet]] = [
    (V311, Connect("c", password=b"p")),
    (V311, Connect("c", properties=Properties(receive_maximum=1))),
    (V311, Connect("c" * 65_536)),
    (V311, Connect("c\0")),
    (V311, Connect("\ud800")),
    (V311, ConnAck(0x87)),
    (V311, PubAck(1, 0x87)),
    (V311, Subscribe(1, (Subscription("a", no_local=True),))),
    (V311, SubAck(1, (0x87,))),
    (V311, UnsubAck(1, (0,))),
    (V311, Disconnect(0x8E)),
    (V311, Auth()),
    (V5, ConnAck(5)),
    (V5, PubAck(1, 0x92)),
    (V5, UnsubAck(1)),
    (V5, Publish("t", properties=Properties(receive_maximum=1))),
    (V5, Connect("c", properties=Properties(session_expiry_interval_s=2**32))),
    (V5, Subscribe(1, (Subscription("a"),), Properties(subscription_identifiers=(1, 2)))),
]


@pytest.mark.parametrize(("version", "packet"), UNWRITABLE, ids=range(len(UNWRITABLE)))
def test_what_a_version_cannot_carry_is_not_written(version: Version, packet: Packet) -> None:
    """The encoder refuses what the decoder of the other side would have to refuse."""
    with pytest.raises(ProtocolViolation):
        encode(packet, version)


def test_secrets_stay_out_of_representations_and_errors() -> None:
    """Passwords, payloads and authentication data never appear in a repr, nor the input in a violation."""
    secret = "hunter2-hunter2"
    raw = secret.encode()
    shown = [
        Connect("c", username="u", password=raw, will=Will("w", raw)),
        Publish("t", raw),
        Properties(authentication_method="m", authentication_data=raw, user_properties=((secret, secret),)),
    ]
    assert secret not in repr(shown)
    bad = b"\x00" + bytes((len(raw) + 1,)) + raw + b"\xff"
    decoder = Decoder(V311)
    decoder.feed(b"\x30" + bytes((len(bad),)) + bad)
    with pytest.raises(ProtocolViolation) as caught:
        decoder.next_packet()
    error: BaseException | None = caught.value
    while error is not None:
        assert secret not in repr(error)
        assert secret.encode() not in getattr(error, "object", b"")
        error = error.__context__
