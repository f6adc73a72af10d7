"""The simplest exchange: one message out, nothing expected back."""

from collections.abc import Sequence

from provisioner.model.messages import Outgoing


class OneShot:
    """Says its messages at the start and is done."""

    done = True
    failure: str | None = None
    installed: Sequence[str] = ()

    def __init__(self, *messages: Outgoing) -> None:
        self._messages = messages

    def start(self, now_s: float) -> Sequence[Outgoing]:
        return self._messages

    def receive(self, topic: str, payload: bytes, now_s: float) -> Sequence[Outgoing]:
        return ()

    def tick(self, now_s: float) -> Sequence[Outgoing]:
        return ()

    def deadline(self) -> float | None:
        return None

    def expected_topics(self) -> frozenset[str]:
        return frozenset()
