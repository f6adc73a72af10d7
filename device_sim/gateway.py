"""A device that passes through the gate: events of its link in, actions out; no socket, no clock, no random source.

The walk: connect to the gate, subscribe, ask, wait for the answer; store the new configuration, acknowledge, leave,
connect to the account broker, publish one first message. Only an answer counts, never a PUBACK or a SUBACK (F-13).
Whatever fails is tried again after a full-jitter back-off, always with the same request id (F-28).
"""

from collections.abc import Callable, Iterable
from enum import Enum, auto

from device_sim.actions import (
    Action,
    Connect,
    Connected,
    ConnectRefused,
    Disconnect,
    Disconnected,
    Event,
    Leg,
    Log,
    Message,
    Persist,
    Publish,
    Published,
    Subscribed,
    Target,
)
from device_sim.dialogue import Delivered, Dialogue, Heard, Identity, Refused, Unusable
from device_sim.state import FINAL_STATUSES, AccountSettings, DeviceState, Move, Outcome, Phase
from device_sim.timing import Timeouts, wait_s

_FAILURE_CODE_MIN = 0x80  # of a SUBACK or PUBACK


class Step(Enum):
    """What it is doing about its connection just now; the phase of its life is in `state`."""

    OFFLINE = auto()  # until the timer leads to a connect
    CONNECTING = auto()
    SUBSCRIBING = auto()
    ASKING = auto()
    RESTING = auto()  # connected to the gate, until the timer leads to the next ask
    APPLYING = auto()
    LEAVING = auto()  # last words said, until they are acknowledged
    CLOSING = auto()
    ARRIVING = auto()  # connected to the account broker, first message not acknowledged
    HOME = auto()


_TO_GATE = frozenset({Step.SUBSCRIBING, Step.ASKING, Step.RESTING, Step.APPLYING})


