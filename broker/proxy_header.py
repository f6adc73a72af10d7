"""The header by which a TCP proxy names the peer that it speaks for: PROXY protocol, versions 1 and 2 (the
specification is HAProxy's doc/proxy-protocol.txt, sections 2.1 and 2.2). Pure: bytes in, a value out.
"""

import ipaddress
from dataclasses import dataclass
from typing import Final

V1_PREFIX: Final = b"PROXY "
V1_BYTES_MAX: Final = 107  # section 2.1, its CRLF included
V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
V2_BYTES_MAX: Final = 1_040  # the fixed part, and what is usual behind the addresses with room to spare
_V2_FIXED_BYTES: Final = 16
_LOCAL, _PROXY = 0x20, 0x21  # version and command in one byte
_ADDRESS_BYTES: Final = {0x11: 4, 0x21: 16}  # TCP over IPv4, TCP over IPv6
_PORTS_BYTES: Final = 4
_UNSPECIFIED: Final = 0x00


class ProxyHeaderBroken(Exception):
    """``reason``: proxy_header_missing, proxy_header_malformed or proxy_header_too_long."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """source: whom the proxy speaks for, in canonical form; None when it speaks for itself (its health checks) or
    does not know. size: bytes of the header; what follows is the peer's."""

    source: str | None
    size: int


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """The header that ``data`` begins with; None while more of it has to come. Raises ProxyHeaderBroken as soon as it
    can be nothing any more, whatever would follow."""
    if data.startswith(V1_PREFIX):
        return _read_v1(data)
    if data.startswith(V2_SIGNATURE):
        return _read_v2(data)
    if V1_PREFIX.startswith(data) or V2_SIGNATURE.startswith(data):
        return None
    raise ProxyHeaderBroken("proxy_header_missing")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, V1_BYTES_MAX)
    if end < 0:
        if len(data) >= V1_BYTES_MAX:
            raise ProxyHeaderBroken("proxy_header_too_long")
        return None
    words = data[:end].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return ProxyHeader(None, end + 2)  # section 2.1: the rest of the line says nothing
    if len(words) != 6 or not (_is_port(words[4]) and _is_port(words[5])):
        raise ProxyHeaderBroken("proxy_header_malformed")
    source = _v1_address(words[1], words[2])
    _v1_address(words[1], words[3])
    return ProxyHeader(source, end + 2)


def _v1_address(family: str, text: str) -> str:
    try:
        if family == "TCP4":
            return str(ipaddress.IPv4Address(text))
        if family == "TCP6" and "%" not in text:
            return str(ipaddress.IPv6Address(text))
    except ValueError:
        pass
    raise ProxyHeaderBroken("proxy_header_malformed")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65_535 and str(int(text)) == text


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_FIXED_BYTES:
        return None
    command, family = data[12], data[13]
    size = _V2_FIXED_BYTES + int.from_bytes(data[14:16])
    if size > V2_BYTES_MAX:
        raise ProxyHeaderBroken("proxy_header_too_long")
    address_bytes = _ADDRESS_BYTES.get(family)
    speaks_for_another = command == _PROXY and family != _UNSPECIFIED
    if command not in (_LOCAL, _PROXY) or (speaks_for_another and address_bytes is None):
        raise ProxyHeaderBroken("proxy_header_malformed")
    if speaks_for_another and address_bytes and size < _V2_FIXED_BYTES + 2 * address_bytes + _PORTS_BYTES:
        raise ProxyHeaderBroken("proxy_header_malformed")
    if len(data) < size:
        return None
    if not speaks_for_another or address_bytes is None:
        return ProxyHeader(None, size)
    return ProxyHeader(str(ipaddress.ip_address(data[_V2_FIXED_BYTES : _V2_FIXED_BYTES + address_bytes])), size)
