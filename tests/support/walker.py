"""A device that never gives up: through crashes of the service it asks with one message id and keeps every answer."""

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from provisioner.doors.control_client import Refused, Unreachable
from tests.support.device import Credentials, Wire, connect_to_account
from tests.support.installation import Installation

# Of the generated form, so that a log-in costs one HMAC. Chosen here, since the answer to a creation may get lost.
PASSWORD = "Fg-" + "0123456789ABCDEFGHJKMNPQRS"


class Interrupted(Exception):
    """The service went away under the device; it tries again once there is one."""


class Walker:
    """``heard``: the bytes of every answer ``provisioned`` in this life; there must never be two different ones.

    lives: how often it walks; it is re-armed between two of them."""

    def __init__(self, installation: Installation, client_id: str, *, lives: int = 1, broker: str = "embedded") -> None:
        self.client_id, self.message_id = client_id, f"ask-{client_id}"
        self.heard: set[bytes] = set()
        self.life, self.lives = 1, lives
        self.is_created = self.is_done = False
        self._tries_to_create = 0
        self._is_home = False
        self._installation, self._broker = installation, broker

    @property
    def answer(self) -> dict[str, Any]:
        (payload,) = self.heard
        answer = json.loads(payload)
        assert isinstance(answer, dict)
        return answer

    def walk(self) -> bool:
        """From wherever it is to confirmed; False when the service died under it."""
        try:
            self._create()
            while not self._is_home or self.life < self.lives:
                if self._is_home:
                    self._begin_again()
                self._ask()
                self._move()
        except (Interrupted, OSError, Unreachable):
            return False
        self.is_done = True
        return True

    def _create(self) -> None:
        """By the administrator. One who was not answered tries again and may be told that it is there already."""
        if self.is_created:
            return
        self._tries_to_create += 1
        try:
            self._installation.request(self.client_id, password=PASSWORD)
        except Refused as refused:
            if refused.kind != "conflict" or self._tries_to_create == 1:
                raise
        self.is_created = True

    def _ask(self) -> None:
        own = Credentials(client_id=self.client_id, username=f"user-{self.client_id}", password=PASSWORD)
        base = f"prov/v1/{self.client_id}"
        with Wire(self._installation.plain) as wire:
            _go_on(wire.connect(own.client_id, own.username, own.password) == 0)
            _go_on(wire.subscribe(f"{base}/response") == (1,))
            wire.publish(f"{base}/request", json.dumps({"request_id": self.message_id}).encode(), wait=False)
            message = wire.message()
            _go_on(message is not None)
            assert message is not None
            self._hear(message.payload)
            wire.publish(f"{base}/ack", json.dumps({"request_id": self.message_id, "result": "applied"}).encode())

    def _hear(self, payload: bytes) -> None:
        answer = json.loads(payload)
        if answer["status"] == "provisioned":
            self.heard.add(payload)
            assert len(self.heard) == 1, f"{self.client_id} was given two different answers"
        else:
            # Confirmed before the crash: only a device that had its answer can have caused that.
            assert answer["status"] == "already_provisioned", answer
            assert self.heard, f"{self.client_id} is done without ever having been answered"

    def _move(self) -> None:
        with connect_to_account(self.answer, self._installation.account_brokers[self._broker]):
            self._installation.await_state(self.client_id, "confirmed")
        self._is_home = True

    def _begin_again(self) -> None:
        if self._installation.ask("request.show", id=self.client_id)["arm"] == self.life:
            self._installation.ask("request.rearm", id=self.client_id)
        self.life += 1
        self.message_id = f"ask-{self.client_id}-{self.life}"
        self.heard.clear()
        self._is_home = False


def _go_on(is_alive: bool) -> None:
    if not is_alive:
        raise Interrupted


def killed_while_they_walk(installation: Installation, walkers: Sequence[Walker], after_s: float) -> int:
    """Start, kill -9 that long after while all of them walk, start again: each ends its walk and nothing is left over.
    How many had heard an answer before the kill."""
    installation.start()
    timer = threading.Timer(after_s, installation.kill)
    timer.start()
    with ThreadPoolExecutor(len(walkers)) as pool:
        list(pool.map(Walker.walk, walkers))
    timer.join()
    heard = sum(bool(walker.heard) for walker in walkers)
    with installation.running():
        for walker in walkers:
            assert walker.is_done or walker.walk(), walker.client_id
        assert installation.ask("fsck") == {"findings": []}
    return heard
