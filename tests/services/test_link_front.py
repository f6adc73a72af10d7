"""What the service makes of messages that bring nothing but their topic: whose they are, in turn, and for how long a
device is remembered."""

import asyncio
import json
from dataclasses import replace
from typing import Any, cast

import pytest

from provisioner import link_front
from provisioner.dialects.esf import Esf, EsfSettings
from provisioner.dialects.json_v1 import JsonV1
from provisioner.dialects.kura_payload import KuraPayload, decode, encode, metric
from provisioner.link.mosquitto import Handler, MosquittoLink
from provisioner.link.topics import LinkTopics
from provisioner.link_front import LinkFront
from provisioner.services.provisioning import Provisioning
from tests.services.world import World, in_world

ADA = "admin:ada"
TO_US = "$EDC/provision/fleetgate"


class Link:
    """Takes what is sent."""

    is_up = True

    def __init__(self, received: Handler) -> None:
        self.received = received
        self.sent: list[tuple[str, bytes]] = []

    def send(self, topic: str, payload: bytes) -> bool:
        self.sent.append((topic, payload))
        return True

    async def start(self) -> None:
        pass

    async def stop(self, grace_s: float) -> None:
        pass

    async def say(self, topic: str, payload: bytes = b"", *, retain: bool = False) -> list[tuple[str, bytes]]:
        """What is sent while the message is handled."""
        before = len(self.sent)
        await self.received(topic, payload, retain)
        return self.sent[before:]

    async def ask(self, client_id: str, message_id: str = "m1", **fields: Any) -> str | None:
        """The status of the answer; None: there was none."""
        payload = json.dumps({"request_id": message_id, **fields}).encode()
        sent = await self.say(f"prov/v1/{client_id}/request", payload)
        if not sent:
            return None
        ((topic, answer),) = sent
        assert topic == f"prov/v1/{client_id}/response"
        return str(json.loads(answer)["status"])


def linked(world: World) -> tuple[LinkFront, Link]:
    dialects = (JsonV1(), Esf(EsfSettings()))
    platform = replace(world.platform, dialects=dialects)
    made: list[Link] = []

    def connect(received: Handler) -> MosquittoLink:
        made.append(Link(received))
        return cast("MosquittoLink", made[0])

    provisioning = Provisioning(platform, world.effects)
    front = LinkFront(platform, provisioning, LinkTopics(dialects), connect, "mqtts://broker.example")
    return front, made[0]


@in_world
async def test_topic_leads_to_the_request(world: World) -> None:
    """The open request of the client id in the topic is asked for; without one nothing is answered, and it is noted."""
    _, link = linked(world)
    await world.request("gw1")
    assert await link.ask("gw1") == "provisioned"
    assert await link.ask("gw2") is None
    (refused,) = await world.audit("publish.refused")
    assert (refused.client_id, refused.reason, refused.address) == ("gw2", "no_request", "mqtts://broker.example")
    (granted,) = await world.audit("provision.granted")
    assert granted.client_id == "gw1"


@in_world
async def test_confirmed_device_is_told_so_and_a_new_request_counts(world: World) -> None:
    """F-14: what is confirmed is answered so while its login is still there; a request made anew is a new device."""
    front, link = linked(world)
    made = await world.request("gw1")
    await world.confirmed(made)
    assert await link.ask("gw1") == "already_provisioned"
    await world.requests.delete(ADA, made.request.id)
    front.kick(made.request.id)
    await world.request("gw1")
    assert await link.ask("gw1", "m2") == "provisioned"


@in_world
async def test_request_made_anew_is_found_without_a_kick(world: World) -> None:
    """Whose request a client id is, is looked up for each message."""
    front, link = linked(world)
    made = await world.request("gw1")
    assert await link.ask("gw1") == "provisioned"
    await world.requests.delete(ADA, made.request.id)
    assert await link.ask("gw1") is None
    assert front.connections() == ()
    again = await world.request("gw1", username="another")
    assert await link.ask("gw1") == "provisioned"
    assert [peer.identity for peer in front.connections()] == [again.request.id]


@in_world
async def test_retained_message_is_refused(world: World) -> None:
    """F-07: noted, and not answered."""
    _, link = linked(world)
    await world.request("gw1")
    assert await link.say("prov/v1/gw1/request", b'{"request_id":"m1"}', retain=True) == []
    assert await world.reasons("publish.refused") == ["retain"]


@in_world
async def test_copies_at_once_are_one_question(world: World) -> None:
    """F-26: ten copies that are delivered together are answered in turn, with the same bytes, and granted once."""
    _, link = linked(world)
    await world.request("gw1")
    question = b'{"request_id":"m1"}'
    await asyncio.gather(*(link.say("prov/v1/gw1/request", question) for _ in range(10)))
    assert len(link.sent) == 10 and len(set(link.sent)) == 1
    assert len(await world.audit("provision.granted")) == 1


@in_world
async def test_replies_find_their_dialogue(world: World) -> None:
    """A gateway's reply on the provisioner's own topic finds what it answers; an unexpected one finds nothing."""
    front, link = linked(world)
    await world.request("gw1")
    ((topic, put),) = await link.say("$EDC/provision/gw1/MQTT/BIRTH", encode(KuraPayload()))
    assert topic == "$EDC/provision/gw1/CONF-V1/PUT/configurations"
    id = decode(put).text("request.id")
    reply = encode(KuraPayload(metrics=(metric("response.code", 200),)))
    assert await link.say(f"{TO_US}/CONF-V1/REPLY/guessed", reply) == []
    assert await world.audit("provision.taken") == []
    await link.say(f"{TO_US}/CONF-V1/REPLY/{id}", reply)
    assert len(await world.audit("provision.taken")) == 1
    await link.say(f"{TO_US}/CONF-V1/REPLY/{id}", reply)
    assert len(await world.audit("provision.taken")) == 1
    await front.drain(0)


@pytest.mark.parametrize("how", ["farewell", "kick"])
@in_world
async def test_lost_device_is_told_no_more(world: World, how: str) -> None:
    """F-08: after its broker's last word for it, or once its request is revoked, a dialogue goes no further."""
    front, link = linked(world)
    made = await world.request("gw1")
    ((_, put),) = await link.say("$EDC/provision/gw1/MQTT/BIRTH", encode(KuraPayload()))
    if how == "kick":
        assert front.kick(made.request.id)
        assert not front.kick(made.request.id)
    else:
        await link.say("$EDC/provision/gw1/MQTT/LWT")
    assert front.connections() == ()
    id = decode(put).text("request.id")
    reply = encode(KuraPayload(metrics=(metric("response.code", 200),)))
    assert await link.say(f"{TO_US}/CONF-V1/REPLY/{id}", reply) == []
    assert await world.audit("provision.taken") == []


@in_world
async def test_devices_are_remembered_in_bounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more devices than may be remembered the longest silent ones go, and so do those that are silent for long."""
    front, link = linked(world)
    monkeypatch.setattr(link_front, "PEERS_MAX", 3)
    for name in ("gw1", "gw2", "gw3", "gw4", "gw5"):
        await world.request(name)
    for name in ("gw1", "gw2", "gw3", "gw1", "gw4"):
        await link.ask(name)
    assert [peer.client_id for peer in front.connections()] == ["gw3", "gw1", "gw4"]
    monkeypatch.setattr(link_front, "IDLE_S", -1.0)
    await link.ask("gw5")
    assert [peer.client_id for peer in front.connections()] == ["gw5"]
    assert await link.ask("gw3", "m2") == "provisioned"
    assert front.status()["requests_without_login"] == 0
