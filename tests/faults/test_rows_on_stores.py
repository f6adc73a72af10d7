"""The rows about lost messages, rivals, absences, clocks and floods once more, on the stores that are not the default.

What is asserted stands in the tests that are called; the store must make no difference.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.packets import V5, V311
from tests.faults import test_absence, test_clocks, test_contention, test_floods, test_lost_messages, test_second_writer
from tests.support.crowd import await_confirmed, crowd, meanwhile
from tests.support.fleet import all_came_home, run_fleet
from tests.support.installation import Installation
from tests.support.stores import empty_site

KINDS = ("sqlite", "postgresql")
FLEET = 120
FLOOD_S = 5.0

FreshId = Callable[[], str]
Make = Callable[..., Installation]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def running(
    kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """As ``shared_installation``, on this kind of store."""
    folder = tmp_path_factory.mktemp(kind)
    store = empty_site(kind, folder / "store", request).settings
    installation = Installation(folder / "installation", brokers=("north", "south"), store=store)
    with installation.running():
        installation.account("acme", "north")
        installation.account("bolt", "south")
        yield installation
        assert installation.ask("fsck") == {"findings": []}


@pytest.fixture
def make(kind: str, request: pytest.FixtureRequest, tmp_path: Path, make_installation: Make) -> Make:
    """As ``make_installation``, on this kind of store."""

    def made(**settings: Any) -> Installation:
        return make_installation(store=empty_site(kind, tmp_path / "store", request).settings, **settings)

    return made


def test_f_16_of_fifty_at_once_exactly_one_is_provisioned(running: Installation, fresh_id: FreshId) -> None:
    """F-16: the compare-and-set of each store lets one of fifty clones through."""
    test_contention.test_f_16_of_fifty_at_once_exactly_one_is_provisioned(running, fresh_id, "plain", V5)


def test_f_16_who_lost_gets_the_same_answer_or_none(running: Installation, fresh_id: FreshId) -> None:
    """F-16: whoever comes after a winner that vanished is given the same credentials."""
    test_contention.test_f_16_who_lost_gets_the_same_answer_or_none(running, fresh_id, V311)


def test_f_26_a_question_delivered_twice_has_one_answer(running: Installation, fresh_id: FreshId) -> None:
    """F-26: copies of a question bring the same bytes and one user, on one connection and on the next."""
    test_lost_messages.test_f_26_a_question_delivered_twice_has_one_answer(running, fresh_id, V311)
    test_lost_messages.test_f_26_a_question_repeated_on_the_next_connection_is_the_same_question(running, fresh_id)


def test_f_28_the_socket_dies_with_the_answer_in_it(running: Installation, fresh_id: FreshId, seed: int) -> None:
    """F-28: a device that is cut around its answer, or forgot its question, has exactly one credential."""
    test_lost_messages.test_f_28_the_socket_dies_with_the_answer_in_it(running, fresh_id, seed)
    test_lost_messages.test_f_28_a_device_that_forgot_its_question_too(running, fresh_id)


@pytest.mark.parametrize("device", ["json", "kura"])
def test_f_28_devices_of_every_kind_get_over_it(
    running: Installation, fresh_id: FreshId, device: str, seed: int
) -> None:
    """F-28: answers that are lost together with the socket end in one confirmed grant."""
    lost = {"lost_answer": {"count": 1, "how": "cut"}}
    test_lost_messages.test_f_28_devices_of_every_kind_get_over_it(running, fresh_id, device, lost, seed)


def test_f_27_devices_that_ask_while_the_service_is_down(make: Make, tmp_path: Path, seed: int) -> None:
    """F-27: what asks while the service is away is provisioned after its return, without a hand."""
    test_lost_messages.test_f_27_devices_that_ask_while_the_service_is_down(make, tmp_path, seed)


def test_f_31_a_fleet_survives_a_restart_of_the_gate(make: Make, tmp_path: Path) -> None:
    """F-31: a fleet whose gate is killed and restarted finishes; nothing is there twice."""
    installation = make()
    with installation.running():
        installation.account()
        fleet = crowd(installation, tmp_path, FLEET)

        def restart() -> None:
            time.sleep(1.0)
            installation.kill()
            time.sleep(test_absence.OUTAGE_S)
            installation.start()

        arrival = {"pattern": "uniform", "over_s": 7.0}
        timeouts = {"backoff_base_s": 0.5, "backoff_cap_s": 3.0, "reply_s": 5.0}
        with meanwhile(restart):
            report, made = run_fleet(installation, {**fleet, "arrival": arrival, "timeouts": timeouts})
        assert all_came_home(made), report.outcomes()
        await_confirmed(installation, FLEET)
        assert len(installation.listed("user.page", account="acme")) == FLEET
        assert len(installation.audit("provision.granted")) == FLEET
        assert installation.ask("fsck") == {"findings": []}


def test_f_32_windows_follow_the_servers_clock(make: Make, fresh_id: FreshId, tmp_path: Path) -> None:
    """F-32: no store has a say in what time it is: windows and delays follow the clock of the service."""
    limits = {"connect_deadline_s": test_clocks.CONNECT_DEADLINE_S}
    policy = {"key_backoff_s": test_clocks.KEY_BACKOFF_S, "key_failures_backoff": 2}
    clock = test_clocks.Clock(tmp_path / "clock")
    clock.set(0)
    installation = make(gate={"limits": limits}, policy=policy)
    with installation.running(**clock.environment()):
        installation.account()
        site = test_clocks.Site(installation, clock)
        test_clocks.test_f_32_windows_follow_the_servers_clock(site, fresh_id)
        clock.set(0)
        test_clocks.test_f_32_a_clock_that_is_set_back_locks_nobody_out(site, fresh_id)


def test_f_35_a_flood_of_connects_keeps_no_device_out(make: Make) -> None:
    """F-35: at 200 CONNECTs a second the p95 of devices stays below 5 s, and the work is bounded."""
    installation = make(log_level="INFO")
    with installation.running():
        installation.account()
        test_floods.test_f_35_a_flood_of_connects_keeps_no_device_out(installation, FLOOD_S)
        installation.legitimate_device_provisions("in-the-end")
        assert "Traceback" not in installation.log.read_text()


def test_f_43_command_lines_write_through_the_service(make: Make) -> None:
    """F-43: administrators and devices at the same time, then a kill: everything is there once, the store is sound."""
    installation = make()
    with installation.running():
        installation.account()
        test_second_writer.test_f_43_command_lines_write_through_the_service(installation)


def test_f_43_a_second_service_takes_no_store_of_one_process(make: Make, kind: str) -> None:
    """F-43: on a file the second service is refused; on a database it gets as far as the ports that are taken."""
    installation = make()
    with installation.running():
        installation.account()
        second = test_second_writer.serve(installation.config)
        refused = "in use by process" in second.stderr
        assert (second.returncode != 0, refused) == (True, kind == "sqlite"), second.stderr
        assert "Traceback" not in second.stderr
        started_s = time.monotonic()
        installation.legitimate_device_provisions("still-here")
        assert time.monotonic() - started_s < test_floods.LEGITIMATE_S_MAX
        assert installation.ask("fsck") == {"findings": []}
