"""The first moments of a service that was restarted: devices of its own account brokers are there before it is."""

import asyncio
import http.client
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from provisioner.account_brokers.callback_rabbitmq import RabbitMq
from provisioner.account_brokers.embedded import EmbeddedAccountBroker
from provisioner.account_brokers.http_callback import HttpCallbackBroker
from provisioner.account_brokers.http_server import HttpServer
from provisioner.model.ports import BrokerUser
from provisioner.model.secret import Secret
from provisioner.services.platform import USER_PURPOSE
from provisioner.vault.keyring import KeyRing
from tests.contracts.callback_site import BASIC, SECRET
from tests.contracts.mqtt_device import until
from tests.support.device import Wire
from tests.support.in_process import InProcess
from tests.support.installation import Installation

PUT_S = 0.4
SOON_S = 20.0
YES, GONE = "yes", "nobody there"


class SlowEmbedded(EmbeddedAccountBroker):
    """Takes its time for each user, as a million of them do."""

    async def put_user(self, user: BrokerUser) -> None:
        await asyncio.sleep(PUT_S)
        await super().put_user(user)


class SlowCallback(HttpCallbackBroker):
    async def put_user(self, user: BrokerUser) -> None:
        await asyncio.sleep(PUT_S)
        await super().put_user(user)


def callback(inside: InProcess, kind: type[HttpCallbackBroker] = HttpCallbackBroker) -> HttpCallbackBroker:
    ring = KeyRing.read(inside.folder / "keys/ring.json")
    port = inside.account_brokers["embedded"].port
    return kind(
        "embedded",
        RabbitMq(),
        lambda handler: HttpServer("127.0.0.1", port, handler),
        lambda stored, secret, id: ring.verify(stored, secret, USER_PURPOSE, id),
        lambda: datetime.now(UTC),
        secret=Secret(SECRET),
    )


def connect(inside: InProcess, answer: Mapping[str, Any]) -> str:
    """What a device is told at its embedded broker."""
    try:
        with Wire(inside.account_brokers["embedded"]) as wire:
            code = wire.connect(answer["client_id"], answer["username"], answer["password"])
            return YES if code == 0 else f"CONNACK {code}"
    except ConnectionRefusedError:
        return GONE


def ask(inside: InProcess, path: str, **fields: str) -> str:
    """What a RabbitMQ is told of a device."""
    connection = http.client.HTTPConnection("127.0.0.1", inside.account_brokers["embedded"].port, timeout=5)
    try:
        connection.request("POST", path, urlencode({"vhost": "/", **fields}), BASIC)
        answer = connection.getresponse().read().decode()
        return YES if answer == "allow" else answer
    except ConnectionRefusedError:
        return GONE
    finally:
        connection.close()


def provisioned(inside: InProcess) -> Mapping[str, Any]:
    inside.account()
    with inside.device(inside.request("gw1")) as device:
        answer: Mapping[str, Any] = device.ask()
    assert answer["status"] == "provisioned"
    return answer


@contextmanager
def trying(attempt: Callable[[], str]) -> Iterator[list[str]]:
    """Somebody who tries all the time until it succeeds; what came of it, in order."""
    heard: list[str] = []

    def work() -> None:
        until_s = time.monotonic() + SOON_S
        while YES not in heard and time.monotonic() < until_s:
            heard.append(attempt())
            time.sleep(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield heard
    finally:
        thread.join()


def stop(inside: InProcess) -> None:
    assert inside.service is not None
    inside.loop.run(inside.service.stop())
    inside.service = None


def test_f_31_nobody_is_refused_while_the_users_come_back(inside: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-31: a device that comes to its embedded broker at any moment of a restart finds nobody there or is let in."""
    inside.serve(monkeypatch, {"embedded": inside.embedded("embedded")})
    answer = provisioned(inside)
    assert connect(inside, answer) == YES
    inside.await_state("gw1", "confirmed")
    stop(inside)
    with trying(lambda: connect(inside, answer)) as heard:
        inside.serve(monkeypatch, {"embedded": inside.embedded("embedded", SlowEmbedded)})
    assert set(heard) == {GONE, YES}


def test_f_31_a_broker_that_asks_hears_no_no_while_the_users_come_back(
    inside: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-31: a broker that asks of a device at any moment of a restart gets no answer, which is an error to it, or yes;
    a no would send the device away, or end the connection that it has."""
    inside.serve(monkeypatch, {"embedded": callback(inside)})
    answer = provisioned(inside)
    who = {name: answer[name] for name in ("username", "client_id")}
    login = {**who, "password": answer["password"]}
    assert ask(inside, "/user", **login) == ask(inside, "/vhost", **who) == YES
    inside.await_state("gw1", "confirmed")
    topic = {"username": who["username"], "variable_map.client_id": "gw1", "routing_key": "acme.gw1.x"}
    topic |= {"name": "amq.topic", "resource": "topic", "permission": "write"}
    stop(inside)
    with trying(lambda: ask(inside, "/user", **login)) as heard, trying(lambda: ask(inside, "/topic", **topic)) as told:
        inside.serve(monkeypatch, {"embedded": callback(inside, SlowCallback)})
    assert set(heard) == set(told) == {GONE, YES}


def test_nobody_is_connected_to_a_broker_that_has_just_begun(make_installation: Callable[..., Installation]) -> None:
    """Case 3: whoever was connected to the embedded broker when the service died is disconnected since the start, and
    connected again as soon as it comes."""
    installation = make_installation()

    def status(client_id: str) -> Mapping[str, Any]:
        shown: Mapping[str, Any] = installation.ask("device.show", id=client_id)
        return shown

    with installation.running():
        installation.account()
        gone, back = (installation.provision(installation.request(name)) for name in ("gw1", "gw2"))
        with installation.account_wire(gone), installation.account_wire(back):
            assert until(lambda: {status(each)["status"] for each in ("gw1", "gw2")} == {"connected"})
            installation.kill()
        killed_at = datetime.now(UTC)
        installation.start()
        with installation.account_wire(back):
            assert until(lambda: status("gw1")["status"] == "disconnected")
            assert until(lambda: status("gw2")["status"] == "connected")
            assert datetime.fromisoformat(status("gw1")["status_at"]) > killed_at
            assert datetime.fromisoformat(status("gw1")["last_seen_at"]) < killed_at
