"""The PROXY header, versions 1 and 2: what is read, what is waited for, what is broken (D12)."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.proxies import Preface, Proxies
from broker.proxy_header import (
    V1_BYTES_MAX,
    V2_BYTES_MAX,
    V2_SIGNATURE,
    ProxyHeader,
    ProxyHeaderBroken,
    read_proxy_header,
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
PORTS = st.integers(0, 65_535)
PAIRS = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)), st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6))
)


def v1(source: Address, target: Address, source_port: int, target_port: int) -> bytes:
    family = "TCP4" if source.version == 4 else "TCP6"
    return f"PROXY {family} {source} {target} {source_port} {target_port}\r\n".encode()


def v2(source: Address, target: Address, source_port: int, target_port: int, extensions: bytes = b"") -> bytes:
    ports = source_port.to_bytes(2, "big") + target_port.to_bytes(2, "big")
    return framed(0x21, 0x11 if source.version == 4 else 0x21, source.packed + target.packed + ports + extensions)


def framed(command: int, family: int, rest: bytes) -> bytes:
    return V2_SIGNATURE + bytes((command, family)) + len(rest).to_bytes(2, "big") + rest


def reason(data: bytes) -> str | None:
    """Why it is broken; None while it may still become a header."""
    try:
        assert read_proxy_header(data) is None
    except ProxyHeaderBroken as broken:
        return broken.reason
    return None


@given(pair=PAIRS, source_port=PORTS, target_port=PORTS, rest=st.binary(max_size=50), extensions=st.binary(max_size=90))
def test_d12_a_header_names_its_source_in_any_cut(
    pair: tuple[Address, Address], source_port: int, target_port: int, rest: bytes, extensions: bytes
) -> None:
    """Both versions give back the address that they were made of; each shorter piece of one is waited for, and what
    follows is not touched."""
    for header in (v1(*pair, source_port, target_port), v2(*pair, source_port, target_port, extensions)):
        assert read_proxy_header(header + rest) == ProxyHeader(str(pair[0]), len(header))
        for cut in range(len(header)):
            assert read_proxy_header(header[:cut]) is None
        preface, found = Preface(Proxies(["::/0"])), None
        for byte in header + rest[:1]:
            assert found is None or bytes((byte,)) == rest[:1]
            found = found or preface.feed(bytes((byte,)))
        assert found is not None
        assert found[0].source == str(pair[0])


@given(data=st.binary(max_size=1_200))
def test_f_38_any_bytes_are_a_header_or_broken_or_few(data: bytes) -> None:
    """Nothing else than the three outcomes happens, and nobody can make us wait beyond the longest header."""
    for given_bytes in (data, V2_SIGNATURE + data, b"PROXY " + data, b"PROXY TCP4 " + data):
        try:
            header = read_proxy_header(given_bytes)
        except ProxyHeaderBroken as broken:
            assert broken.reason in ("proxy_header_missing", "proxy_header_malformed", "proxy_header_too_long")
            continue
        assert header is not None or len(given_bytes) < V2_BYTES_MAX
        assert header is None or header.size <= len(given_bytes)


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ff:: ff:: 1 2\r\n",
        framed(0x20, 0x00, b""),
        framed(0x20, 0x11, bytes(12)),
        framed(0x21, 0x00, b"whatever"),
    ],
)
def test_d12_a_proxy_may_speak_for_itself(data: bytes) -> None:
    """Health checks and unknown sources name nobody: the connection is the proxy's own."""
    assert read_proxy_header(data + b"x") == ProxyHeader(None, len(data))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x10\x20\x00\x04MQTT", "proxy_header_missing"),
        (b"\x16\x03\x01", "proxy_header_missing"),
        (b"GET / HTTP/1.1\r\n", "proxy_header_missing"),
        (b"proxy TCP4 ", "proxy_header_missing"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "proxy_header_malformed"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", "proxy_header_malformed"),
        (b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n", "proxy_header_malformed"),
        (b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", "proxy_header_malformed"),
        (b"PROXY TCP4 192.0.2.1 2001:db8::1 1 2\r\n", "proxy_header_malformed"),
        (b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n", "proxy_header_malformed"),
        (b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", "proxy_header_malformed"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", "proxy_header_malformed"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n", "proxy_header_malformed"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", "proxy_header_malformed"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 \u0661 2\r\n".encode(), "proxy_header_malformed"),
        (b"PROXY \r\n", "proxy_header_malformed"),
        (b"PROXY " + b"x" * (V1_BYTES_MAX - 6), "proxy_header_too_long"),
        (framed(0x11, 0x11, bytes(12)), "proxy_header_malformed"),
        (framed(0x22, 0x11, bytes(12)), "proxy_header_malformed"),
        (framed(0x21, 0x12, bytes(12)), "proxy_header_malformed"),
        (framed(0x21, 0x31, bytes(216)), "proxy_header_malformed"),
        (framed(0x21, 0x11, bytes(11)), "proxy_header_malformed"),
        (framed(0x21, 0x21, bytes(35)), "proxy_header_malformed"),
        (framed(0x21, 0x11, bytes(V2_BYTES_MAX - 15))[:16], "proxy_header_too_long"),
    ],
)
def test_f_38_a_broken_header_is_named(data: bytes, why: str) -> None:
    """Each rule that a header can break has its reason, as soon as that is certain."""
    assert reason(data) == why


def test_f_38_headers_of_the_greatest_size_pass() -> None:
    """The limits themselves are inside: 107 bytes of text, 1,040 of binary."""
    line = b"PROXY UNKNOWN " + b"x" * (V1_BYTES_MAX - 16) + b"\r\n"
    assert read_proxy_header(line) == ProxyHeader(None, V1_BYTES_MAX)
    assert read_proxy_header(framed(0x20, 0, bytes(V2_BYTES_MAX - 16))) == ProxyHeader(None, V2_BYTES_MAX)


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.0.0.7", True),
        ("::ffff:10.0.0.7", True),
        ("10.0.1.7", False),
        ("2001:db8::5", True),
        ("fe80::1%eth0", False),
        ("", False),
        ("a name", False),
    ],
)
def test_d12_only_named_networks_may_speak_for_others(peer: str, trusted: bool) -> None:
    """A peer counts by its address alone; an IPv4 address that comes as IPv6 is still the same one."""
    assert Proxies(["10.0.0.0/24", "2001:db8::/64"]).trusts(peer) is trusted


@pytest.mark.parametrize("networks", [[], ["10.0.0.1/24"], ["everybody"]])
def test_d12_no_network_is_no_proxy(networks: list[str]) -> None:
    """None, one with bits of a host, or no network at all: such a listener is not made."""
    with pytest.raises(ValueError, match=r"network|host bits"):
        Proxies(networks)
