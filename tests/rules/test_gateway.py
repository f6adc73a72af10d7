"""The simulated device by itself: a table of answers, a fake clock, no socket."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.actions import (
    Connect,
    Connected,
    ConnectRefused,
    Disconnected,
    Leg,
    Message,
    Persist,
    Publish,
    Published,
    Subscribe,
    Subscribed,
)
from device_sim.gateway import Step
from device_sim.state import Outcome, Phase, from_json, to_json
from device_sim.timing import Timeouts, wait_s
from provisioner.model.secret import Secret
from tests.rules.device_bench import ACK, NEW, REQUEST, RESPONSE, TIMEOUTS, Bench, events, kinds, only


def test_ec36_the_walk_has_its_order() -> None:
    """EC-36: answer, store, acknowledge, disconnect, connect to the account broker, first message, connected."""
    bench = Bench()
    bench.to_question()
    assert kinds(bench.answer("provisioned", **NEW)) == ["Persist", "Publish"]
    bench.feed(Published(ACK))
    bench.feed(Disconnected())
    connect = [action for action in bench.actions if isinstance(action, Connect)][-1]
    assert (connect.target.leg, connect.target.url) == (Leg.ACCOUNT, "mqtts://acme.example:8883")
    assert (connect.target.username, connect.target.password) == ("acme-meter-1", Secret("New-password-1"))
    first = only(bench.feed(Connected()), Publish)
    assert first.topic == "acme/meter-1/status"
    outcomes = [bench.device.outcome]
    bench.feed(Published(first.topic))
    assert [*outcomes, bench.device.outcome] == [Outcome.PROVISIONED, Outcome.CONNECTED]
    assert events(bench.actions) == [
        "CONNECT(gate)", "REQ", "RES", "ACK", "DISCONNECT", "CONNECT(account)", "FIRST", "CONNECTED",
    ]  # fmt: skip


def test_ec33_it_subscribes_before_it_publishes() -> None:
    """EC-33: nothing is published before the subscription to the response is acknowledged."""
    bench = Bench()
    bench.start()
    assert bench.feed(Connected()) == [Subscribe((RESPONSE,))]
    question = only(bench.feed(Subscribed((1,))), Publish)
    body = json.loads(question.payload)
    assert (question.topic, question.qos, question.asks) == (REQUEST, 1, True)
    assert (body["request_id"], body["activation_key"]) == ("ask-1", "key-1")
    assert body["device"]["serial_number"] == "S-1"


def test_the_request_id_is_on_disk_before_anything_is_sent() -> None:
    """F-28: a reboot right after the first byte must find the same request id."""
    actions = Bench().start()
    assert kinds(actions) == ["Persist", "Connect"]
    assert only(actions, Persist).state.request_id == "ask-1"


@pytest.mark.parametrize("code", [0, 1, 0x80, 0x87])
def test_f13_suback_and_puback_prove_nothing(code: int) -> None:
    """F-13: granted or denied, acknowledged or not, without an answer the device times out and asks again."""
    bench = Bench()
    bench.start()
    bench.feed(Connected(), Subscribed((code,)), Published(REQUEST, code))
    assert bench.device.state.phase is Phase.PROVISIONING
    assert bench.wait_s() == TIMEOUTS.reply_s
    assert kinds(bench.sleep()) == ["Disconnect"]
    assert bench.device.outcome is Outcome.NO_ANSWER
    bench.feed(Disconnected())
    assert kinds(bench.sleep()) == ["Connect"]


@pytest.mark.parametrize("status", ["expired", "already_provisioned", "malformed"])
def test_final_answers_stop_the_device(status: str) -> None:
    """expired, already_provisioned and malformed: stop for good, also over a reboot."""
    bench = Bench()
    bench.to_question()
    actions = bench.answer(status, retry_after_s=1)
    assert kinds(actions) == ["Persist", "Disconnect"]
    bench.feed(Disconnected())
    assert (bench.device.due_s, bench.device.outcome) == (None, Outcome(status))
    again = Bench(state=from_json(to_json(only(actions, Persist).state)))
    assert again.start() == []
    assert again.device.outcome is Outcome(status)


@pytest.mark.parametrize("status", ["waiting", "not_yet_active", "busy", "refused", "conflict"])
def test_answers_to_retry_after(status: str) -> None:
    """The device asks again on the same connection, not before retry_after_s, with the same request id (F-28)."""
    bench = Bench()
    bench.to_question()
    bench.answer(status, retry_after_s=5)
    assert (bench.device.state.phase, bench.device.outcome) == (Phase.PROVISIONING, Outcome(status))
    assert 5 <= bench.wait_s() <= 5 + TIMEOUTS.backoff_base_s
    question = only(bench.sleep(), Publish)
    assert json.loads(question.payload)["request_id"] == "ask-1"
    assert bench.device.attempts == 2


@pytest.mark.parametrize("status", ["refused", "conflict", "busy"])
def test_answers_without_a_time_back_off(status: str) -> None:
    """refused, conflict and busy without retry_after_s: the pauses grow up to the cap."""
    bench = Bench(draw=lambda: 0.999, timeouts=Timeouts(backoff_base_s=2, backoff_cap_s=60, linger_s=1000))
    bench.to_question()
    pauses = []
    for _ in range(8):
        bench.answer(status)
        pauses.append(round(bench.wait_s()))
        bench.sleep()
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]


def test_a_long_wait_is_spent_offline() -> None:
    """Above linger_s the device leaves the gate to others and comes back in time."""
    bench = Bench()
    bench.to_question()
    assert kinds(bench.answer("not_yet_active", retry_after_s=3600)) == ["Disconnect"]
    bench.feed(Disconnected())
    assert bench.wait_s() >= 3600
    assert kinds(bench.sleep()) == ["Connect"]


def test_a_rest_survives_the_gate_hanging_up() -> None:
    """A connection that ends while the device rests neither shortens nor lengthens the wait."""
    bench = Bench()
    bench.to_question()
    bench.answer("busy", retry_after_s=6)
    due_s = bench.device.due_s
    bench.feed(Disconnected())
    assert bench.device.due_s == due_s
    assert kinds(bench.sleep()) == ["Connect"]


@given(
    failures=st.integers(0, 200),
    draw=st.floats(0, 1, exclude_max=True),
    retry_after_s=st.integers(0, 100_000),
    base_s=st.floats(0.01, 100),
    cap_s=st.floats(0.01, 1000),
)
def test_f31_jitter_is_full_and_bounded(
    failures: int, draw: float, retry_after_s: int, base_s: float, cap_s: float
) -> None:
    """F-31: never below what the gate asked for, never more than the cap above it, spread from 0."""
    timeouts = Timeouts(backoff_base_s=base_s, backoff_cap_s=cap_s)
    pause_s = wait_s(timeouts, failures, lambda: draw, retry_after_s)
    assert retry_after_s <= pause_s <= retry_after_s + cap_s
    assert wait_s(timeouts, failures, lambda: 0.0, retry_after_s) == retry_after_s


@pytest.mark.parametrize(("code", "outcome"), [(0x86, Outcome.LOGIN_REFUSED), (None, Outcome.UNREACHABLE)])
def test_a_refused_connect_backs_off(code: int | None, outcome: Outcome) -> None:
    """F-27: neither a refused login nor an absent gate ends the walk."""
    bench = Bench(draw=lambda: 0.999)
    bench.start()
    for pause_s in (2, 4, 8):
        bench.feed(ConnectRefused(code, "x"))
        assert (bench.device.outcome, round(bench.wait_s())) == (outcome, pause_s)
        assert kinds(bench.sleep()) == ["Connect"]


def test_f28_cut_while_waiting_for_the_answer() -> None:
    """F-28: the socket dies at the instant of the answer; the same request id is asked again."""
    bench = Bench()
    bench.to_question()
    bench.feed(Disconnected())
    assert kinds(bench.sleep()) == ["Connect"]
    question = only(bench.feed(Connected(), Subscribed((1,))), Publish)
    assert json.loads(question.payload)["request_id"] == "ask-1"


def test_f26_a_second_answer_changes_nothing() -> None:
    """F-26: the answer to a duplicated request finds the device on its way."""
    bench = Bench()
    bench.to_question()
    bench.answer("provisioned", **NEW)
    assert bench.answer("provisioned", **NEW | {"password": "Another-pass-1"}) == []
    assert bench.device.state.settings is not None
    assert bench.device.state.settings.password == Secret("New-password-1")


def test_f29_a_lost_ack_does_not_hold_the_device() -> None:
    """F-29: no PUBACK for the acknowledgement within ack_s: it leaves for its account broker all the same."""
    bench = Bench()
    bench.to_question()
    bench.answer("provisioned", **NEW)
    assert bench.wait_s() == TIMEOUTS.ack_s
    assert kinds(bench.sleep()) == ["Disconnect"]
    assert only(bench.feed(Disconnected()), Connect).target.leg is Leg.ACCOUNT


def test_f30_an_absent_account_broker_is_tried_again() -> None:
    """F-30: both configurations are kept, the gate is not asked again, the pauses stay under the cap."""
    bench = Bench()
    bench.to_question()
    bench.answer("provisioned", **NEW)
    bench.feed(Disconnected())
    for _ in range(20):
        bench.feed(ConnectRefused(None, "refused"))
        assert bench.wait_s() <= TIMEOUTS.backoff_cap_s
        assert only(bench.sleep(), Connect).target.leg is Leg.ACCOUNT
    assert bench.device.attempts == 1
    assert bench.device.outcome is Outcome.ACCOUNT_UNREACHABLE


def test_f30_fall_back_to_the_gate() -> None:
    """F-30: with fall_back_after the device asks the gate again, with the same request id and its settings kept."""
    bench = Bench(timeouts=Timeouts(fall_back_after=2))
    bench.to_question()
    bench.answer("provisioned", **NEW)
    bench.feed(Disconnected(), ConnectRefused(None, "refused"))
    bench.sleep()
    assert kinds(bench.feed(ConnectRefused(None, "refused"))) == ["Persist"]
    assert only(bench.sleep(), Connect).target.leg is Leg.GATE
    assert (bench.device.state.request_id, bench.device.state.settings is not None) == ("ask-1", True)


def test_ec38_switched_off_it_never_goes_to_the_gate() -> None:
    """EC-38: a fresh device does nothing; one with an account goes there, and does not fall back when that is away."""
    assert kinds(Bench(provisioning=False).start()) == []
    bench = Bench()
    bench.to_question()
    stored = to_json(only(bench.answer("provisioned", **NEW), Persist).state)
    home = Bench(state=from_json(stored), timeouts=Timeouts(fall_back_after=1), provisioning=False)
    assert only(home.start(), Connect).target.leg is Leg.ACCOUNT
    assert kinds(home.feed(ConnectRefused(None, "refused"))) == []
    assert only(home.sleep(), Connect).target.leg is Leg.ACCOUNT
    assert not home.device.is_over


def test_a_reboot_resumes_where_it_was() -> None:
    """Power lost after the new configuration was stored: the device goes straight to its account broker."""
    bench = Bench()
    bench.to_question()
    stored = to_json(only(bench.answer("provisioned", **NEW), Persist).state)
    again = Bench(state=from_json(stored))
    assert only(again.start(), Connect).target.leg is Leg.ACCOUNT
    assert from_json(stored) == bench.device.state


def test_losing_the_account_broker_leads_back_there() -> None:
    """A connected device whose connection ends reconnects to its account broker by itself."""
    bench = Bench()
    bench.to_question()
    bench.answer("provisioned", **NEW)
    bench.feed(Disconnected(), Connected(), Published("acme/meter-1/status"))
    assert bench.device.step is Step.HOME
    bench.feed(Disconnected())
    assert bench.device.state.phase is Phase.RECONFIGURED
    assert only(bench.sleep(), Connect).target.leg is Leg.ACCOUNT


def test_a_first_message_that_is_refused_does_not_count() -> None:
    """MQTT 5 tells that the account broker did not take the first message: not connected."""
    bench = Bench()
    bench.to_question()
    bench.answer("provisioned", **NEW)
    bench.feed(Disconnected(), Connected())
    assert kinds(bench.feed(Published("acme/meter-1/status", 0x87))) == ["Disconnect"]
    assert bench.device.outcome is Outcome.ACCOUNT_REFUSED


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (b"{", "answer"),
        (b"[]", "answer"),
        (b'{"request_id": "ask-1", "status": "fine"}', "status"),
        (json.dumps({"request_id": "ask-1", "status": "provisioned"} | NEW | {"password": 7}).encode(), "password"),
        (json.dumps({"request_id": "ask-1", "status": "provisioned"} | NEW | {"account": ""}).encode(), "account"),
        (json.dumps({"request_id": "ask-1", "status": "provisioned"} | NEW | {"packages": [1]}).encode(), "packages"),
    ],
)
def test_an_unusable_answer_is_reported_and_tried_again(payload: bytes, named: str) -> None:
    """The device acknowledges `failed`, names the field, keeps its old configuration and backs off."""
    bench = Bench()
    bench.to_question()
    actions = bench.feed(Message(RESPONSE, payload))
    ack = json.loads(only(actions, Publish).payload)
    assert (ack["request_id"], ack["result"]) == ("ask-1", "failed")
    assert named in ack["detail"]
    assert kinds(actions) == ["Publish", "Disconnect"]
    assert (bench.device.state.phase, bench.device.outcome) == (Phase.PROVISIONING, Outcome.UNUSABLE_ANSWER)


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("prov/v1/meter-2/response", b"{}"),
        (REQUEST, b"{}"),
        (RESPONSE, b'{"request_id": "another", "status": "expired"}'),
    ],
)
def test_strangers_are_not_heard(topic: str, payload: bytes) -> None:
    """Messages on other topics and answers to another question lead to nothing."""
    bench = Bench()
    bench.to_question()
    assert bench.feed(Message(topic, payload)) == []


def test_ec35_packages_are_installed_and_reported() -> None:
    """EC-35: what the answer lists is installed, stored, and told in the first message."""
    bench = Bench()
    bench.to_question()
    package = {"name": "meter-app", "version": "1.2", "url": "https://x/y", "sha256": "0" * 64}
    assert "INSTALL" in events(bench.answer("provisioned", **NEW, packages=[package]))
    assert bench.device.state.settings is not None
    assert bench.device.state.settings.packages == ("meter-app 1.2",)
    first = only(bench.feed(Disconnected(), Connected()), Publish)
    assert json.loads(first.payload)["packages"] == ["meter-app 1.2"]


def test_a_skewed_clock_is_what_the_device_reports() -> None:
    """A device without a battery believes in 1970."""
    bench = Bench(clock_offset_s=-1000.0)
    bench.start()
    question = only(bench.feed(Connected(), Subscribed((1,))), Publish)
    assert json.loads(question.payload)["device"]["clock"] == "1970-01-01T00:00:00.000Z"
