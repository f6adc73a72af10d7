"""Packages in the dialogue with a gateway (EC-35): progress, failure, time limit, busy gateways, and lost messages."""

import random

import pytest

from provisioner.dialects.esf_requests import Dialogue, DialogueState, Step
from tests.rules.esf_gateway import (
    BUSY,
    CONF,
    CONFIGURATION,
    DEPLOY,
    DOWNLOAD,
    HEATER,
    INSTALL,
    KEYS,
    OK,
    PUMP,
    dialogue,
    gateway_answers,
    notify,
    payload,
    reply_topic,
    topics,
)


def installing(*steps: Step, limit_s: float = 300) -> Dialogue:
    """A dialogue whose first package was taken by the gateway at 10 s."""
    flow = dialogue(*steps, install_limit_s=limit_s)
    flow.start(10)
    flow.receive(reply_topic("DEPLOY-V2", 0), OK, 10)
    return flow


def test_a_package_is_done_when_its_installation_is_reported_not_when_it_is_accepted() -> None:
    """200, progress and a finished download are not enough (EC-35)."""
    flow = installing(HEATER, CONFIGURATION)
    for kind, status in (("download", "IN_PROGRESS"), ("download", "COMPLETED"), ("install", "IN_PROGRESS")):
        topic = INSTALL if kind == "install" else DOWNLOAD
        assert flow.receive(topic, notify(0, kind, status), 20) == []
        assert flow.installed == () and flow.deadline() == 310
    assert topics(flow.receive(INSTALL, notify(0, "install", "COMPLETED"), 30)) == [CONF]
    assert flow.installed == ("heater",)


def test_a_package_that_was_there_already_counts_as_installed() -> None:
    """Kura's other word for success."""
    flow = installing(HEATER)
    flow.receive(INSTALL, notify(0, "install", "ALREADY DONE"), 20)
    assert flow.state is DialogueState.DONE


@pytest.mark.parametrize(
    ("topic", "data", "reason"),
    [
        (INSTALL, notify(0, "install", "FAILED", dp_install_error_message="no space"), "install FAILED: no space"),
        (DOWNLOAD, notify(0, "download", "FAILED", dp_download_error_message="404"), "download FAILED: 404"),
        (DOWNLOAD, notify(0, "download", "CANCELLED"), "download CANCELLED: no reason given"),
    ],
)
def test_a_package_that_fails_ends_the_dialogue(topic: str, data: bytes, reason: str) -> None:
    """With the words of the gateway; the configuration, which would make it leave, is not sent."""
    flow = installing(HEATER, CONFIGURATION)
    assert flow.receive(topic, data, 20) == []
    assert flow.failure == f"DEPLOY-V2/EXEC/download: {reason}"


def test_a_package_that_takes_too_long_ends_the_dialogue() -> None:
    """The limit counts from the moment the gateway took it; progress does not extend it."""
    flow = installing(HEATER, limit_s=60)
    flow.receive(DOWNLOAD, notify(0, "download", "IN_PROGRESS"), 69)
    assert flow.deadline() == 70
    assert flow.tick(69.9) == [] and flow.state is DialogueState.RUNNING
    assert flow.tick(70) == []
    assert flow.failure == "DEPLOY-V2/EXEC/download: not installed within 60 s"


@pytest.mark.parametrize(
    "data",
    [
        notify(1, "install", "COMPLETED"),
        payload(("dp.install.status", "COMPLETED")),
        payload(("job.id", "1"), ("dp.install.status", "FAILED")),
        notify(0, "uninstall", "COMPLETED"),
        b"\xff",
    ],
)
def test_a_notice_of_another_download_moves_nothing(data: bytes) -> None:
    """Only the number that was sent with the request counts, so an older exchange cannot end this one."""
    flow = installing(HEATER)
    assert flow.receive(INSTALL, data, 20) == []
    assert flow.state is DialogueState.RUNNING and flow.installed == ()


