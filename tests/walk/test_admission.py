"""Who may connect to the gate, and what a connection may do there: three topics of its own, and nobody else's."""

import json
import time
from collections.abc import Callable

import pytest

from broker.packets import V5, V311, ConnAck, Connect, PingReq, PingResp, Version, Will
from broker.session_settings import SessionSettings
from tests.support.device import Address, Credentials, Wire
from tests.support.installation import Installation

FreshId = Callable[[], str]
NOT_AUTHORISED = {V311: 5, V5: 0x87}
BOTH = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])


@BOTH
def test_ec_02_a_request_opens_the_gate(shared_installation: Installation, fresh_id: FreshId, version: Version) -> None:
    """A CONNECT that nobody requested is refused; once its request exists the same CONNECT is accepted at once."""
    site, client_id = shared_installation, fresh_id()
    login = (client_id, f"user-{client_id}", "Known-to-both-1")
    uptime_s = site.ask("status")["uptime_s"]
    assert _connack(site.plain, *login, version=version).code == NOT_AUTHORISED[version]
    site.request(client_id, password=login[2])
    assert _connack(site.plain, *login, version=version).code == 0
    assert site.ask("status")["uptime_s"] >= uptime_s
    assert [row["reason"] for row in site.await_audit("connect.refused", client_id=client_id)] == ["unknown_user"]


@BOTH
def test_ec_03_all_three_must_match_one_request(
    shared_installation: Installation, fresh_id: FreshId, version: Version
) -> None:
    """One wrong field of three is refused with the same bytes whichever it is; each leaves one row with the truth."""
    site = shared_installation
    own, other = site.request(fresh_id()), site.request(fresh_id())
    stranger = fresh_id()
    wrong = {
        "client_id_mismatch": (other.client_id, own.username, own.password),
        "unknown_user": (own.client_id, f"user-{stranger}", own.password),
        "password": (own.client_id, own.username, other.password),
    }
    refusals = {reason: _connack(site.plain, *login, version=version) for reason, login in wrong.items()}
    assert refusals["password"].code == NOT_AUTHORISED[version]
    assert refusals["client_id_mismatch"] == refusals["unknown_user"] == refusals["password"]
    for reason, (client_id, username, _) in wrong.items():
        rows = site.await_audit("connect.refused", client_id=client_id, username=username)
        assert [row["reason"] for row in rows] == [reason]
    assert _connack(site.plain, own.client_id, own.username, own.password, version=version).code == 0


@BOTH
def test_ec_04_only_the_provisioning_topics_are_open(
    shared_installation: Installation, fresh_id: FreshId, version: Version
) -> None:
    """Two dozen other topics and filters are refused and audited, and another device hears none of it."""
    site = shared_installation
    own, other = site.request(fresh_id()), site.request(fresh_id())
    filters = _foreign_filters(own.client_id, other.client_id)
    topics = _foreign_topics(own.client_id, other.client_id)
    with site.device(other, version=version) as spy, site.device(own, version=version) as device:
        assert spy.wire.subscribe(f"$EDC/provision/{other.client_id}/#") == (1,)
        for topic_filter in filters:
            codes = device.wire.subscribe(topic_filter)
            assert len(codes) == 1 and codes[0] >= 0x80, topic_filter
        for topic in topics:
            assert device.wire.publish(topic, b"{}") == (0 if version == V311 else 0x87), topic
        # Whatever had reached the spy would have come before its own answer.
        assert spy.ask()["status"] == "provisioned"
        assert device.ask()["status"] == "provisioned"
    for action, count in (("subscribe.refused", len(filters)), ("publish.refused", len(topics))):
        _await_refusals(site, action, own.client_id, count)


def _await_refusals(site: Installation, action: str, client_id: str, count: int) -> None:
    """The first row names the device; those of the same second are summed up by their address."""
    first = site.await_audit(action, client_id=client_id)[0]["seq"]
    until_s = time.monotonic() + 8
    while True:
        rows = [row for row in site.audit(action) if row["seq"] >= first]
        assert {row["client_id"] for row in rows} <= {client_id, None}
        if sum(row["details"].get("count", 1) for row in rows) == count:
            return
        assert time.monotonic() < until_s, rows
        time.sleep(0.05)


def _foreign_filters(own: str, other: str) -> list[str]:
    return [
        "#", "+/+/+", "+/+/+/+", "$SYS/#", f"prov/v1/{other}/response", "prov/v1/+/response", f"prov/v1/{own}/#",
        f"prov/v1/{own}/request", f"$share/g/prov/v1/{own}/response", "$share/g/#", "$EDC/#",
        f"$EDC/provision/{other}/#", "$EDC/provision/+/MQTT/BIRTH", f"acme/{own}/#", "ctl/v1/#",
    ]  # fmt: skip


