"""A real mosquitto in the place of the gate, configured by the file at the root: devices walk through it, and what is
promised at the gate holds there as far as docs/mosquitto-as-gate.md says."""

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from broker.packets import V311, PubAck, Publish, Will
from tests.support.crowd import await_confirmed, crowd, meanwhile
from tests.support.device import Credentials, JsonDevice, Wire
from tests.support.fleet import QUICK, fleet_of, run_fleet
from tests.support.installation import Installation
from tests.support.mosquitto_gate import MosquittoGate, await_link, connected, login

FreshId = Callable[[], str]
Site = tuple[Installation, MosquittoGate]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Running, with account acme."""
    gate = MosquittoGate(tmp_path_factory.mktemp("site") / "installation")
    installation = gate.installation()
    with gate, installation.running():
        await_link(installation)
        installation.account()
        yield installation, gate


@pytest.fixture
def new_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Sites of the test's own, not yet started."""
    made: list[Site] = []

    def make(**options: Any) -> Site:
        gate = MosquittoGate(tmp_path / f"installation-{len(made)}", **options)
        made.append((gate.installation(), gate))
        return made[-1]

    yield make
    for installation, gate in made:
        if installation.process is not None and installation.process.poll() is None:
            installation.kill()
        gate.stop()


def test_fleets_of_every_kind_walk_through(site: Site, fresh_id: FreshId) -> None:
    """EC-36: devices of the native dialect, ESF devices with a key and stock Kura gateways end confirmed, over TLS."""
    installation, _ = site
    fleets = []
    for kind in ("json", "esf", "kura"):
        for _ in range(5):
            credentials = installation.request(fresh_id(), activation_key=kind != "kura")
            fleets.append(fleet_of(credentials, kind=kind))
    report, _ = run_fleet(installation, *fleets, scheme="mqtts")
    assert report.is_met, report.outcomes()
    for fleet in fleets:
        installation.await_state(fleet["name"], "confirmed")
        assert len(installation.users_of(fleet["name"])) == 1


def test_package_is_installed_before_the_configuration(site: Site, fresh_id: FreshId) -> None:
    """EC-35: a gateway's replies and notices on the provisioner's own topics find the dialogue that they belong to."""
    installation, _ = site
    package = {"name": "heater", "version": "1.0", "url": "https://x/heater.dp", "sha256": "0" * 64}
    credentials = installation.request(fresh_id(), packages=[package])
    report, _ = run_fleet(installation, fleet_of(credentials, kind="kura"))
    assert report.is_met, report.outcomes()
    installation.await_state(credentials.client_id, "confirmed")
    (taken,) = installation.await_audit("provision.taken", client_id=credentials.client_id)
    assert [name.split()[0] for name in taken["details"]["packages"]] == ["heater"]


def test_spy_receives_nothing(site: Site, fresh_id: FreshId) -> None:
    """EC-05, F-02, F-04: a device that subscribes to everything there is hears nothing of others, answers included."""
    installation, _ = site
    spy = installation.request(fresh_id())
    victims = [installation.request(fresh_id()) for _ in range(3)]
    one = victims[0].client_id
    filters = ["#", "+/#", "$EDC/#", "$SYS/#", "prov/#", "prov/v1/+/response", f"prov/v1/{one}/response"]
    filters += [f"$EDC/provision/{one}/#", "$share/g/prov/v1/+/response", f"$share/g/prov/v1/{one}/response"]
    with login(installation, spy) as wire:
        wire.subscribe(*filters)
        report, _ = run_fleet(
            installation, *(fleet_of(each) for each in victims[:2]), fleet_of(victims[2], kind="kura")
        )
        assert report.is_met, report.outcomes()
        assert [message.topic for message in wire.heard()] == []


def test_spy_can_say_nothing_in_the_name_of_others(site: Site, fresh_id: FreshId) -> None:
    """EC-04, F-01: what a device publishes or leaves as a Will on another one's topics reaches nobody."""
    installation, _ = site
    spy, victim = installation.request(fresh_id()), installation.request(fresh_id())
    response = f"prov/v1/{victim.client_id}/response"
    with connected(installation, victim) as device:
        with login(installation, spy, will=Will(response, b"{}", 1, False)) as wire:
            question = json.dumps({"request_id": "forged"}).encode()
            for topic in (f"prov/v1/{victim.client_id}/request", response, "$SYS/broker", "ctl/v1/admin/request"):
                wire.publish(topic, question)
            wire.close()
        answer = device.ask("own")
        assert answer["status"] == "provisioned" and answer["request_id"] == "own"
        assert device.wire.heard() == []
    assert len(installation.audit("provision.granted", client_id=victim.client_id)) == 1


