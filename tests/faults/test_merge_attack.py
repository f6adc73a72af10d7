"""F-47: an additional configuration that wants to lead devices elsewhere; what is previewed is what is delivered."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from provisioner.dialects import kura_xml
from provisioner.dialects.esf import components
from provisioner.dialects.kura_properties import plain
from provisioner.model.device_config import TRANSPORT_PID
from provisioner.model.secret import Secret
from tests.support.fleet import devices, fleet_of, run_fleet
from tests.support.gateway import EsfGateway
from tests.support.installation import Installation

FreshId = Callable[[], str]
EVIL = "mqtt://evil.example.org:1883"
SHORT = "MqttDataTransport"
THE_FIVE = ("broker-url", "topic.context.account-name", "client-id", "username", "password")
WIDE = "".join(chr(ord(letter) + 0xFEE0) for letter in "username")

# Whatever holds EVIL here must be gone; "kept" stands beside it and must arrive.
A = {"org.example.A": {"x": "kept"}}
ATTACKS: Mapping[str, dict[str, Any]] = {
    "plain": {TRANSPORT_PID: dict.fromkeys(THE_FIVE, EVIL) | {"keep-alive": "kept"}},
    "case": {TRANSPORT_PID.upper(): {name.title(): EVIL for name in THE_FIVE}, **A},
    "separators": {TRANSPORT_PID: dict.fromkeys(("broker_url", "brokerUrl", "BROKER.URL", "client id"), EVIL), **A},
    "blanks": {TRANSPORT_PID: {" username": EVIL, "password ": EVIL, "user name": EVIL, "x": "kept"}},
    "controls": {TRANSPORT_PID: {"user\tname": EVIL, "user\nname": EVIL, "x": "kept"}},
    "invisible": {TRANSPORT_PID: {"user\u200bname": EVIL, "\ufeffpassword": EVIL, "pass\u00adword": EVIL}, **A},
    "full width": {TRANSPORT_PID: {WIDE: EVIL, "x": "kept"}},
    "nested": {TRANSPORT_PID: {"broker": {"url": EVIL}, "topic": {"context": {"account": {"name": EVIL}}}}, **A},
    "half nested": {TRANSPORT_PID: {"topic.context": {"account-name": EVIL}, "client": {"id": EVIL}, "x": "kept"}},
    "typed": {TRANSPORT_PID: {"broker-url": {"type": "String", "value": EVIL}, "x": "kept"}},
    "typed nested": {TRANSPORT_PID: {"broker": {"url": {"type": "String", "value": EVIL}}, "x": "kept"}},
    "nested pid": {"org": {"eclipse": {"kura": {"core": {SHORT: {"broker-url": EVIL}}}}}, **A},
    "dotted in another": {"org.example.A": {f"{TRANSPORT_PID}.broker-url": EVIL, "x": "kept"}},
    "dotted at the top": {f"{TRANSPORT_PID}.username": {"value": EVIL}, **A},
    "bare": {"broker-url": {"value": EVIL}, "username": {"value": EVIL}, **A},
    "short pid": {SHORT: {"broker-url": EVIL}, **A},
    "further transport": {f"{TRANSPORT_PID}-2": {"broker-url": EVIL, "x": "kept"}},
    "list index": {TRANSPORT_PID: {"0": {"username": EVIL}, "x": "kept"}},
    "properties": {TRANSPORT_PID: {"properties": {"username": EVIL, "0": {"broker-url": EVIL}}, "x": "kept"}},
    "dotted properties": {TRANSPORT_PID: {"properties.0.username": EVIL, "Parameters/client-id": EVIL, "x": "kept"}},
    "prototype": {TRANSPORT_PID: {"__proto__": {"username": "other"}, "x": "kept"}, "__proto__": {"username": "kept"}},
    "markup": {
        TRANSPORT_PID: {
            "x": '</esf:value></esf:property><esf:property name="username" type="String"><esf:value>other',
            'y" name="username': "kept",
        },
    },
}
# A list of objects is no property of a gateway, so these can only be meant for devices of the JSON dialect.
LISTS: Mapping[str, dict[str, Any]] = {
    "names and values": {
        TRANSPORT_PID: {"properties": [{"name": "username", "value": EVIL}, {"name": "x", "value": "kept"}]}
    },
    "keys": {TRANSPORT_PID: {"properties": [{"KEY": "Broker.URL", "value": EVIL}], "x": "kept"}},
    "list in list": {TRANSPORT_PID: {"properties": [[{"username": EVIL}]], "x": "kept"}},
}


def previewed(installation: Installation, client_id: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that an administrator was shown, with what is only generated at the grant filled in."""
    shown = installation.ask("request.preview", id=client_id)["configuration"]
    transport = shown[TRANSPORT_PID]
    assert transport["username"] == transport["password"] == "(generated)"
    transport |= {"username": answer["username"], "password": answer["password"]}
    assert isinstance(shown, dict)
    return shown


