"""Free TCP ports of the loopback interface."""

import random
import socket

# Below the range from which the kernel gives ports to outgoing connections: while a service is down between a kill
# and its restart, nobody's connection may come to sit on its port.
_FIRST, _LAST = 10_000, 32_000


def free_ports(count: int) -> list[int]:
    """That many ports that nobody listens on just now; all different."""
    system = random.SystemRandom()
    found: dict[int, socket.socket] = {}
    try:
        while len(found) < count:
            port = system.randint(_FIRST, _LAST)
            if port not in found and (bound := _bound(port)) is not None:
                found[port] = bound
        return list(found)
    finally:
        for each in found.values():
            each.close()


def _bound(port: int) -> socket.socket | None:
    bound = socket.socket()
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        bound.close()
        return None
    return bound
