"""Account brokers that are away and come back, and answers that nobody acknowledged: the real ones of every kind."""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_sim.actions import Log
from tests.support.crowd import Chronicle, crowd, meanwhile
from tests.support.device import JsonDevice
from tests.support.every_broker import KINDS, EveryBroker, Home
from tests.support.fleet import QUICK, all_came_home, fleet_of, run_fleet

FreshId = Callable[[], str]
each_kind = pytest.mark.parametrize("broker", KINDS)
# The embedded broker ends with the service, and RabbitMQ takes its time to begin.
MOSQUITTOS = ("files", "dynsec")
RETURN_S_MAX = 60.0
AWAY_S = 1.5
EACH = 8


def credentials_made(site: EveryBroker, account: str, *client_ids: str) -> None:
    """Each device has one set of credentials, of one grant."""
    for client_id in client_ids:
        site.installation.await_state(client_id, "confirmed", timeout_s=20)
        assert len(site.installation.users_of(client_id, account)) == 1
        assert len(site.installation.audit("provision.granted", client_id=client_id)) == 1
        assert site.installation.audit("provision.regranted", client_id=client_id) == []


def live_on(site: EveryBroker, home: Home) -> None:
    """The device stays at home until it is confirmed: its broker may have been there before the service was, which then
    calls back who came meanwhile."""
    until_s = time.monotonic() + RETURN_S_MAX
    while site.installation.state(home.client_id) != "confirmed":
        assert time.monotonic() < until_s, "nobody has seen it"
        with contextlib.suppress(ConnectionRefusedError), home.connect() as wire:
            wire.is_cut(0.5)


@each_kind
def test_f_29_the_first_connection_is_the_acknowledgement(
    every_broker: EveryBroker, fresh_id: FreshId, broker: str
) -> None:
    """F-29: the word that a device took its answer is lost; that it is seen at home closes the request, and its late
    word, even that it failed, changes nothing."""
    credentials = every_broker.installation.request(fresh_id(), broker)
    with every_broker.installation.device(credentials) as device:
        answer = device.ask("m-1")
        with every_broker.home(broker, credentials, answer).connect():
            every_broker.installation.await_state(credentials.client_id, "confirmed")
            device.acknowledge("m-1", "failed")
    with JsonDevice(every_broker.installation.plain, credentials) as device:
        device.acknowledge("m-1", "failed")
        assert device.ask("m-2")["status"] == "already_provisioned"
    credentials_made(every_broker, broker, credentials.client_id)
    with every_broker.home(broker, credentials, answer).connect() as wire:
        assert wire.subscribe(f"{broker}/{credentials.client_id}/#") == (1,)


@pytest.mark.parametrize("broker", MOSQUITTOS)
def test_f_30_a_device_waits_for_its_mosquitto(every_broker: EveryBroker, fresh_id: FreshId, broker: str) -> None:
    """F-30: mosquitto dies when the device has its answer; the device keeps it, backs off, asks the gate no more, and
    is at home when mosquitto is back."""
    mosquitto, chronicle = every_broker.mosquittos[broker], Chronicle()
    credentials = every_broker.installation.request(fresh_id(), broker)
    dead = threading.Event()

    def observe(who: str, log: Log) -> None:
        chronicle(who, log)
        if log.event == "RES" and not dead.is_set():
            mosquitto.kill()
            dead.set()

    def come_back() -> None:
        assert dead.wait(20)
        time.sleep(AWAY_S)
        assert every_broker.installation.state(credentials.client_id) == "granted"
        mosquitto.start()

    with meanwhile(come_back):
        report, fleet = run_fleet(every_broker.installation, fleet_of(credentials), observe=observe)
    assert report.is_met, report.outcomes()
    settings = fleet.runners[0][0].device.state.settings
    assert settings is not None
    answer = {"account": broker, "username": settings.username, "password": settings.password.reveal()}
    live_on(every_broker, every_broker.home(broker, credentials, answer))
    credentials_made(every_broker, broker, credentials.client_id)
    assert len(chronicle.times("CONNECT(gate)")) == 1
    # Full jitter below a cap of 0.5 s: who did not back off would have tried hundreds of times.
    assert 3 <= len(chronicle.times("CONNECT(account)")) < 80


