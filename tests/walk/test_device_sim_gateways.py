"""Simulated ESF and Kura gateways over real sockets, provisioned by the platform's own dialect through mosquitto."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from device_sim.device_apps import DATA_SERVICE_PID, TRANSPORT_PID
from device_sim.fleet import Fleet
from device_sim.scenario import parse
from provisioner.dialects.esf import Esf, EsfSettings
from provisioner.model.messages import Answer, Delivery, Outgoing, ProvisionMessage, Status
from provisioner.model.ports import Exchange
from provisioner.model.request import Package
from provisioner.model.secret import Secret
from tests.contracts.mqtt_device import until
from tests.walk.mosquitto_site import (
    ACCOUNT,
    ACCOUNT_PASSWORD,
    FACTORY,
    FACTORY_PASSWORD,
    SERVICE,
    SERVICE_PASSWORD,
    Site,
    running_site,
)

PACKAGE = Package(name="heater", version="1.0", url="https://x/heater.dp", sha256="0" * 64)


class Platform:
    """Answers every trigger with a delivery, and repeats its requests as the dialect tells it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.born: set[str] = set()
        self.exchanges: dict[str, Exchange] = {}
        self._dialect = Esf(EsfSettings())
        self._serial = 0
        self.ready = threading.Event()
        self.stopped = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="esf-platform")
        self._client.username_pw_set(SERVICE, SERVICE_PASSWORD)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *rest: client.subscribe("$EDC/#", qos=1)
        self._client.on_subscribe = lambda *rest: self.ready.set()

    def work(self) -> None:
        self._client.connect("127.0.0.1", self.site.ports["plain"])
        while not self.stopped.is_set():
            self._client.loop(timeout=0.05)
            for exchange in self.exchanges.values():
                self._send(exchange.tick(time.monotonic()))
        self._client.disconnect()

    def _on_message(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        _, account, client_id, *_rest = message.topic.split("/")
        if account != "provision":
            self.born.add(client_id)
            return
        now_s = time.monotonic()
        for exchange in self.exchanges.values():
            if message.topic in exchange.expected_topics():
                self._send(exchange.receive(message.topic, bytes(message.payload), now_s))
                return
        self._serial += 1
        asked = self._dialect.decode(client_id, message.topic, bytes(message.payload), f"{self._serial:032x}")
        if isinstance(asked, ProvisionMessage) and client_id not in self.exchanges:
            self.exchanges[client_id] = self._exchange(client_id, asked)
            self._send(self.exchanges[client_id].start(now_s))

    def _exchange(self, client_id: str, asked: ProvisionMessage) -> Exchange:
        transport: dict[str, Any] = {
            "broker-url": self.site.plain,
            "topic.context.account-name": "acme",
            "client-id": client_id,
            "username": ACCOUNT,
            "password": {"type": "Password", "value": ACCOUNT_PASSWORD},
        }
        delivery = Delivery(
            device_id=client_id,
            account="acme",
            broker_url=self.site.plain,
            client_id=client_id,
            username=ACCOUNT,
            password=Secret(ACCOUNT_PASSWORD),
            configuration={TRANSPORT_PID: transport, DATA_SERVICE_PID: {"connect.auto-on-startup": True}},
            packages=(PACKAGE,),
        )
        answer = Answer(
            status=Status.PROVISIONED,
            message_id=asked.message_id,
            server_time=datetime.now(UTC),
            delivery=delivery,
        )
        ids = [f"{client_id}-{n:032x}" for n in range(self._dialect.ids_needed(answer))]
        return self._dialect.exchange(client_id, asked, answer, ids)

    def _send(self, messages: Any) -> None:
        message: Outgoing
        for message in messages:
            self._client.publish(message.topic, message.payload, qos=1)


@pytest.fixture
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running_site(tmp_path_factory.mktemp("site")) as site:
        platform = Platform(site)
        thread = threading.Thread(target=platform.work)
        thread.start()
        try:
            assert platform.ready.wait(10), "the platform did not get its subscription"
            yield platform
        finally:
            platform.stopped.set()
            thread.join(10)


def test_gateways_of_both_kinds_walk_through(platform: Platform) -> None:
    """Both kinds take package and configuration, leave by themselves a little later, and are born in their account."""
    login = {"username": FACTORY, "password": FACTORY_PASSWORD, "timeouts": {"apply_delay_s": 0.2}}
    fleets = [{**login, "kind": kind, "count": 5, "client_id": kind + "-{n}"} for kind in ("esf", "kura")]
    fleet = Fleet(parse({"gate": platform.site.plain, "deadline_s": 40, "fleets": fleets}))
    report = asyncio.run(fleet.run())
    assert report.is_met, report
    assert {exchange.failure for exchange in platform.exchanges.values()} == {None}
    everybody = {f"{kind}-{n}" for kind in ("esf", "kura") for n in range(1, 6)}
    assert until(lambda: platform.born == everybody), platform.born
    for runner in (runner for runners in fleet.runners for runner in runners):
        assert runner.device.state.settings is not None
        assert runner.device.state.settings.packages == ("heater 1.0",)
