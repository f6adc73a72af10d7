"""From a provision message to its answer: one commit, one set of credentials, the same bytes for the same question."""

import asyncio
from datetime import timedelta

import pytest

from provisioner.dialects.json_v1 import encode
from provisioner.model.account import Coupling
from provisioner.model.device import Device, DeviceState
from provisioner.model.messages import Status
from provisioner.model.ports import Put
from provisioner.model.request import ProvisionRequest
from provisioner.model.user import BROKER_CONNECT, AccountUser
from tests.services.world import ADA, NOON, World, closed, in_world, opened

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


# A grant.


@in_world
async def test_a_grant_is_one_commit(world: World) -> None:
    """AZ-08, F-25: request, device, account user and audit row become durable together or not at all."""
    made = await world.request()
    world.store.units.clear()
    await world.granted(made)
    (unit,) = world.store.units
    assert all(isinstance(change, Put) for change in unit.changes)
    assert [type(change.noun) for change in unit.changes] == [ProvisionRequest, Device, AccountUser]
    assert [event.action for event in unit.audit] == ["provision.granted"]


@in_world
async def test_a_grant_hands_over_what_the_request_says(world: World) -> None:
    """EC-18, EC-30, EC-35: account, endpoint, client id, configuration and packages of the request's owner."""
    package = {"name": "heater", "version": "1.0", "url": "https://h.example/heater.dp"}
    made = await world.request(configuration={"org.example.A": {"x": 1}}, packages=[package])
    delivery = await world.granted(made, device={"serial_number": "S1"})
    assert (delivery.account, delivery.client_id) == ("acme", "gw1")
    assert delivery.broker_url == "mqtts://local.example:8883"
    assert delivery.configuration["org.example.A"] == {"x": 1}
    assert delivery.packages == made.request.packages
    device = await world.device()
    assert (device.id, device.account, device.request) == (delivery.device_id, "acme", made.request.id)
    assert (device.state, device.metadata) == (DeviceState.PROVISIONED, {"serial_number": "S1"})


@in_world
async def test_a_requests_own_endpoint_wins(world: World) -> None:
    """EC-18: exactly the URL of the request, also inside of the configuration."""
    delivery = await world.granted(await world.request(endpoint="wss://edge.example:443/mqtt"))
    assert delivery.broker_url == "wss://edge.example:443/mqtt"
    assert "wss://edge.example:443/mqtt" in str(delivery.configuration)


@in_world
async def test_the_account_user_may_connect_and_nothing_else(world: World) -> None:
    """EC-31: a user in the target account with exactly broker:connect, known to that account's broker alone."""
    delivery = await world.granted(await world.request())
    user = await world.accounts.show_user("acme", delivery.username)
    assert isinstance(user, AccountUser)
    assert user.permissions == (BROKER_CONNECT,)
    assert await world.broker.users() == [("acme", delivery.username)]
    assert await world.other_broker.users() == []
    assert world.broker.connect(delivery)


@pytest.mark.parametrize(
    ("own", "accounts", "reserve", "expected"),
    [
        (Coupling.INHERITED, Coupling.LOOSE, False, Coupling.LOOSE),
        (Coupling.INHERITED, Coupling.STRICT, True, Coupling.STRICT),
        (Coupling.LOOSE, Coupling.STRICT, True, Coupling.LOOSE),
        (Coupling.STRICT, Coupling.LOOSE, False, Coupling.STRICT),
    ],
)
@in_world
async def test_coupling_and_reservation_reach_the_broker(
    world: World, own: Coupling, accounts: Coupling, reserve: bool, expected: Coupling
) -> None:
    """EC-25, EC-26: inheritance is resolved at the grant, and a reserved user goes with its connection."""
    await world.accounts.update(ADA, "acme", {"coupling": accounts.value})
    delivery = await world.granted(await world.request(coupling=own.value, reserve_user=reserve))
    known = world.broker.known[f"acme/{delivery.username}"]
    assert (known.coupling, known.reserved) == (expected, reserve)
    assert (await world.device()).connection.reserved_user == (delivery.username if reserve else None)


@in_world
async def test_every_grant_has_credentials_of_its_own(world: World) -> None:
    """EC-32, AZ-06: two devices share neither user nor password."""
    one, other = [await world.granted(await world.request(client_id)) for client_id in ("gw1", "gw2")]
    assert one.username != other.username
    assert one.password != other.password


@in_world
async def test_no_secret_is_at_rest_in_clear(world: World) -> None:
    """F-39, D7: neither the store's files nor any audit row hold password or key."""
    made = await world.request(activation_key=True)
    assert made.activation_key is not None
    delivery = await world.granted(made, key=made.activation_key)
    rows = repr(await world.audit())
    files = [path.read_bytes() for path in world.directory.rglob("*") if path.is_file()]
    assert files
    for secret in (delivery.password, made.password, made.activation_key):
        assert secret is not None
        assert secret.reveal() not in rows
        assert not any(secret.reveal().encode() in content for content in files)


# The same question, another question.


@in_world
async def test_the_same_message_gets_the_same_bytes(world: World) -> None:
    """D7, F-15, F-26, F-28: an hour later, whatever was changed meanwhile; one user, one commit."""
    made = await world.request()
    first = await world.ask(made, "m1")
    world.clock.move(HOUR)
    await world.requests.update(ADA, made.request.id, {"endpoint": "wss://moved.example"})
    again = await world.ask(made, "m1")
    assert first is not None
    assert again is not None
    assert encode(again) == encode(first)
    assert await world.store.count(AccountUser) == 1
    assert [event.action for event in await world.audit() if event.actor == "device"] == [
        "provision.granted",
        "provision.repeated",
    ]


