"""Which proxies may speak for others at a listener, and the header with which each of their connections begins."""

import ipaddress
from collections.abc import Sequence

from broker.proxy_header import ProxyHeader, read_proxy_header


class Proxies:
    """networks: in CIDR notation; ValueError names one that is none, or that there are none."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Sequence[str]) -> None:
        if not networks:
            raise ValueError("a listener for proxies has to name the networks that they come from")
        self._networks = tuple(ipaddress.ip_network(each) for each in networks)

    def trusts(self, address: str) -> bool:
        """Whether a peer of this address may name another one; an IPv4-mapped address counts as IPv4."""
        try:
            peer = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(peer in network for network in self._networks)


class Preface:
    """The header of one connection; ``feed`` until it is there."""

    __slots__ = ("_data", "_proxies")

    def __init__(self, proxies: Proxies) -> None:
        self._proxies = proxies
        self._data = b""

    def trusts(self, address: str) -> bool:
        return self._proxies.trusts(address)

    def feed(self, data: bytes) -> tuple[ProxyHeader, bytes] | None:
        """The header and what came behind it; None while it is not whole. Raises ProxyHeaderBroken."""
        self._data += data
        header = read_proxy_header(self._data)
        return None if header is None else (header, self._data[header.size :])