def expected_five(client_id: str, answer: Mapping[str, Any]) -> dict[str, str]:
    values = (answer["broker_url"], "acme", client_id, answer["username"], answer["password"])
    return dict(zip(THE_FIVE, values, strict=True))


@pytest.mark.parametrize("name", [*ATTACKS, *LISTS])
def test_f_47_what_is_delivered_in_json_is_what_was_previewed(
    shared_installation: Installation, fresh_id: FreshId, name: str
) -> None:
    """F-47: in every spelling the five are the gate's own; the preview names what it overrides, and shows the rest."""
    attack, client_id = {**ATTACKS, **LISTS}[name], fresh_id()
    credentials = shared_installation.request(client_id, configuration=attack)
    answer = shared_installation.provision(credentials, broker="north")
    delivered = answer["configuration"]
    assert EVIL not in json.dumps(answer)
    assert "kept" in json.dumps(delivered)
    assert delivered == previewed(shared_installation, client_id, answer)
    assert {each: delivered[TRANSPORT_PID][each] for each in THE_FIVE} == expected_five(client_id, answer)
    dropped = shared_installation.ask("request.preview", id=client_id)["overridden"]
    assert bool(dropped) == (EVIL in json.dumps(attack))


@pytest.mark.parametrize("name", ATTACKS)
def test_f_47_what_is_delivered_in_xml_is_what_was_previewed(
    shared_installation: Installation, fresh_id: FreshId, name: str
) -> None:
    """F-47: the XML of a gateway is the preview's, and holds each of the five once, as a gateway reads it."""
    client_id = fresh_id()
    credentials = shared_installation.request(client_id, configuration=ATTACKS[name])
    with EsfGateway(shared_installation.plain, credentials) as gateway:
        assert gateway.ask(gateway.question()).text("prov.status") == "provisioned"
        document = gateway.configuration()
    read = {each.pid: {key: plain(value) for key, value in each.properties.items()} for each in kura_xml.read(document)}
    transport = read[TRANSPORT_PID]
    password = transport["password"]
    (username,) = shared_installation.users_of(client_id)
    answer = {"broker_url": transport["broker-url"], "username": username, "password": password.reveal()}
    shown = previewed(shared_installation, client_id, answer)
    shown[TRANSPORT_PID]["password"] = Secret(answer["password"])
    assert document == kura_xml.write(components(shown))
    assert EVIL.encode() not in document
    spelled = [key for pid in read if SHORT.lower() in pid.lower() for key in read[pid] if key.lower() in THE_FIVE]
    assert sorted(spelled) == sorted(THE_FIVE)
    account = {"broker_url": shared_installation.ask("account.show", id="acme")["broker_url"]}
    assert [transport[each] for each in THE_FIVE[:4]] == list(expected_five(client_id, answer | account).values())[:4]


@pytest.mark.parametrize("kind", ["json", "esf", "kura"])
def test_f_47_a_device_that_is_attacked_arrives_where_it_belongs(
    shared_installation: Installation, fresh_id: FreshId, kind: str
) -> None:
    """F-47: with all attacks in one configuration a device of any kind still ends on its own account broker."""
    everything: dict[str, Any] = {}
    for attack in ATTACKS.values():
        for pid, properties in attack.items():
            everything[pid] = {**everything.get(pid, {}), **properties}
    credentials = shared_installation.request(fresh_id(), configuration=everything)
    report, fleet = run_fleet(shared_installation, fleet_of(credentials, kind=kind))
    assert report.is_met, report.outcomes()
    shared_installation.await_state(credentials.client_id, "confirmed")
    (device,) = devices(fleet)
    settings = device.device.state.settings
    assert settings is not None
    assert (settings.account, settings.client_id) == ("acme", credentials.client_id)
    assert EVIL not in json.dumps(settings.configuration, default=str)


def test_f_47_an_update_cannot_bring_it_in_later(shared_installation: Installation, fresh_id: FreshId) -> None:
    """F-47: a configuration that is changed after the creation is merged by the same rules."""
    credentials = shared_installation.request(fresh_id())
    shared_installation.ask("request.update", id=credentials.client_id, fields={"configuration": ATTACKS["plain"]})
    answer = shared_installation.provision(credentials, broker="north")
    assert EVIL not in json.dumps(answer)
    assert answer["configuration"] == previewed(shared_installation, credentials.client_id, answer)
