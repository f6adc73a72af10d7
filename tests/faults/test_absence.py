"""The account broker is away for a while, or the gate restarts under a fleet: everybody arrives, nobody storms."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.crowd import Chronicle, await_confirmed, crowd, meanwhile
from tests.support.fleet import QUICK, all_came_home, fleet_of, run_fleet
from tests.support.installation import Installation
from tests.support.relay import Relay

FreshId = Callable[[], str]
AWAY_S = 2.0
STORM_DEVICES = 500
ARRIVALS_PER_S = 62.5
OUTAGE_S = 1.0


def p95(values: list[float]) -> float:
    return values[int(len(values) * 0.95)]


def endpoint(relay: Relay) -> str:
    return f"mqtts://localhost:{relay.port}"


@pytest.mark.parametrize("kind", ["json", "esf", "kura"])
def test_f_30_a_device_waits_for_its_account_broker(
    shared_installation: Installation, fresh_id: FreshId, kind: str, seed: int
) -> None:
    """F-30: with nobody at its endpoint a device keeps its new configuration, backs off, and asks the gate no more."""
    chronicle, client_id = Chronicle(), fresh_id()
    with Relay(shared_installation.account_brokers["north"]) as relay:
        credentials = shared_installation.request(client_id, endpoint=endpoint(relay))

        def come_back() -> None:
            shared_installation.await_state(client_id, "granted")
            time.sleep(AWAY_S)
            assert shared_installation.state(client_id) == "granted"
            relay.open()

        with meanwhile(come_back):
            report, fleet = run_fleet(
                shared_installation, fleet_of(credentials, kind=kind), observe=chronicle, seed=seed
            )
        assert report.is_met, report.outcomes()
        shared_installation.await_state(client_id, "confirmed")
    tries = chronicle.times("CONNECT(account)")
    assert len(tries) >= 4
    # Full jitter below a cap of 0.5 s: a device that did not back off would have tried hundreds of times.
    assert len(tries) < 60
    assert len(chronicle.times("CONNECT(gate)")) == 1
    assert shared_installation.users_of(client_id) == [fleet.runners[0][0].device.state.settings.username]
    assert len(shared_installation.audit("provision.granted", client_id=client_id)) == 1
    assert not shared_installation.audit("provision.regranted", client_id=client_id)


def test_f_30_a_device_that_falls_back_is_given_the_same(
    shared_installation: Installation, fresh_id: FreshId, seed: int
) -> None:
    """F-30: a device that returns to the gate after three tries in vain is not issued anything new there."""
    chronicle, client_id = Chronicle(), fresh_id()
    with Relay(shared_installation.account_brokers["north"]) as relay:
        credentials = shared_installation.request(client_id, endpoint=endpoint(relay))

        def come_back() -> None:
            shared_installation.await_audit("provision.repeated", 2, client_id=client_id, timeout_s=20)
            relay.open()

        timeouts = {**QUICK, "fall_back_after": 3}
        with meanwhile(come_back):
            report, _ = run_fleet(
                shared_installation, fleet_of(credentials, timeouts=timeouts), observe=chronicle, seed=seed
            )
        assert report.is_met, report.outcomes()
        shared_installation.await_state(client_id, "confirmed")
    assert chronicle.counts("REQ")[client_id] >= 3
    assert len(shared_installation.users_of(client_id)) == 1
    assert len(shared_installation.audit("provision.granted", client_id=client_id)) == 1
    assert not shared_installation.audit("provision.regranted", client_id=client_id)
    assert len(shared_installation.audit("provision.confirmed", client_id=client_id)) == 1


def test_f_31_a_fleet_survives_a_restart_of_the_gate(
    make_installation: Callable[..., Installation], tmp_path: Path, seed: int
) -> None:
    """F-31: 500 devices whose gate is killed and restarted all finish, spread out and not as a storm.

    Until a device reaches the gate that serves it, p95 stays below twice what nobody can avoid, the outage and a walk;
    what each then costs the gate stays below twice what it costs in a crowd. Neither asks how busy the machine is."""
    installation = make_installation()
    with installation.running():
        installation.account()
        calm = crowd(installation, tmp_path, STORM_DEVICES // 2, "calm")
        storm = crowd(installation, tmp_path, STORM_DEVICES, "storm")
        began_s, began_cpu_s = time.monotonic(), installation.cpu_s()
        baseline = _walk(installation, calm, seed, over_s=0.0)
        rate = min(ARRIVALS_PER_S, STORM_DEVICES / 2 / (time.monotonic() - began_s))

        def restart() -> None:
            chronicle.await_events("RES", STORM_DEVICES // 10)
            installation.kill()
            outage_s.append(time.monotonic())
            time.sleep(OUTAGE_S)
            chronicle.await_events("CONNECT refused", STORM_DEVICES // 8)
            installation.start()
            outage_s.append(time.monotonic())
            cpu_s.append(installation.cpu_s())

        each_cpu_s = (installation.cpu_s() - began_cpu_s) / (STORM_DEVICES // 2)
        cpu_s: list[float] = []
        outage_s: list[float] = []
        chronicle = Chronicle()
        with meanwhile(restart):
            _walk(installation, storm, seed, over_s=STORM_DEVICES / rate, chronicle=chronicle)
        gone_s, back_s = outage_s
        assert p95(chronicle.reached_s()) < 2 * (back_s - gone_s + p95(baseline.walks_s()))
        returned = sum(events[-1][0] > back_s for events in chronicle.events.values())
        assert installation.cpu_s() - cpu_s[0] < 2 * returned * each_cpu_s
        _no_storm(chronicle, back_s)
        everybody = STORM_DEVICES + STORM_DEVICES // 2
        await_confirmed(installation, everybody)
        assert len(installation.listed("user.page", account="acme")) == everybody
        assert installation.ask("fsck") == {"findings": []}


def _walk(
    installation: Installation, fleet: dict[str, Any], seed: int, *, over_s: float, chronicle: Chronicle | None = None
) -> Chronicle:
    """over_s: they are switched on one after the other for so long."""
    chronicle = chronicle or Chronicle()
    settings = {
        "arrival": {"pattern": "uniform", "over_s": over_s} if over_s else {"pattern": "at_once"},
        "timeouts": {"backoff_base_s": 0.5, "backoff_cap_s": 4.0, "reply_s": 5.0},
    }
    report, made = run_fleet(
        installation, {**fleet, **settings}, observe=chronicle, in_flight_max=STORM_DEVICES, seed=seed
    )
    assert all_came_home(made), report.outcomes()
    return chronicle


def _no_storm(chronicle: Chronicle, returned_s: float) -> None:
    """Those that were refused meanwhile come back over seconds: no tenth of a second sees a fifth of the fleet."""
    tries = chronicle.times("CONNECT(gate)")
    refused = sum(count > 1 for count in chronicle.counts("CONNECT(gate)").values())
    assert refused > STORM_DEVICES // 10, "the outage was felt by few"
    busiest = max(sum(at <= other < at + 0.1 for other in tries) for at in tries if at >= returned_s)
    assert busiest < STORM_DEVICES // 5, busiest
    assert max(chronicle.counts("CONNECT(gate)").values()) < 20