@in_world
async def test_another_message_gets_the_same_credentials(world: World) -> None:
    """D6, D7: a reboot asks with a new id, and is given the same user and password as what holds now."""
    made = await world.request()
    first = await world.granted(made, "m1")
    await world.requests.update(ADA, made.request.id, {"endpoint": "wss://moved.example"})
    second = await world.granted(made, "m2")
    assert (second.username, second.password, second.device_id) == (first.username, first.password, first.device_id)
    assert second.broker_url == "wss://moved.example"
    assert world.broker.connect(first)
    assert (await world.stored(made)).attempts == 2
    assert len(await world.audit("provision.regranted")) == 1


@in_world
async def test_after_a_restart_the_answer_is_still_owed(world: World) -> None:
    """F-23, F-28: what was granted is read back from the disk, and the broker is told again."""
    made = await world.request()
    first = await world.ask(made, "m1")
    await world.store.close()
    later = await opened(world.directory)
    try:
        again = await later.ask(made, "m1")
        assert first is not None
        assert again is not None
        assert encode(again) == encode(first)
        assert again.delivery is not None
        assert later.broker.connect(again.delivery)
    finally:
        await closed(later)


@in_world
async def test_a_lost_answer_does_not_cost_the_only_attempt(world: World) -> None:
    """F-15, F-28: with one attempt the same message is answered again, another message is not."""
    made = await world.request(max_attempts=1)
    first = await world.ask(made, "m1")
    assert first is not None
    assert first.status is Status.PROVISIONED
    assert await world.ask(made, "m1") == first
    assert await world.status(made, "m2") is Status.REFUSED
    assert await world.reasons() == ["attempts_exhausted"]


@in_world
async def test_after_confirmation_there_are_no_more_credentials(world: World) -> None:
    """F-14: a replay of any message is already_provisioned, and audited."""
    made = await world.request()
    await world.confirmed(made)
    before = await world.counts()
    assert await world.status(made, "m1") is Status.ALREADY_PROVISIONED
    assert await world.status(made, "m2") is Status.ALREADY_PROVISIONED
    assert await world.counts() == before | {"audit": before["audit"] + 2}
    assert await world.reasons() == ["already_provisioned"] * 2


@in_world
async def test_fifty_at_the_same_moment_make_one_user(world: World) -> None:
    """F-16: compare-and-set in the store: one user, one password, and nobody is told anything else."""
    made = await world.request()
    answers = await asyncio.gather(*(world.ask(made, f"m{number}") for number in range(50)))
    passwords = {answer.delivery.password for answer in answers if answer and answer.delivery}
    assert len(passwords) == 1
    assert {answer.status for answer in answers if answer} <= {Status.PROVISIONED, Status.BUSY}
    assert await world.store.count(AccountUser) == 1
    assert await world.store.count(Device) == 1


@in_world
async def test_while_one_connection_is_answered_another_is_in_conflict(world: World) -> None:
    """F-16: told to come back, nothing consumed, and an alert raised."""
    made = await world.request()
    answer = await world.ask(made, contended=True)
    assert answer is not None
    assert (answer.status, answer.retry_after_s) == (Status.CONFLICT, 10)
    assert (await world.stored(made)).attempts == 0
    assert len(await world.audit("alert.client_id_contended")) == 1


# Refusals.


@in_world
async def test_the_window_is_decided_by_the_servers_clock(world: World) -> None:
    """EC-20, EC-22, EC-24, F-32: early, at the first instant, and at the last one; no user is made meanwhile."""
    made = await world.request(
        activates_on=(NOON + HOUR).isoformat(), expires_on=(NOON + 2 * HOUR).isoformat(), activation_key=True
    )
    early = await world.ask(made, key=made.activation_key)
    assert early is not None
    assert (early.status, early.retry_after_s, early.server_time) == (Status.NOT_YET_ACTIVE, 3600, NOON)
    world.clock.move(2 * HOUR)
    assert await world.status(made, key=made.activation_key) is Status.EXPIRED
    assert await world.store.count(AccountUser) == 0
    world.clock.move(-HOUR)
    assert await world.status(made, key=made.activation_key) is Status.PROVISIONED


@in_world
async def test_without_an_end_a_request_provisions_ten_years_later(world: World) -> None:
    """EC-19, EC-21: active from creation on, for good."""
    made = await world.request()
    assert (made.request.activates_on, made.request.expires_on) == (NOON, None)
    world.clock.move(timedelta(days=3653))
    assert await world.status(made) is Status.PROVISIONED


@in_world
async def test_a_deleted_request_is_refused(world: World) -> None:
    """EC-02: a device that was connected when its request went is told no more than refused."""
    made = await world.request()
    await world.requests.delete(ADA, made.request.id)
    assert await world.status(made) is Status.REFUSED
    assert await world.reasons() == ["deleted"]


@in_world
async def test_a_refusal_tells_the_device_the_status_alone(world: World) -> None:
    """EC-03, EC-16: the true reason is in the audit log and nowhere in the answer."""
    made = await world.request(activation_key=True)
    answer = await world.ask(made, key="wrong")
    assert answer is not None
    assert (answer.status, answer.detail, answer.retry_after_s) == (Status.REFUSED, None, None)
    assert await world.reasons() == ["activation_key"]