def _foreign_topics(own: str, other: str) -> list[str]:
    return [
        f"prov/v1/{other}/request", f"prov/v1/{other}/response", f"prov/v1/{other}/ack", f"prov/v1/{own}/response",
        f"prov/v1/{own}/request/more", f"/prov/v1/{own}/request", f"PROV/v1/{own}/request", f"acme/{other}/hello",
        f"$EDC/provision/{other}/MQTT/BIRTH", f"$EDC/provision/{other}/CONF-V1/PUT/configurations",
        "$EDC/provision/fleetgate/CONF-V1/REPLY/1", "$SYS/broker/uptime", f"ctl/v1/{own}/request",
    ]  # fmt: skip


@BOTH
def test_ec_05_no_device_reaches_another(
    shared_installation: Installation, fresh_id: FreshId, version: Version
) -> None:
    """Messages to another's topics, retained ones and Wills: the other receives nothing, then or later."""
    site = shared_installation
    own, other = site.request(fresh_id()), site.request(fresh_id())
    target = f"prov/v1/{other.client_id}/response"
    with site.device(other, version=version) as victim:
        assert victim.wire.subscribe(f"$EDC/provision/{other.client_id}/#") == (1,)
        with site.device(own, version=version) as device:
            device.wire.publish(target, b"forged")
            device.wire.publish(f"prov/v1/{other.client_id}/request", victim.payload())
            # MQTT 5 was told that nothing is retained, so that trying it is a fault [MQTT-3.2.2-14].
            assert device.wire.publish(target, b"kept", retain=True) == (0 if version == V311 else -1)
        _leave_a_will(site, own, f"$EDC/provision/{other.client_id}/MQTT/LWT", version, accepted=False)
        _leave_a_will(site, own, target, version, accepted=False)
        own_will = f"$EDC/provision/{own.client_id}/MQTT/LWT"
        _leave_a_will(site, own, own_will, version, accepted=False, retain=True)
        _leave_a_will(site, own, own_will, version, accepted=True)
        assert victim.ask("mine")["request_id"] == "mine"
    assert len(site.audit("provision.granted", client_id=other.client_id)) == 1
    with site.device(other, version=version) as later:
        assert later.ask("again")["request_id"] == "again"


def _leave_a_will(
    site: Installation, who: Credentials, topic: str, version: Version, *, accepted: bool, retain: bool = False
) -> None:
    """Connect with a Will and vanish."""
    with Wire(site.plain, version) as wire:
        will = Will(topic, b"I am gone", qos=1, retain=retain)
        assert (wire.connect(who.client_id, who.username, who.password, will=will) == 0) == accepted


def test_ec_06_the_client_id_is_the_requested_one(shared_installation: Installation, fresh_id: FreshId) -> None:
    """Without a client id there is no request; with one, a device that connects as anybody else is refused."""
    site = shared_installation
    before = site.ask("status")["requests"]
    create = ("request", "create", "--account", "acme", "--username", "no-client-id")
    assert "--client-id" in site.cli(*create, status=2).stderr
    assert "client_id: is required" in site.cli(*create, "--client-id", "", status=6).stderr
    rows = json.dumps([{"account": "acme", "username": "no-client-id"}])
    imported = site.cli("request", "import", "-", "--format", "json", stdin=rows, status=7)
    assert "client_id: is required" in imported.stderr
    assert site.ask("status")["requests"] == before

    requested = site.request(fresh_id())
    for client_id in (requested.client_id.upper(), f"{requested.client_id}0", fresh_id()):
        assert _connack(site.plain, client_id, requested.username, requested.password).code == 5
    assert _connack(site.plain, requested.client_id, requested.username, requested.password).code == 0


def test_ec_33_nothing_happens_without_a_message(make_installation: Callable[..., Installation]) -> None:
    """A device that connects and says nothing is given nothing, and is cut when idle, however often it pings."""
    site = make_installation(gate={"limits": {"idle_s_max": 1.5}})
    with site.running():
        site.account()
        silent, pinging = site.request("silent"), site.request("pinging")
        with site.device(silent) as quiet, site.device(pinging) as busy:
            until_s = time.monotonic() + 10
            while _answers_a_ping(busy.wire):
                assert time.monotonic() < until_s, "not cut when idle"
                time.sleep(0.1)
            assert quiet.wire.is_cut()
        assert (site.state("silent"), site.state("pinging")) == ("pending", "pending")
        assert site.listed("user.page", account="acme") == []
        assert site.audit("provision.granted") == []
        site.legitimate_device_provisions("talking")
    assert SessionSettings().idle_s_max == 300


def _answers_a_ping(wire: Wire) -> bool:
    try:
        wire.send(PingReq())
    except OSError:
        return False
    return wire.next(PingResp) is not None


def _connack(address: Address, client_id: str, username: str, password: str, *, version: Version = V311) -> ConnAck:
    with Wire(address, version) as wire:
        wire.send(Connect(client_id, username=username, password=password.encode()))
        packet = wire.next(ConnAck)
        assert isinstance(packet, ConnAck), "closed without a CONNACK"
        return packet
