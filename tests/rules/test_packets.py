"""Properties of the MQTT codec: every packet survives the round trip, no bytes and no chunking upset the decoder."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.decoding import PACKET_BYTES_MAX, Decoder
from broker.encoding import encode
from broker.packets import (
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
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Version,
    Will,
)
from broker.properties import NO_PROPERTIES, Properties
from broker.reason_codes import ProtocolViolation

_VERSIONS: tuple[Version, ...] = (V311, V5)
_LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_TEXT = st.text(_LETTERS, max_size=12)
_NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=12)
_FILTERS = st.one_of(_NAMES, st.sampled_from(["#", "+", "a/+/b", "a/#", "+/+/#", "/", "\ufeffa"]))
_BYTES = st.binary(max_size=40)
_IDS = st.integers(1, 65_535)
_QOS = st.integers(0, 2)
_U16 = st.integers(0, 65_535)
_U32 = st.integers(0, 2**32 - 1)

# Table 2-4 of MQTT 5, written down a second time: which packet may carry what.
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "payload_format_indicator": st.booleans(),
    "message_expiry_interval_s": _U32,
    "content_type": _TEXT,
    "response_topic": _NAMES,
    "correlation_data": _BYTES,
    "session_expiry_interval_s": _U32,
    "assigned_client_id": _TEXT,
    "server_keep_alive_s": _U16,
    "authentication_method": _TEXT,
    "request_problem_information": st.booleans(),
    "will_delay_interval_s": _U32,
    "request_response_information": st.booleans(),
    "response_information": _TEXT,
    "server_reference": _TEXT,
    "reason_string": _TEXT,
    "receive_maximum": _IDS,
    "topic_alias_maximum": _U16,
    "topic_alias": _IDS,
    "maximum_qos": st.integers(0, 1),
    "retain_available": st.booleans(),
    "user_properties": st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=3).map(tuple),
    "maximum_packet_size_bytes": st.integers(1, 2**32 - 1),
    "wildcard_subscription_available": st.booleans(),
    "subscription_identifiers_available": st.booleans(),
    "shared_subscription_available": st.booleans(),
}
_MESSAGE = "payload_format_indicator message_expiry_interval_s content_type response_topic correlation_data"
_REASON = "reason_string user_properties"
_CONNECT_PROPERTIES = (
    "session_expiry_interval_s authentication_method request_problem_information request_response_information "
    "receive_maximum topic_alias_maximum maximum_packet_size_bytes user_properties"
)
_CONNACK_PROPERTIES = (
    "session_expiry_interval_s assigned_client_id server_keep_alive_s authentication_method response_information "
    "server_reference receive_maximum topic_alias_maximum maximum_qos retain_available maximum_packet_size_bytes "
    "wildcard_subscription_available subscription_identifiers_available shared_subscription_available " + _REASON
)
_IDENTIFIERS = st.integers(1, 268_435_455)


def _given(names: str, version: Version, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[Properties]:
    """Any choice of the named properties; none at all in 3.1.1."""
    if version == V311:
        return st.just(NO_PROPERTIES)
    optional = {name: _VALUES[name] for name in names.split()} | more
    return st.fixed_dictionaries({}, optional=optional).map(lambda values: Properties(**values))


def _connects(version: Version) -> st.SearchStrategy[Connect]:
    wills = st.builds(
        Will, _NAMES, _BYTES, _QOS, st.booleans(),
        _given(_MESSAGE + " will_delay_interval_s user_properties", version),
    )  # fmt: skip
    alone = st.none() | _BYTES if version == V5 else st.none()
    secrets: st.SearchStrategy[tuple[str | None, bytes | None]] = st.one_of(
        st.tuples(_TEXT, st.none() | _BYTES), st.tuples(st.none(), alone)
    )
    return secrets.flatmap(
        lambda pair: st.builds(
            Connect, _TEXT, st.booleans(), _U16, st.just(pair[0]), st.just(pair[1]), st.none() | wills,
            _given(_CONNECT_PROPERTIES, version),
        )
    )  # fmt: skip


def _publishes(version: Version) -> st.SearchStrategy[Publish]:
    properties = _given(
        _MESSAGE + " topic_alias user_properties",
        version,
        subscription_identifiers=st.lists(_IDENTIFIERS, min_size=1, max_size=3).map(tuple),
    )
    plain = st.builds(Publish, _NAMES, _BYTES, st.just(0), st.booleans(), properties=properties)
    return plain | st.builds(Publish, _NAMES, _BYTES, st.integers(1, 2), st.booleans(), st.booleans(), _IDS, properties)


def _acknowledgements(version: Version) -> list[st.SearchStrategy[Packet]]:
    if version == V311:
        return [st.builds(kind, _IDS) for kind in (PubAck, PubRec, PubRel, PubComp)]
    reasons = _given(_REASON, version)
    first = st.sampled_from([0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])
    second = st.sampled_from([0, 0x92])
    return [
        st.builds(PubAck, _IDS, first, reasons),
        st.builds(PubRec, _IDS, first, reasons),
        st.builds(PubRel, _IDS, second, reasons),
        st.builds(PubComp, _IDS, second, reasons),
        st.builds(Disconnect, st.sampled_from([0, 4, 0x81, 0x8B, 0x8E, 0x93, 0xA2]),
                  _given(_REASON + " session_expiry_interval_s server_reference", version)),
        st.builds(Auth, st.sampled_from([0, 0x18, 0x19]), _given(_REASON + " authentication_method", version)),
    ]  # fmt: skip


def _subscriptions(version: Version) -> st.SearchStrategy[Subscription]:
    if version == V311:
        return st.builds(Subscription, _FILTERS, _QOS)
    return st.builds(Subscription, _FILTERS, _QOS, st.booleans(), st.booleans(), st.integers(0, 2)).filter(
        lambda one: not one.topic_filter.startswith("$share/")
    )


def _packets(version: Version) -> st.SearchStrategy[Packet]:
    """Any packet but CONNECT, which changes what a decoder takes for the version."""
    codes = st.sampled_from([0, 1, 2, 0x80] + ([0x87, 0x8F, 0x9E, 0xA2] if version == V5 else []))
    connacks = st.sampled_from([0, 0x80, 0x84, 0x87, 0x9F] if version == V5 else [0, 1, 5])
    identifiers = st.builds(lambda one: (one,), _IDENTIFIERS)
    reasons = _given(_REASON, version)
    unsubacks = st.lists(st.sampled_from([0, 0x11, 0x87]), min_size=1, max_size=3).map(tuple)
    return st.one_of(
        st.builds(ConnAck, connacks, st.just(False), _given(_CONNACK_PROPERTIES, version)),
        st.builds(ConnAck, st.just(0), st.booleans()),
        _publishes(version),
        *_acknowledgements(version),
        st.builds(Subscribe, _IDS, st.lists(_subscriptions(version), min_size=1, max_size=4).map(tuple),
                  _given("user_properties", version, subscription_identifiers=identifiers)),
        st.builds(SubAck, _IDS, st.lists(codes, min_size=1, max_size=4).map(tuple), reasons),
        st.builds(Unsubscribe, _IDS, st.lists(_FILTERS, min_size=1, max_size=4).map(tuple),
                  _given("user_properties", version)),
        st.builds(UnsubAck, _IDS, unsubacks if version == V5 else st.just(()), reasons),
        st.sampled_from([PingReq(), PingResp(), Disconnect()]),
    )  # fmt: skip


def _decoded(decoder: Decoder, chunks: list[bytes]) -> tuple[list[Packet], str | None]:
    """All packets of the chunks, and the violation that ended them."""
    packets: list[Packet] = []
    for chunk in chunks:
        decoder.feed(chunk)
        try:
            packets.extend(decoder.packets())
        except ProtocolViolation as violation:
            return packets, str(violation)
    return packets, None


@pytest.mark.parametrize("version", [V311, V5])
@given(data=st.data())
def test_every_connect_survives_the_round_trip(version: Version, data: st.DataObject) -> None:
    """A CONNECT with any will, secrets and properties is read as it was written, and settles the version."""
    connect = data.draw(_connects(version))
    decoder = Decoder(packet_bytes_max=PACKET_BYTES_MAX)
    assert _decoded(decoder, [encode(connect, version)]) == ([connect], None)
    assert decoder.version == version


@pytest.mark.parametrize("version", [V311, V5])
@given(data=st.data())
@settings(max_examples=300)
def test_every_packet_survives_the_round_trip(version: Version, data: st.DataObject) -> None:
    """Both directions, both versions: what is written is what is read."""
    packet = data.draw(_packets(version))
    decoder = Decoder(version, PACKET_BYTES_MAX)
    assert _decoded(decoder, [encode(packet, version)]) == ([packet], None)
    assert decoder.buffered_bytes == 0


@pytest.mark.parametrize("version", [V311, V5])
@given(data=st.data())
def test_chunking_changes_nothing(version: Version, data: st.DataObject) -> None:
    """However the network cuts a stream of packets, the same packets come out."""
    packets = [data.draw(_connects(version)), *data.draw(st.lists(_packets(version), max_size=5))]
    stream = b"".join(encode(packet, version) for packet in packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert _decoded(Decoder(packet_bytes_max=PACKET_BYTES_MAX), chunks) == (packets, None)
    single = [stream[at : at + 1] for at in range(len(stream))]
    assert _decoded(Decoder(packet_bytes_max=PACKET_BYTES_MAX), single) == (packets, None)


@pytest.mark.parametrize("version", [None, V311, V5])
@given(data=st.data())
@settings(max_examples=300)
def test_any_bytes_end_in_packets_or_one_violation(version: Version | None, data: st.DataObject) -> None:
    """F-38: noise, and real packets with bytes changed, raise ProtocolViolation or nothing, in any chunking alike."""
    stream = data.draw(st.binary(max_size=200))
    if data.draw(st.booleans()):
        speaks = data.draw(st.sampled_from(_VERSIONS)) if version is None else version
        packet = data.draw(_connects(speaks) if version is None else _packets(speaks))
        changed = bytearray(encode(packet, speaks))
        for at in data.draw(st.lists(st.integers(0, len(changed) - 1), min_size=1, max_size=3)):
            changed[at] = data.draw(st.integers(0, 255))
        stream = bytes(changed) + stream
    whole = _decoded(Decoder(version), [stream])
    single = _decoded(Decoder(version), [stream[at : at + 1] for at in range(len(stream))])
    assert single == whole


@given(_packets(V5))
def test_what_was_read_can_be_written_again(packet: Packet) -> None:
    """Reading is the inverse of writing on the level of bytes too: one form for one packet."""
    stream = encode(packet, V5)
    decoder = Decoder(V5, PACKET_BYTES_MAX)
    decoder.feed(stream)
    again = decoder.next_packet()
    assert again is not None
    assert encode(again, V5) == stream
