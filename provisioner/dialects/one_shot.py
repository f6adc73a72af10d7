"""The simplest exchange: one message out, nothing expected back."""

from collections.abc import Sequence

from provisioner.model.messages import Outgoing


class OneShot:
    """Says its messages at the start and is done."""

    done = True
    taken = False
    installed: Sequence[str] = ()

    def __init__(self, *messages: Outgoing, failure: str | None = None) -> None:
        """failure: why what was granted cannot be put into this dialect's words."""
        self._messages, self._failure = messages, failure

    @property
    def failure(self) -> str | None:
        return self._failure

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