def test_f_05_another_devices_client_id_gets_nobody_thrown_out(site: Site, fresh_id: FreshId) -> None:
    """F-05: a valid login under another device's client id is itself and no other: the rightful device stays
    connected, hears nothing of it and is provisioned."""
    installation, _ = site
    victim, intruder = installation.request(fresh_id()), installation.request(fresh_id())
    forged = Credentials(client_id=victim.client_id, username=intruder.username, password=intruder.password)
    with connected(installation, victim) as device, login(installation, forged, known_as=intruder) as wire:
        wire.subscribe(f"prov/v1/{victim.client_id}/response")
        wire.publish(f"prov/v1/{victim.client_id}/request", json.dumps({"request_id": "forged"}).encode())
        assert device.ask("own")["status"] == "provisioned"
        assert wire.heard() == []
    wrong = Wire(installation.plain)
    assert wrong.connect(victim.client_id, victim.username, "Wrong-password-1") == 5
    wrong.close()


def test_f_06_no_session_is_there_to_be_taken_over(site: Site, fresh_id: FreshId) -> None:
    """F-06: an answer that waits in the session of an absent device is not there for whoever comes under its id."""
    installation, _ = site
    victim, intruder = installation.request(fresh_id()), installation.request(fresh_id())
    forged = Credentials(client_id=victim.client_id, username=intruder.username, password=intruder.password)
    base = f"prov/v1/{victim.client_id}"
    with login(installation, victim, clean=False) as wire:
        wire.subscribe(f"{base}/response")
        wire.publish(f"{base}/request", json.dumps({"request_id": "m-1"}).encode(), wait=False)
        wire.next(PubAck)
    installation.await_audit("provision.granted", client_id=victim.client_id)
    with login(installation, forged, known_as=intruder, clean=False) as wire:
        assert wire.greeting is not None and not wire.greeting.session_present
        wire.subscribe(f"{base}/response")
        assert wire.heard() == []
    with login(installation, victim, clean=False) as wire:
        message = wire.message()
        assert message is not None and json.loads(message.payload)["status"] == "provisioned", "it did wait there"


def test_f_07_nothing_is_retained(site: Site, fresh_id: FreshId) -> None:
    """F-07: a question with the retain flag is refused and audited, and whoever subscribes after an answer finds
    nothing."""
    installation, _ = site
    credentials = installation.request(fresh_id())
    with connected(installation, credentials) as device:
        device.wire.publish(f"{device.base}/request", device.payload("kept"), retain=True)
        installation.await_audit("publish.refused", client_id=credentials.client_id, reason="retain")
        assert device.ask("m-1")["status"] == "provisioned"
    with connected(installation, credentials) as device:
        assert device.wire.heard() == []


def test_f_26_a_question_delivered_twice_has_one_answer(site: Site, fresh_id: FreshId) -> None:
    """F-26: the same PUBLISH again with DUP set brings the same bytes, and there is one user."""
    installation, _ = site
    credentials = installation.request(fresh_id())
    with connected(installation, credentials) as device:
        question = Publish(f"{device.base}/request", device.payload("m-1"), qos=1, packet_id=77)
        again = Publish(question.topic, question.payload, qos=1, packet_id=77, dup=True)
        device.wire.send(question, again, again)
        messages = [device.wire.message() for _ in range(3)]
    (answer,) = {message.payload for message in messages if message is not None}
    assert all(messages) and json.loads(answer)["status"] == "provisioned"
    assert len(installation.users_of(credentials.client_id)) == 1
    assert len(installation.audit("provision.granted", client_id=credentials.client_id)) == 1


def test_f_29_acknowledgement_is_lost(site: Site, fresh_id: FreshId) -> None:
    """F-29: the device's first connection at its account broker closes the request; its late word changes nothing, and
    its factory login is over."""
    installation, _ = site
    credentials = installation.request(fresh_id())
    with connected(installation, credentials) as device:
        answer = device.ask("m-1")
        with installation.account_wire(answer):
            installation.await_state(credentials.client_id, "confirmed")
        device.wire.send(Publish(f"{device.base}/ack", b'{"request_id":"m-1","result":"failed"}', qos=1, packet_id=9))
        assert device.wire.is_cut(), "the login is gone, and the connection with it"
    with pytest.raises(ConnectionRefusedError):
        JsonDevice(installation.plain, credentials)
    assert installation.state(credentials.client_id) == "confirmed"


