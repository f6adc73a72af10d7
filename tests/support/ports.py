"""TCP ports of the loopback interface: those that are free, and whether a server has come up on one."""

import fcntl
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path

# Below the range from which the kernel gives ports to outgoing connections: while a service is down between a kill
# and its restart, nobody's connection may come to sit on its port.
_FIRST, _LAST = 10_000, 32_000
# A port is free until somebody listens on it, which is a while after it was chosen, and while a service is down between
# a kill and its restart. So that nobody else chooses it meanwhile, each process that chooses, the workers of every test
# run on this machine, has a range of its own, and hands out no port twice in a row of hundreds.
_RANGES = 16
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """That many ports that nobody listens on just now; all different, and none that was given lately."""
    system = random.SystemRandom()
    first, last = _own_range()
    found: list[int] = []
    while len(found) < count:
        if 2 * len(_given) > last - first:
            _given.clear()  # whoever got the first of them has come and gone
        port = system.randint(first, last)
        if port not in _given and _is_free(port):
            _given.add(port)
            found.append(port)
    return found


def listens(port: int) -> bool:
    """Whether the kernel takes connections there; the server may not have come to look at them yet."""
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def serves(port: int) -> bool:
    """Whether somebody there reads what is sent: sixteen zeros are no packet and no TLS, and end the connection. A
    mosquitto forgets the signals that come between its first listener and its main loop."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as line:
            line.sendall(bytes(16))
            line.recv(1)
    except TimeoutError:
        return False
    except OSError as error:
        return isinstance(error, ConnectionResetError)
    return True


@cache
def _own_range() -> tuple[int, int]:
    """The first that no other process of this user holds, until this one ends; any, when there are more of them."""
    place = next((each for each in range(_RANGES) if _take(each)), os.getpid() % _RANGES)
    size = (_LAST - _FIRST) // _RANGES
    return _FIRST + place * size, _FIRST + (place + 1) * size - 1


def _take(place: int) -> bool:
    """Whether it was to be had; then it is ours: the descriptor stays open, and the system closes it."""
    lock = Path(tempfile.gettempdir()) / f"fleetgate-test-ports-{os.getuid()}-{place}"
    descriptor = os.open(lock, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as bound:
        try:
            bound.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
