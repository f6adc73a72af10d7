"""A door that can be shut: TCP connections to its port reach the target only while it is open."""

import collections
import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

from tests.support.device import Address
from tests.support.ports import free_ports


class Relay:
    """Shut at first: nobody listens on ``port``, as if the host behind it were away."""

    def __init__(self, target: Address) -> None:
        self._target = target
        (self.port,) = free_ports(1)
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.shut()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Cuts who is connected, too."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for each in self._open:
            _end(each)
        self._open.clear()

    def _reach(self) -> socket.socket:
        return socket.create_connection((self._target.host, self._target.port))

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = self._reach()
            except OSError:
                near.close()
                continue
            self._open += [near, far]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=_carry, args=pair, daemon=True).start()


class Balancer(Relay):
    """Takes its targets in turn, and the next one where one does not answer: as what stands before a cluster."""

    def __init__(self, *targets: Address) -> None:
        super().__init__(targets[0])
        self._targets = collections.deque(targets)

    def _reach(self) -> socket.socket:
        for target in list(self._targets):
            self._targets.rotate(-1)
            with contextlib.suppress(OSError):
                return socket.create_connection((target.host, target.port))
        raise OSError("no target answers")


def _carry(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        _end(source)
        _end(sink)


def _end(each: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may have ended by itself
        each.shutdown(socket.SHUT_RDWR)
    each.close()
