"""Three gates on one PostgreSQL behind HAProxy, as docs/many-gates.md sets them up, and RabbitMQ (D12)."""

import asyncio
import itertools
import multiprocessing
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broker.loop import open_files_max
from device_sim.fleet import Fleet
from device_sim.scenario import parse
from tests.support.crowd import await_confirmed, crowd, meanwhile
from tests.support.device import Address, Credentials, JsonDevice, Wire
from tests.support.fleet import QUICK
from tests.support.haproxy import Haproxy, passing
from tests.support.many_gates import Gate, ManyGates
from tests.support.ports import free_ports
from tests.support.postgres import PostgresServer, running_postgres
from tests.support.rabbit_cluster import RabbitCluster, rabbit_settings, write_rabbit_secrets

FreshId = Callable[[], str]
BROKER = "rabbit"
SEEN_S = 2.0
RACES = 50


@dataclass
class Site:
    """Account acme lives on the cluster. home: where its devices are."""

    many: ManyGates
    postgres: PostgresServer
    home: Address

    @property
    def first(self) -> Gate:
        return self.many.gates[0]

    def provision(self, credentials: Credentials) -> dict[str, str]:
        return dict(self.first.provision(credentials, broker=BROKER))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, rabbit: RabbitCluster) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("many")
    (port,) = free_ports(1)
    behind = [(node.mqtt, "check inter 500") for node in rabbit.nodes]
    settings = rabbit_settings(rabbit, BROKER, port)
    with running_postgres() as postgres:
        many = ManyGates(folder, postgres, [settings], callback_port=rabbit.callback_port)
        write_rabbit_secrets(rabbit, BROKER, many.first.folder)
        home = Address(port)
        for gate in many.gates:
            gate.account_brokers = {BROKER: home}
        with Haproxy(folder, passing({port: behind}), [port], name="home"), many:
            many.gates[0].account("acme", BROKER)
            until(
                lambda: all(len(gate.ask("status")["gates"]) == 3 for gate in many.gates), "the gates know each other"
            )
            yield Site(many, postgres, home)


def until(condition: Callable[[], bool], what: str, within_s: float = 10.0) -> None:
    until_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until_s, f"did not happen in time: {what}"
        time.sleep(0.02)


def connections(gate: Gate) -> list[int]:
    """How many this gate believes that each gate has."""
    return [each["connections"] for each in gate.ask("status")["gates"]]


def fall_and_rise(site: Site, gate: Gate, confirmed: int, *, with_postgres: bool) -> None:
    """Once so many devices are confirmed the gate is killed, and started again; in between PostgreSQL is, if wanted."""
    other = next(each for each in site.many.gates if each is not gate)
    until(lambda: other.ask("status")["requests"]["confirmed"] >= confirmed, "devices come in", 40.0)
    gate.kill()
    time.sleep(0.5)
    if with_postgres:
        site.postgres.stop(signal.SIGINT)
        site.postgres.start()
    gate.start()