@pytest.mark.parametrize(("topic", "kind"), [(INSTALL, "install"), (DOWNLOAD, "download")])
@pytest.mark.parametrize("status", ["COMPLETED", "IN_PROGRESS", "FAILED"])
def test_a_notice_of_what_is_no_package_moves_nothing(topic: str, kind: str, status: str) -> None:
    """EC-35: the configuration is taken by its reply alone, and no package is called installed that there is not."""
    flow = installing(HEATER, CONFIGURATION)
    assert topics(flow.receive(INSTALL, notify(0, "install", "COMPLETED"), 30)) == [CONF]
    assert flow.receive(topic, notify(1, kind, status), 30.5) == []
    assert (flow.state, flow.installed, flow.deadline()) == (DialogueState.RUNNING, ("heater",), 31)


def test_progress_stands_in_for_a_lost_reply() -> None:
    """A notice shows that the request arrived: it is not sent again, and the limit runs."""
    flow = dialogue(HEATER, install_limit_s=60)
    flow.start(0)
    flow.receive(DOWNLOAD, notify(0, "download", "IN_PROGRESS"), 0.5)
    assert flow.tick(5) == [] and flow.deadline() == 60.5
    assert flow.receive(reply_topic("DEPLOY-V2", 0), OK, 6) == []
    flow.receive(INSTALL, notify(0, "install", "COMPLETED"), 7)
    assert flow.state is DialogueState.DONE


def test_a_finished_installation_stands_in_for_everything_lost_before() -> None:
    """Reply and progress may all be lost; the last notice alone ends the step."""
    flow = dialogue(HEATER)
    flow.start(0)
    flow.receive(INSTALL, notify(0, "install", "COMPLETED"), 0.5)
    assert flow.state is DialogueState.DONE and flow.installed == ("heater",)


def test_busy_with_a_copy_of_this_request_means_under_way() -> None:
    """The reply to the first copy was lost; the second one meets its own download."""
    flow = dialogue(HEATER, install_limit_s=60)
    flow.start(0)
    flow.tick(1)
    assert flow.receive(reply_topic("DEPLOY-V2", 0), BUSY, 1.1) == []
    assert flow.deadline() == 61.1


def test_busy_with_another_download_is_asked_again() -> None:
    """The only copy was answered busy, so it was not taken: it goes out again on the back-off and may then succeed."""
    flow = dialogue(HEATER)
    flow.start(0)
    assert flow.receive(reply_topic("DEPLOY-V2", 0), BUSY, 0.1) == []
    assert topics(flow.tick(1)) == [DEPLOY]
    flow.receive(reply_topic("DEPLOY-V2", 0), OK, 1.1)
    flow.receive(INSTALL, notify(0, "install", "COMPLETED"), 2)
    assert flow.state is DialogueState.DONE


def test_a_gateway_that_stays_busy_is_given_up() -> None:
    """Busy answers do not go on for ever."""
    flow = dialogue(HEATER)
    flow.start(0)
    while (due := flow.deadline()) is not None:
        flow.receive(reply_topic("DEPLOY-V2", 0), BUSY, due - 0.5)
        flow.tick(due)
    assert flow.failure == "DEPLOY-V2/EXEC/download: no answer to 5 requests"


@pytest.mark.parametrize("seed", range(60))
def test_a_lossy_gateway_is_either_served_in_order_or_given_up(seed: int) -> None:
    """With any loss of requests, replies and notices the dialogue ends in time, never skips a step, never repeats one
    that the gateway confirmed, and is done only when the gateway took everything."""
    chance = random.Random(seed)
    loss = chance.choice([0.0, 0.3, 0.6, 0.95])
    flow = dialogue(KEYS, HEATER, PUMP, CONFIGURATION, install_limit_s=30)
    taken: list[str] = []
    now_s, out = 0.0, flow.start(0)
    while not flow.done:
        arriving = [each for each in out if chance.random() >= loss]
        out = []
        for request in arriving:
            for topic, data in gateway_answers(request, taken):
                if chance.random() >= loss:
                    assert topic in flow.expected_topics()
                    out += flow.receive(topic, data, now_s)
        if not out and (due := flow.deadline()) is not None:
            now_s = due
            out = flow.tick(now_s)
        assert now_s < 200
    in_order = list(dict.fromkeys(taken))
    assert in_order == ["KEYS-V2", "heater", "pump", "CONF-V1"][: len(in_order)]
    assert (flow.state is DialogueState.DONE) == (flow.failure is None)
    if flow.state is DialogueState.DONE:
        assert len(in_order) == 4 and flow.installed == ("heater", "pump")
    if loss == 0.0:
        assert flow.state is DialogueState.DONE and taken == in_order