def test_revoked_request_is_cut_within_two_seconds(site: Site, fresh_id: FreshId) -> None:
    """F-08: revoking ends the connection and the login within two seconds, and nobody else's."""
    installation, _ = site
    revoked, other = installation.request(fresh_id()), installation.request(fresh_id())
    with connected(installation, revoked) as device, connected(installation, other) as neighbour:
        installation.ask("request.revoke", id=revoked.client_id)
        assert device.wire.is_cut(2.0)
        assert neighbour.ask("m-1")["status"] == "provisioned"
    with pytest.raises(ConnectionRefusedError):
        JsonDevice(installation.plain, revoked)
    installation.ask("request.rearm", id=revoked.client_id)
    with connected(installation, revoked) as device:
        assert device.ask("m-2")["status"] == "provisioned"
    installation.ask("request.delete", id=revoked.client_id)
    with pytest.raises(ConnectionRefusedError):
        _until_refused(installation, revoked)


def test_f_27_devices_ask_while_the_service_is_down(new_site: Callable[..., Site], tmp_path: Path, seed: int) -> None:
    """F-27: what is asked while nobody is there waits at the broker or is asked again; all end confirmed without a
    hand."""
    installation, gate = new_site()
    with gate:
        with installation.running():
            await_link(installation)
            installation.account()
            fleet = crowd(installation, tmp_path, 40)
            gate.await_user("user-crowd-39")
        arrival, chance = {"pattern": "uniform", "over_s": 1.0}, random.Random(f"{seed}/return")

        def come_back() -> None:
            time.sleep(chance.uniform(1.1, 1.9))
            installation.start()

        with meanwhile(come_back):
            report, _ = run_fleet(installation, {**fleet, "arrival": arrival, "timeouts": QUICK}, seed=seed)
        assert report.is_met, report.outcomes()
        assert report.elapsed_s < 60
        await_confirmed(installation, 40)
        assert len(installation.listed("user.page", account="acme")) == 40
        assert installation.ask("fsck") == {"findings": []}
        assert installation.stop() == 0


def test_f_31_mosquitto_restarts_in_the_middle_of_a_fleet(
    new_site: Callable[..., Site], tmp_path: Path, seed: int
) -> None:
    """F-31: mosquitto is killed and started again while a fleet arrives; the provisioner joins it anew, all end
    confirmed, and nothing is issued twice."""
    installation, gate = new_site()
    chance = random.Random(f"{seed}/falls")
    with gate, installation.running():
        await_link(installation)
        installation.account()
        fleet = crowd(installation, tmp_path, 60)
        gate.await_user("user-crowd-59")

        def fall_and_rise() -> None:
            for _ in range(2):
                time.sleep(chance.uniform(0.5, 0.9))
                gate.kill()
                time.sleep(0.2)
                gate.start()

        with meanwhile(fall_and_rise):
            arrival = {"pattern": "uniform", "over_s": 2.5}
            settings = {**fleet, "arrival": arrival, "timeouts": {**QUICK, "reply_s": 2.0}}
            report, _ = run_fleet(installation, settings, seed=seed)
        assert report.is_met, report.outcomes()
        await_confirmed(installation, 60)
        assert len(installation.listed("user.page", account="acme")) == 60
        await_link(installation)


@pytest.mark.parametrize("point", ["before_commit", "after_commit", "after_apply", "after_answer"])
def test_killed_service_is_delivered_the_question_again(new_site: Callable[..., Site], point: str) -> None:
    """F-23, F-24: the question is acknowledged after its answer is durable, so that a service killed anywhere before
    hears it again: the device asks once, is answered, and there is one credential."""
    installation, gate = new_site()
    with gate:
        with installation.running():
            await_link(installation)
            installation.account()
            credentials = installation.request("dev1")
            gate.await_user(credentials.username)
        installation.start(FLEETGATE_CRASH_AT=point)
        await_link(installation)
        with connected(installation, credentials) as device:
            device.wire.publish(f"{device.base}/request", device.payload("m-1"))
            installation.wait_for_death()
            installation.start()
            message = device.wire.message()
            assert message is not None, "no answer came"
            answer = json.loads(message.payload)
        assert answer["status"] == "provisioned" and answer["request_id"] == "m-1"
        assert len(installation.users_of("dev1")) == 1
        assert len(installation.audit("provision.granted", client_id="dev1")) == 1
        with installation.account_wire(answer):
            installation.await_state("dev1", "confirmed")
        installation.stop()


def _until_refused(installation: Installation, credentials: Credentials) -> None:
    until_s = time.monotonic() + 2.0
    while time.monotonic() < until_s:
        with suppress(ConnectionAbortedError, ConnectionResetError, BrokenPipeError):  # let in, and cut at once
            JsonDevice(installation.plain, credentials, V311).wire.close()
        time.sleep(0.02)
