"""The platform's side of the dialogue with a gateway: requests to its device apps until it has taken everything.

    request : <prefix>/<account>/<client id>/<APP>/<METHOD>/<resource>
    reply   : <prefix>/<account>/<requester>/<APP>/REPLY/<request id>
    notify  : <prefix>/<account>/<requester>/DEPLOY-V2/NOTIFY/<client id>/download|install

No clock and no input or output: `now_s` is monotonic seconds, topics and payloads come in and go out. What a real
gateway does and this dialogue allows for:

* it publishes BIRTH before it subscribes, so a first request may be lost: each is sent again until it is answered;
* every copy is answered, so a request that was sent three times may be answered three times, also late;
* it answers a download with 500 and `dp.download.status` IN_PROGRESS while another one runs, which is no refusal:
  it may be a copy of this request whose reply was lost, or the tail of the package before;
* a 200 on a configuration means received; the gateway applies it a second later and leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from provisioner.dialects.esf_steps import (
    Phase,
    Step,
    certificate_step,
    configuration_step,
    package_step,
    private_key_step,
)
from provisioner.dialects.kura_payload import KuraPayload, MalformedPayload, MetricType, decode, encode, metric
from provisioner.model.errors import IllegalMove
from provisioner.model.messages import Outgoing

__all__ = [
    "BACK_OFF_S", "INSTALL_LIMIT_S", "MESSAGE_CHARACTERS_MAX", "REQUEST_ID_CHARACTERS_MIN", "Dialogue",
    "DialogueState", "Phase", "Step", "certificate_step", "configuration_step", "download_id", "package_step",
    "private_key_step",
]  # fmt: skip

# Seconds to wait for the reply after the first, second .. last copy of a request; as many copies as entries.
BACK_OFF_S = (1.0, 2.0, 4.0, 8.0, 8.0)
INSTALL_LIMIT_S = 300.0
REQUEST_ID_CHARACTERS_MIN = 22  # 128 bits in base64
MESSAGE_CHARACTERS_MAX = 200

_OK = 200
_INSTALLED = frozenset({"COMPLETED", "ALREADY DONE"})
_NOT_INSTALLED = frozenset({"FAILED", "CANCELLED"})
_NOTIFIED = ("download", "install")


def download_id(request_id: str) -> int:
    """The INT64 that DEPLOY-V2 calls job.id; as unguessable as the request id, and never that of an older exchange."""
    return int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8]) >> 1


class DialogueState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class _Stage(Enum):
    NEW = auto()
    ASKING = auto()
    INSTALLING = auto()
    DONE = auto()
    FAILED = auto()


class _Move(Enum):
    ASK = auto()
    ACCEPT = auto()
    FINISH = auto()
    FAIL = auto()


# The whole life of a dialogue. ASK: the next step goes out. ACCEPT: the gateway took a package and works on it.
_MOVES: dict[tuple[_Stage, _Move], _Stage] = {
    (_Stage.NEW, _Move.ASK): _Stage.ASKING,
    (_Stage.NEW, _Move.FINISH): _Stage.DONE,
    (_Stage.ASKING, _Move.ASK): _Stage.ASKING,
    (_Stage.ASKING, _Move.ACCEPT): _Stage.INSTALLING,
    (_Stage.ASKING, _Move.FINISH): _Stage.DONE,
    (_Stage.ASKING, _Move.FAIL): _Stage.FAILED,
    (_Stage.INSTALLING, _Move.ASK): _Stage.ASKING,
    (_Stage.INSTALLING, _Move.FINISH): _Stage.DONE,
    (_Stage.INSTALLING, _Move.FAIL): _Stage.FAILED,
}


@dataclass(slots=True)
class _Request:
    """One step on the wire. Every copy may be answered once: `sends - replies` answers may still come."""

    step: Step
    message: Outgoing
    reply_topic: str
    download_id: int
    sends: int = 0
    replies: int = 0


class Dialogue:
    """Asks one gateway for step after step. `receive` ignores what it did not ask for; an illegal call raises.

    request_ids: one per step at least, distinct, unguessable, made by the caller for this dialogue alone.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        requester: str,
        control_prefix: str,
        account: str,
        client_id: str,
        request_ids: Sequence[str],
        install_limit_s: float = INSTALL_LIMIT_S,
        compress: bool = True,
    ) -> None:
        for name in (requester, control_prefix, account, client_id, *request_ids):
            if not name or set(name) & set("/+#\0"):
                raise ValueError("a topic level is empty or holds one of / + # NUL")
        _check_request_ids(request_ids, len(steps))
        self._to_gateway = f"{control_prefix}/{account}/{client_id}"
        self._to_us = f"{control_prefix}/{account}/{requester}"
        notify = f"{self._to_us}/DEPLOY-V2/NOTIFY/{client_id}"
        self._notify_topics = {f"{notify}/{resource}": resource for resource in _NOTIFIED}
        self._requester = requester
        self._install_limit_s = install_limit_s
        self._compress = compress
        ordered = sorted(steps, key=lambda step: step.phase)
        self._waiting = [self._request(*pair) for pair in zip(ordered, request_ids, strict=False)]
        self._sent: list[_Request] = []
        self._stage = _Stage.NEW
        self._deadline: float | None = None
        self._failure: str | None = None
        self._installed: list[str] = []

    @property
    def state(self) -> DialogueState:
        ended = {_Stage.DONE: DialogueState.DONE, _Stage.FAILED: DialogueState.FAILED}
        return ended.get(self._stage, DialogueState.RUNNING)

    @property
    def done(self) -> bool:
        """True when nothing more will be sent, after success and after failure."""
        return self.state is not DialogueState.RUNNING

    @property
    def taken(self) -> bool:
        """True when the gateway answered every request with 200 and reported every package installed."""
        return self.state is DialogueState.DONE

    @property
    def failure(self) -> str | None:
        """None, or the step and why it failed, with the gateway's own words cut to MESSAGE_CHARACTERS_MAX."""
        return self._failure

    @property
    def installed(self) -> tuple[str, ...]:
        """Names of the packages that the gateway reported installed."""
        return tuple(self._installed)

    def deadline(self) -> float | None:
        """When `tick` has something to do, None when never."""
        return self._deadline

    def expected_topics(self) -> frozenset[str]:
        """Topics on which the device was asked to publish, the late answers to further copies included."""
        topics = {sent.reply_topic for sent in self._sent if sent.replies < sent.sends}
        if not self.done and any(sent.step.package is not None for sent in self._sent):
            topics |= self._notify_topics.keys()
        return frozenset(topics)

    def start(self, now_s: float) -> list[Outgoing]:
        """The first request. Raises IllegalMove the second time."""
        if self._stage is not _Stage.NEW:
            raise IllegalMove("the dialogue has started already")
        return self._next(now_s)

    def receive(self, topic: str, payload: bytes, now_s: float) -> list[Outgoing]:
        """What the device published. Anything that cannot be read counts as not received."""
        if topic not in self.expected_topics():
            return []
        try:
            message = decode(payload)
        except MalformedPayload:
            return []
        if topic in self._notify_topics:
            return self._on_notify(self._notify_topics[topic], message, now_s)
        return self._on_reply(topic, message, now_s)

    def tick(self, now_s: float) -> list[Outgoing]:
        """Sends another copy, or gives up; does nothing before `deadline()`."""
        if self._deadline is None or now_s < self._deadline:
            return []
        if self._stage is _Stage.INSTALLING:
            return self._fail(f"not installed within {self._install_limit_s:g} s")
        if self._sent[-1].sends == len(BACK_OFF_S):
            return self._fail(f"no answer to {len(BACK_OFF_S)} requests")
        return self._send(now_s)

    def _request(self, step: Step, request_id: str) -> _Request:
        number = download_id(request_id)
        metrics = (metric("request.id", request_id), metric("requester.client.id", self._requester), *step.metrics)
        if step.package is not None:
            metrics += (metric("job.id", number, MetricType.INT64),)
        payload = encode(KuraPayload(metrics=metrics, body=step.body), compress=self._compress)
        message = Outgoing(f"{self._to_gateway}/{step.app}/{step.verb}", payload)
        return _Request(step, message, f"{self._to_us}/{step.app}/REPLY/{request_id}", number)

    def _move(self, what: _Move) -> None:
        """Raises IllegalMove and changes nothing when the table has no such move."""
        try:
            self._stage = _MOVES[self._stage, what]
        except KeyError:
            raise IllegalMove(f"a dialogue that is {self._stage.name} cannot {what.name}") from None

    def _next(self, now_s: float) -> list[Outgoing]:
        if not self._waiting:
            self._move(_Move.FINISH)
            self._deadline = None
            return []
        self._move(_Move.ASK)
        self._sent.append(self._waiting.pop(0))
        return self._send(now_s)

    def _send(self, now_s: float) -> list[Outgoing]:
        request = self._sent[-1]
        self._deadline = now_s + BACK_OFF_S[request.sends]
        request.sends += 1
        return [request.message]

    def _accept(self, now_s: float) -> list[Outgoing]:
        self._move(_Move.ACCEPT)
        self._deadline = now_s + self._install_limit_s
        return []

    def _fail(self, reason: str) -> list[Outgoing]:
        self._move(_Move.FAIL)
        self._failure = f"{self._sent[-1].step}: {reason}"
        self._deadline = None
        return []

    def _on_reply(self, topic: str, message: KuraPayload, now_s: float) -> list[Outgoing]:
        code = message.integer("response.code")
        if code is None:
            return []
        request = next(sent for sent in self._sent if sent.reply_topic == topic)
        request.replies += 1
        if self._stage is not _Stage.ASKING or request is not self._sent[-1]:
            return []
        if code == _OK:
            return self._accept(now_s) if request.step.package is not None else self._next(now_s)
        if request.step.package is not None and message.text("dp.download.status") == "IN_PROGRESS":
            # An unanswered copy is the likely cause; without one it is somebody else's download: ask again later.
            return self._accept(now_s) if request.replies < request.sends else []
        return self._fail(f"refused with {code}: {_words(message, 'response.exception.message')}")

    def _on_notify(self, resource: str, message: KuraPayload, now_s: float) -> list[Outgoing]:
        request = self._sent[-1]
        package = request.step.package
        if package is None or message.integer("job.id") != request.download_id:
            return []
        status = message.text(f"dp.{resource}.status")
        if status in _NOT_INSTALLED:
            return self._fail(f"{resource} {status}: {_words(message, f'dp.{resource}.error.message')}")
        if resource == "install" and status in _INSTALLED:
            self._installed.append(package)
            return self._next(now_s)
        # Progress shows that the request arrived, also when its reply did not.
        return self._accept(now_s) if self._stage is _Stage.ASKING else []


def _check_request_ids(request_ids: Sequence[str], steps: int) -> None:
    if len(request_ids) < steps or len(set(request_ids)) != len(request_ids):
        raise ValueError("every step needs a request id of its own")
    if any(len(each) < REQUEST_ID_CHARACTERS_MIN for each in request_ids):
        raise ValueError(f"a request id needs {REQUEST_ID_CHARACTERS_MIN} characters")


def _words(message: KuraPayload, name: str) -> str:
    """The gateway's explanation on one line; it stands in a metric, or in the body as bare text."""
    words = message.text(name) or (message.body or b"").decode(errors="replace")
    cut = words[:MESSAGE_CHARACTERS_MAX]
    return "".join(letter if letter.isprintable() else " " for letter in cut) or "no reason given"