def test_f_30_a_device_waits_for_its_cluster(every_broker: EveryBroker, fresh_id: FreshId) -> None:
    """F-30: nobody answers where the cluster of its account should be; the device waits and is confirmed there."""
    client_id, chronicle = fresh_id(), Chronicle()
    credentials = every_broker.installation.request(client_id, "rabbit")
    away = threading.Event()

    def observe(who: str, log: Log) -> None:
        chronicle(who, log)
        if log.event == "RES" and not away.is_set():
            every_broker.balancer.shut()
            away.set()

    def come_back() -> None:
        assert away.wait(20)
        time.sleep(AWAY_S)
        assert every_broker.installation.state(client_id) == "granted"
        every_broker.balancer.open()

    with meanwhile(come_back):
        report, _ = run_fleet(every_broker.installation, fleet_of(credentials), observe=observe)
    assert report.is_met, report.outcomes()
    credentials_made(every_broker, "rabbit", client_id)
    assert len(chronicle.times("CONNECT(gate)")) == 1


def test_f_27_devices_of_all_brokers_outlive_a_death_of_the_service(every_broker: EveryBroker, tmp_path: Path) -> None:
    """F-27, F-31: the service is killed while devices of several brokers ask, and comes back: within a minute all of
    them are at home, each with one set of credentials, and nobody lent a hand."""
    names = [name for name in KINDS if name != "near"]  # the embedded broker dies with the service
    fleets = [crowd(every_broker.installation, tmp_path, EACH, f"f27-{name}", account=name) for name in names]
    settings = {"arrival": {"pattern": "uniform", "over_s": 2.0}, "timeouts": {**QUICK, "reply_s": 2.0}}
    back_s: list[float] = []

    def die_and_rise() -> None:
        time.sleep(0.7)
        every_broker.installation.kill()
        time.sleep(0.5)
        every_broker.installation.start()
        back_s.append(time.monotonic())

    with meanwhile(die_and_rise):
        report, made = run_fleet(every_broker.installation, *({**fleet, **settings} for fleet in fleets))
    assert all_came_home(made), report.outcomes()
    assert time.monotonic() - back_s[0] < RETURN_S_MAX
    for name in names:
        one_set_each(every_broker, name, [f"f27-{name}-{number}" for number in range(EACH)])
    assert every_broker.installation.ask("fsck") == {"findings": []}


@pytest.mark.parametrize("broker", MOSQUITTOS)
def test_f_31_an_account_broker_restarts_under_a_fleet(every_broker: EveryBroker, tmp_path: Path, broker: str) -> None:
    """F-31: mosquitto is killed twice and started again while a fleet arrives at it: all of them end confirmed, no
    device hammers, and nothing is issued twice."""
    fleet = crowd(every_broker.installation, tmp_path, 3 * EACH, f"f31-{broker}", account=broker)
    settings: dict[str, Any] = {"arrival": {"pattern": "uniform", "over_s": 2.0}}
    settings["timeouts"] = {**QUICK, "reply_s": 3.0, "fall_back_after": 20}
    chronicle = Chronicle()

    def fall_and_rise() -> None:
        for _ in range(2):
            time.sleep(0.7)
            every_broker.mosquittos[broker].kill()
            time.sleep(0.2)
            every_broker.mosquittos[broker].start()

    with meanwhile(fall_and_rise):
        report, made = run_fleet(every_broker.installation, {**fleet, **settings}, observe=chronicle)
    assert all_came_home(made), report.outcomes()
    one_set_each(every_broker, broker, [f"f31-{broker}-{number}" for number in range(3 * EACH)])
    assert max(chronicle.counts("CONNECT(account)").values()) < 60


def one_set_each(site: EveryBroker, account: str, client_ids: list[str]) -> None:
    """As ``credentials_made``, for many at once."""
    for client_id in client_ids:
        site.installation.await_state(client_id, "confirmed", timeout_s=20)
    made = [user["client_id"] for user in site.installation.listed("user.page", account=account)]
    assert [made.count(client_id) for client_id in client_ids] == [1] * len(client_ids)
    granted = [row["client_id"] for row in site.installation.audit("provision.granted")]
    assert [granted.count(client_id) for client_id in client_ids] == [1] * len(client_ids)