def come_in(scenario: dict[str, Any], folder: Path) -> tuple[bool, Any]:
    """What came of a fleet, and how its devices ended. In a process of its own: each device has a few descriptors, and
    the administrators' client takes none beyond 1,023."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        return apart.submit(_come_in, scenario, folder).result()


def _come_in(scenario: dict[str, Any], folder: Path) -> tuple[bool, Any]:
    open_files_max()
    report = asyncio.run(Fleet(parse(scenario), folder, lambda who, log: None).run())
    return report.is_met, report.outcomes()


def walk(site: Site, count: int, over_s: float, deadline_s: float) -> None:
    """A fleet of that many comes in for each gate that dies; every device is confirmed, once."""
    before = site.first.ask("status")
    for gate in site.many.gates:
        prefix = f"fleet{count}-{gate.number}"
        plan = crowd(site.first, site.first.folder, count, prefix=prefix) | {
            "arrival": {"pattern": "uniform", "over_s": over_s},
            "timeouts": QUICK | {"reply_s": 3.0, "backoff_cap_s": 2.0},
            "stay_s": 0,
        }
        scenario = {"gate": f"mqtt://localhost:{site.many.front.port}", "deadline_s": deadline_s, "seed": 1}
        some = site.first.ask("status")["requests"]["confirmed"] + count // 10
        with meanwhile(partial(fall_and_rise, site, gate, some, with_postgres=gate.number == 2)):
            is_met, outcomes = come_in({**scenario, "fleets": [plan]}, site.first.folder)
        assert is_met, outcomes
    total = count * len(site.many.gates)
    states = before["requests"]
    await_confirmed(site.first, total + sum(states.values()) - states.get("revoked", 0), 20.0)
    after = site.first.ask("status")
    assert after["devices"] - before["devices"] == total, "a duplicate, or one is missing"
    made = [user["client_id"] for user in site.first.listed("user.page", account="acme")]
    assert [client_id for client_id, times in Counter(made).items() if times > 1] == []
    confirmed = Counter(row["client_id"] for row in site.first.audit("provision.confirmed"))
    assert {times for client_id, times in confirmed.items() if client_id.startswith("fleet")} == {1}
    for gate in site.many.gates:
        until(lambda gate=gate: gate.ask("fsck")["findings"] == [], f"gate {gate.number} is consistent")


def test_f_27_a_fleet_is_confirmed_while_gates_and_the_store_die(site: Site) -> None:
    """AZ-08: three hundred devices while each gate in turn is killed and started again and PostgreSQL is restarted:
    all confirmed, none twice, and every gate agrees with the records."""
    walk(site, 100, over_s=4.0, deadline_s=60)


@pytest.mark.soak
@pytest.mark.timeout(420)
def test_f_27_two_thousand_devices_are_confirmed_while_gates_and_the_store_die(site: Site) -> None:
    """EC-41: the same with two thousand."""
    walk(site, 667, over_s=20.0, deadline_s=120)


def test_f_08_what_is_revoked_at_one_gate_is_cut_at_every_gate(site: Site, fresh_id: FreshId) -> None:
    """A device waits at each gate; what is revoked, deleted, re-armed or switched off at one of them is cut at all of
    them within two seconds."""
    verbs = ("request.revoke", "request.delete", "request.rearm")
    for asked, verb in zip(itertools.cycle(site.many.gates), verbs, strict=False):
        devices = [JsonDevice(gate.direct, site.first.request(fresh_id())) for gate in site.many.gates]
        for device in devices:
            asked.ask(verb, id=device.credentials.client_id)
        until_s = time.monotonic() + SEEN_S
        for device in devices:
            with device:
                assert device.wire.is_cut(max(0.01, until_s - time.monotonic())), verb
    site.first.account("closing", BROKER)
    devices = [JsonDevice(g.direct, site.first.request(fresh_id(), account="closing")) for g in site.many.gates]
    site.many.gates[2].ask("account.update", id="closing", fields={"enabled": False})
    until_s = time.monotonic() + SEEN_S
    for device in devices:
        with device:
            assert device.wire.is_cut(max(0.01, until_s - time.monotonic()))


def test_f_08_a_disabled_device_is_refused_by_whichever_gate_its_broker_asks(site: Site, fresh_id: FreshId) -> None:
    """Disabling at one gate cuts the device on RabbitMQ, and within two seconds no gate says yes to it any more;
    enabling at another one lets it in again at once, whoever is asked."""
    answer = site.provision(site.first.request(fresh_id()))
    with site.first.account_wire(answer, BROKER) as wire:
        site.many.gates[1].ask("device.disable", id=answer["client_id"])
        assert wire.is_cut(SEEN_S)
    # Which gate is asked is HAProxy's choice: six refusals in a row come from all of them.
    until(lambda: all(is_refused(site, answer) for _ in range(6)), "no gate says yes any more", SEEN_S)
    site.many.gates[2].ask("device.enable", id=answer["client_id"])
    for _ in range(6):
        site.first.account_wire(answer, BROKER).close()


def is_refused(site: Site, answer: dict[str, str]) -> bool:
    try:
        site.first.account_wire(answer, BROKER).close()
    except ConnectionRefusedError:
        return True
    return False


class Racer:
    """One of two devices with the same login; cut by the other one's arrival it comes back until it is answered, later
    each time: else the two cut each other for ever where the gates are slower than they."""

    def __init__(self, gate: Gate, credentials: Credentials) -> None:
        self._gate, self._credentials = gate, credentials
        self.device: JsonDevice | None = None
        self.status = "unanswered"

    def walk(self, start: threading.Barrier) -> None:
        start.wait()
        until_s, pause_s = time.monotonic() + 30, 0.05 * self._gate.number
        while self.status == "unanswered" and time.monotonic() < until_s:
            try:
                self.device = JsonDevice(self._gate.direct, self._credentials)
                self.status = str(self.device.ask(f"m-{self._gate.number}")["status"])
            except (OSError, AssertionError):
                if self.device is not None:
                    self.device.wire.close()
                time.sleep(pause_s)
                pause_s *= 1.5


def test_f_16_of_two_gates_that_race_for_one_client_id_one_wins(site: Site, fresh_id: FreshId) -> None:
    """Fifty pairs at once, each pair one client id at two gates: exactly one of each is provisioned, the other one is
    told of the conflict, an alert is raised, and there is one user."""
    pairs = [
        [Racer(gate, credentials) for gate in site.many.gates[:2]]
        for credentials in (site.first.request(fresh_id()) for _ in range(RACES))
    ]
    racers = [racer for pair in pairs for racer in pair]
    start = threading.Barrier(len(racers))
    threads = [threading.Thread(target=racer.walk, args=(start,)) for racer in racers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    try:
        assert Counter(tuple(sorted(racer.status for racer in pair)) for pair in pairs) == {
            ("conflict", "provisioned"): RACES
        }
        alerts = site.first.await_audit("alert.client_id_contended", RACES)
        contended = {pair[0]._credentials.client_id for pair in pairs}
        assert contended <= {row["client_id"] for row in alerts}
        made = Counter(user["client_id"] for user in site.first.listed("user.page", account="acme"))
        assert {made[client_id] for client_id in contended} == {1}
    finally:
        for racer in racers:
            if racer.device is not None:
                racer.device.wire.close()


def test_f_16_the_newest_connection_wins_at_whichever_gate_it_is(site: Site, fresh_id: FreshId) -> None:
    """A connection at another gate takes over from one that waits; while one is being answered it stays, and the other
    one is told `conflict` until it is through."""
    credentials, (one, two, _) = site.first.request(fresh_id()), site.many.gates
    until(lambda: connections(one) == connections(two) == [0, 0, 0], "all earlier devices have left")
    with JsonDevice(one.direct, credentials) as older:
        until(lambda: sum(connections(two)) == 1, "it is known at the other gates")
        newer = JsonDevice(two.direct, credentials)
        assert older.wire.is_cut(SEEN_S)
    with newer:
        first = newer.ask("m-1")
        assert first["status"] == "provisioned"
        with JsonDevice(one.direct, credentials) as contender:
            assert contender.ask("m-2")["status"] == "conflict"
            newer.acknowledge("m-1")
            newer.wire.leave()
            answers = [contender.ask("m-3")]
            until(lambda: _asks_again(contender, answers), "it is told at the other gate that the newer one is through")
    assert (answers[-1]["status"], answers[-1]["password"]) == ("provisioned", first["password"])
    taken = site.first.await_audit("connection.taken_over", client_id=credentials.client_id)
    assert {row["reason"] for row in taken} == {"newer_connection"}


def _asks_again(device: JsonDevice, answers: list[dict[str, Any]]) -> bool:
    """Until the last of its answers is not a conflict."""
    if answers[-1]["status"] == "conflict":
        answers.append(device.ask("m-3"))
    return answers[-1]["status"] != "conflict"


def test_f_15_the_answer_of_a_killed_gate_is_given_by_another_one(site: Site, fresh_id: FreshId) -> None:
    """A gate dies with its answer on the way: the same question gets the same answer at the next gate, within the time
    in which a silent gate is given up."""
    credentials, dying = site.first.request(fresh_id()), site.many.gates[2]
    with JsonDevice(dying.direct, credentials) as device:
        answer = device.ask("m-1")
    with JsonDevice(dying.direct, credentials) as device:
        device.ask("m-1")
        dying.kill()
    try:
        started_s = time.monotonic()
        with JsonDevice(site.many.gates[0].direct, credentials) as device:
            assert device.ask("m-1") == answer
        assert time.monotonic() - started_s < 3 * SEEN_S
    finally:
        dying.start()


def test_f_19_a_lockout_holds_at_every_gate(site: Site, fresh_id: FreshId) -> None:
    """Guesses at one gate lock that login out at all of them, sooner than ten each; from another address the
    device gets in."""
    credentials = site.first.request(fresh_id())
    name, source = credentials.client_id, "127.0.0.99"
    for _ in range(5):
        with Wire(Address(site.first.direct.port, source=source)) as wire:
            assert wire.connect(name, credentials.username, "Wrong-password-1") != 0
    site.first.await_audit("connect.locked_out", client_id=name)
    for gate in site.many.gates[1:]:

        def is_locked(gate: Gate = gate) -> bool:
            with Wire(Address(gate.direct.port, source=source)) as wire:
                return wire.connect(name, credentials.username, credentials.password) != 0

        until(is_locked, f"gate {gate.number} has locked it out", SEEN_S)
        with JsonDevice(gate.direct, credentials):
            pass


def test_d12_the_balancer_spreads_devices_and_names_them(site: Site, fresh_id: FreshId) -> None:
    """Behind HAProxy the audit log has each device's own address, and no device notices which gate it is at."""
    for number in range(6):
        credentials = site.first.request(fresh_id())
        address = Address(site.many.front.port, source=f"127.0.0.{20 + number}")
        with JsonDevice(address, credentials) as device:
            assert device.ask()["status"] == "provisioned"
        rows = site.first.await_audit("provision.granted", client_id=credentials.client_id)
        assert [row["address"] for row in rows] == [address.source]


def test_the_selftest_of_each_gate_passes(site: Site) -> None:
    """The throw-away devices of one gate's self-test are known to all for as long as it lasts, since RabbitMQ asks any
    of them; two self-tests at once do not disturb each other, and nothing is left."""
    results: dict[int, list[str]] = {}

    def prove(gate: Gate) -> None:
        found = gate.ask("selftest", patience_s=90)
        results[gate.number] = [f"{c['name']}: {c['detail']}" for c in found["checks"] if not c["passed"]]

    threads = [threading.Thread(target=prove, args=(gate,)) for gate in site.many.gates[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert results == {1: [], 2: []}
    for gate in site.many.gates:
        assert gate.ask("fsck")["findings"] == []