class Gateway:
    """One device. Call `start` once, then `receive` for every event of the link and `tick` at `due_s`.

    now_s: monotonic seconds. draw: uniform in [0, 1). clock_offset_s: added to now_s gives the seconds since 1970 that
    the device believes in.
    """

    def __init__(
        self,
        identity: Identity,
        state: DeviceState,
        dialogue: Dialogue,
        timeouts: Timeouts,
        draw: Callable[[], float],
        clock_offset_s: float = 0.0,
    ) -> None:
        self.state = state
        self.step = Step.OFFLINE
        self.attempts = 0
        self._identity = identity
        self._dialogue = dialogue
        self._timeouts = timeouts
        self._draw = draw
        self._clock_offset_s = clock_offset_s
        self._outcome = Outcome.NOTHING
        self._is_online = False
        self._due_s: float | None = None
        self._pause_s = 0.0
        self._failures = 0
        self._delivered: AccountSettings | None = None
        self._awaited_topic: str | None = None

    @property
    def due_s(self) -> float | None:
        """When `tick` has something to do; None while only an event can move it."""
        return self._due_s

    @property
    def outcome(self) -> Outcome:
        if self.state.phase is Phase.CONNECTED:
            return Outcome.CONNECTED
        return Outcome(self.state.stopped_for) if self.state.stopped_for else self._outcome

    @property
    def is_over(self) -> bool:
        """Connected, stopped as told, or switched off: nothing more happens by itself."""
        return self.state.phase in (Phase.CONNECTED, Phase.STOPPED) or self._is_switched_off

    @property
    def _is_switched_off(self) -> bool:
        return not self._identity.provisioning and self.state.phase in (Phase.FACTORY, Phase.PROVISIONING)

    def start(self, now_s: float) -> list[Action]:
        """Power on, for the first time or after a reboot in any phase."""
        if self.state.phase is Phase.STOPPED:
            return []
        if self._is_switched_off:
            return [Log("OFF", "provisioning")]
        moves = {Phase.FACTORY: Move.START, Phase.CONNECTED: Move.LOSE}
        actions: list[Action] = []
        if self.state.phase in moves:
            actions.append(self._move(moves[self.state.phase]))
        return [*actions, *self._connect()]

    def receive(self, event: Event, now_s: float) -> list[Action]:
        """What the event leads to. An event that does not fit the step is a latecomer and leads to nothing."""
        match event:
            case Connected() if self.step is Step.CONNECTING:
                return self._on_connected(now_s)
            case ConnectRefused() if self.step is Step.CONNECTING:
                return self._on_refused(event, now_s)
            case Subscribed() if self.step is Step.SUBSCRIBING:
                return self._on_subscribed(event, now_s)
            case Message() if self.step in _TO_GATE:
                return self._on_message(event, now_s)
            case Published(topic=topic) if topic == self._awaited_topic:
                return self._on_published(event, now_s)
            case Disconnected():
                return self._on_disconnected(now_s)
        return []

    def tick(self, now_s: float) -> list[Action]:
        if self._due_s is None or now_s < self._due_s:
            return []
        self._due_s = None
        match self.step:
            case Step.OFFLINE:
                return self._connect()
            case Step.RESTING:
                return self._ask(now_s)
            case Step.APPLYING:
                return self._apply(now_s)
            case Step.LEAVING:
                return self._close(0.0)
            case Step.ARRIVING:
                self._outcome = Outcome.ACCOUNT_REFUSED
        if self.step in (Step.SUBSCRIBING, Step.ASKING):
            self._outcome = Outcome.NO_ANSWER
        # The connection itself is suspect: a half-open one swallows every retry.
        return [Log("TIMEOUT", self.step.name.lower()), *self._fail(now_s)]

    # --- link ---------------------------------------------------------------------------------------------------

    def _connect(self) -> list[Action]:
        self.step, self._due_s, self._awaited_topic = Step.CONNECTING, None, None
        target = self._target()
        return [Log(f"CONNECT({target.leg})", target.url), Connect(target)]

    def _target(self) -> Target:
        settings, identity = self.state.settings, self._identity
        if self.state.phase is not Phase.RECONFIGURED or settings is None:
            return Target(
                leg=Leg.GATE,
                url=identity.gate_url,
                client_id=identity.client_id,
                username=identity.username,
                password=identity.password,
                will=self._dialogue.will(None),
            )
        return Target(
            leg=Leg.ACCOUNT,
            url=settings.broker_url,
            client_id=settings.client_id,
            username=settings.username,
            password=settings.password,
            will=self._dialogue.will(settings),
            certificate=settings.certificate,
            private_key=settings.private_key,
            ca=settings.ca,
        )

    def _on_connected(self, now_s: float) -> list[Action]:
        self._is_online = True
        if self.state.phase is Phase.RECONFIGURED and self.state.settings is not None:
            self.step = Step.ARRIVING
            actions = list(self._dialogue.arrive(self.state.settings, self._clock_ms(now_s)))
            self._await_first(actions)
            self._due_s = now_s + self._timeouts.reply_s
            return [*actions, Log("FIRST", self._awaited_topic or "")]
        self.step = Step.SUBSCRIBING
        self._due_s = now_s + self._timeouts.reply_s
        return self._counted(self._dialogue.open(self.state, self.attempts + 1, self._clock_ms(now_s)))

    def _on_refused(self, event: ConnectRefused, now_s: float) -> list[Action]:
        at_home = self.state.phase is Phase.RECONFIGURED
        if event.code is None:
            self._outcome = Outcome.ACCOUNT_UNREACHABLE if at_home else Outcome.UNREACHABLE
        else:
            self._outcome = Outcome.ACCOUNT_REFUSED if at_home else Outcome.LOGIN_REFUSED
        self.step = Step.OFFLINE
        actions: list[Action] = [Log("CONNECT refused", event.reason)]
        limit = self._timeouts.fall_back_after
        may_fall_back = at_home and self._identity.provisioning
        if may_fall_back and limit is not None and self._failures + 1 >= limit:
            actions.append(self._move(Move.FALL_BACK))
        self._due_s = now_s + self._backoff_s()
        return actions

    def _on_disconnected(self, now_s: float) -> list[Action]:
        self._is_online, self._awaited_topic = False, None
        match self.step:
            case Step.CLOSING | Step.LEAVING:
                if self.state.phase is Phase.STOPPED:
                    self.step, self._due_s = Step.OFFLINE, None
                    return []
                if self._pause_s == 0.0 or self.step is Step.LEAVING:
                    return self._connect()
                self.step, self._due_s = Step.OFFLINE, now_s + self._pause_s
            case Step.RESTING:
                self.step = Step.OFFLINE  # keeps the time of the next ask
            case Step.SUBSCRIBING | Step.ASKING:
                self._outcome = Outcome.NO_ANSWER
                self.step, self._due_s = Step.OFFLINE, now_s + self._backoff_s()
            case Step.ARRIVING | Step.HOME:
                actions = [self._move(Move.LOSE)] if self.state.phase is Phase.CONNECTED else []
                self._outcome = Outcome.ACCOUNT_REFUSED
                self.step, self._due_s = Step.OFFLINE, now_s + self._backoff_s()
                return [Log("LOST", "account broker"), *actions]
        return [Log("LOST", "gate")]

    def _close(self, pause_s: float) -> list[Action]:
        self.step, self._due_s, self._pause_s = Step.CLOSING, None, pause_s
        return [Log("DISCONNECT"), Disconnect()]

    def _fail(self, now_s: float) -> list[Action]:
        return self._close(self._backoff_s())

    def _backoff_s(self, retry_after_s: float = 0.0) -> float:
        pause_s = wait_s(self._timeouts, self._failures, self._draw, retry_after_s)
        self._failures += 1
        return pause_s

    # --- the exchange with the gate -----------------------------------------------------------------------------

    def _on_subscribed(self, event: Subscribed, now_s: float) -> list[Action]:
        denied = any(code >= _FAILURE_CODE_MIN for code in event.codes)
        return [*([Log("SUBACK refused")] if denied else []), *self._ask(now_s)]

    def _ask(self, now_s: float) -> list[Action]:
        self.step, self._due_s = Step.ASKING, now_s + self._timeouts.reply_s
        return self._counted(self._dialogue.ask(self.state, self.attempts + 1, self._clock_ms(now_s)))

    def _counted(self, actions: Iterable[Action]) -> list[Action]:
        counted: list[Action] = []
        for action in actions:
            if isinstance(action, Publish) and action.asks:
                self.attempts += 1
                counted.append(Log("REQ", f"attempt {self.attempts}"))
            counted.append(action)
        return counted

    def _on_message(self, event: Message, now_s: float) -> list[Action]:
        heard = self._dialogue.receive(self.state, event.topic, event.payload, self._clock_ms(now_s))
        if heard is None:
            return []
        if self.step is Step.APPLYING:
            # A copy of a request whose answer got lost: answered again, applied once.
            return [] if isinstance(heard, Refused) else list(heard.replies)
        return self._take(heard, now_s)

    def _take(self, heard: Heard, now_s: float) -> list[Action]:
        match heard:
            case Refused():
                return self._on_refusal(heard, now_s)
            case Unusable():
                self._outcome = Outcome.UNUSABLE_ANSWER
                return [Log("RES", f"unusable: {heard.detail}"), *heard.replies, *self._fail(now_s)]
            case Delivered():
                self._outcome, self._delivered = Outcome.PROVISIONED, heard.settings
                self.step, self._due_s = Step.APPLYING, now_s + heard.apply_after_s
                now = self._apply(now_s) if heard.apply_after_s == 0 else []
                return [Log("RES", Outcome.PROVISIONED), *heard.replies, *now]
        if self.step is not Step.RESTING:
            self._due_s = now_s + self._timeouts.reply_s
        return list(heard.replies)

    def _on_refusal(self, refused: Refused, now_s: float) -> list[Action]:
        if self.step is Step.RESTING:
            return []  # a second answer to the same question
        said = Log("RES", refused.status + (f": {refused.detail}" if refused.detail else ""))
        self._outcome = Outcome(refused.status)
        if refused.status in FINAL_STATUSES:
            return [said, self._move(Move.GIVE_UP, stopped_for=refused.status), *self._close(0.0)]
        pause_s = self._backoff_s(refused.retry_after_s)
        if pause_s > self._timeouts.linger_s:
            return [said, *self._close(pause_s)]
        self.step, self._due_s = Step.RESTING, now_s + pause_s
        return [said]

    def _apply(self, now_s: float) -> list[Action]:
        persist = self._move(Move.APPLY, settings=self._delivered)
        installed = [Log("INSTALL", name) for name in self._delivered.packages] if self._delivered else []
        if not self._is_online:
            return [persist, *installed, *self._connect()]
        words = list(self._dialogue.leave(self.state, self._clock_ms(now_s)))
        self._await_first(words)
        self._pause_s = 0.0
        actions: list[Action] = [persist, *installed, *words, *([Log("ACK")] if words else [])]
        if self._awaited_topic is None:
            return [*actions, *self._close(0.0)]
        self.step, self._due_s = Step.LEAVING, now_s + self._timeouts.ack_s
        return actions

    # --- the account broker -------------------------------------------------------------------------------------

    def _on_published(self, event: Published, now_s: float) -> list[Action]:
        self._awaited_topic = None
        if self.step is Step.LEAVING:
            return self._close(0.0)
        if self.step is not Step.ARRIVING:
            return []
        if event.code >= _FAILURE_CODE_MIN:
            self._outcome = Outcome.ACCOUNT_REFUSED
            return [Log("FIRST refused", f"{event.code:#x}"), *self._fail(now_s)]
        self.step, self._due_s = Step.HOME, None
        return [self._move(Move.ARRIVE), Log("CONNECTED")]

    def _await_first(self, actions: Iterable[Action]) -> None:
        """The first QoS 1 message is the one whose PUBACK lets the walk go on; without one it goes on at once."""
        self._awaited_topic = next((a.topic for a in actions if isinstance(a, Publish) and a.qos), None)

    def _move(self, move: Move, **changes: object) -> Persist:
        self.state = self.state.moved(move, **changes)
        self._failures = 0
        return Persist(self.state)

    def _clock_ms(self, now_s: float) -> int:
        return int((now_s + self._clock_offset_s) * 1000)
