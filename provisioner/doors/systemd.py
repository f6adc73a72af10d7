"""Tells systemd how the service is (sd_notify(3)). Where systemd did not start it, nothing is told."""

import contextlib
import os
import socket

READY, ALIVE = "READY=1", "WATCHDOG=1"


def notify(state: str) -> None:
    """Never blocks and never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address.startswith("@"):
        address = "\0" + address[1:]
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto(state.encode(), address)
