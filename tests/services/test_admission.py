"""Admission at the gate: client id, username and password must match one request (EC-02, EC-03)."""

from datetime import timedelta

import pytest

from provisioner.model.secret import Secret
from provisioner.services.admission import Admission, Admitted, NotAdmitted
from tests.services.world import ADA, World, in_world

HUMAN, OTHER = "Abcdefghijk!", "Zyxwvutsrqp!"


async def knock(
    world: World, client_id: str = "gw1", username: str = "lobby", password: str = HUMAN, address: str = "192.0.2.7"
) -> Admitted | str:
    """Who was admitted, or why not."""
    verdict = await Admission(world.platform).admit(client_id, username, Secret(password), address)
    return verdict.reason if isinstance(verdict, NotAdmitted) else verdict


@in_world
async def test_who_matches_a_request_is_admitted_with_its_rights(world: World) -> None:
    """EC-02, EC-04: before the window and after a grant too; the identity is the request's."""
    made = await world.request(username="lobby", password=HUMAN, activates_on="2030-01-01T00:00:00Z")
    admitted = await knock(world)
    assert isinstance(admitted, Admitted)
    assert (admitted.request, admitted.client_id, admitted.username) == (made.request.id, "gw1", "lobby")
    assert admitted.rights.publish == {"prov/v1/gw1/request", "prov/v1/gw1/ack"}


@pytest.mark.parametrize(
    ("client_id", "username", "password", "reason"),
    [
        ("gw2", "lobby", HUMAN, "client_id_mismatch"),
        ("GW1", "lobby", HUMAN, "client_id_mismatch"),
        ("other", "lobby", HUMAN, "client_id_mismatch"),
        ("gw1", "Lobby", HUMAN, "unknown_user"),
        ("gw1", "nobody", HUMAN, "unknown_user"),
        ("gw1", "lobby", OTHER, "password"),
        ("gw1", "lobby", "", "password"),
        ("gw1", "cellar", HUMAN, "password"),
    ],
)
@in_world
async def test_one_field_that_is_wrong_admits_nobody(
    world: World, client_id: str, username: str, password: str, reason: str
) -> None:
    """EC-03, F-05, F-10, F-11: byte for byte, all three of the same request; the reason is for the audit alone."""
    await world.request("gw1", username="lobby", password=HUMAN)
    await world.request("other", username="cellar", password=OTHER)
    assert await knock(world, client_id, username, password) == reason


@in_world
async def test_a_request_admits_until_it_is_closed(world: World) -> None:
    """EC-02: revoked and deleted ones admit nobody; a confirmed one admits its device, to be told so."""
    made = await world.request(username="lobby", password=HUMAN)
    assert isinstance(await knock(world), Admitted)
    await world.confirmed(made)
    assert isinstance(await knock(world), Admitted)
    await world.requests.revoke(ADA, "gw1")
    assert await knock(world) == "client_id_mismatch"
    await world.requests.rearm(ADA, "gw1")
    assert isinstance(await knock(world), Admitted)
    await world.requests.delete(ADA, "gw1")
    assert await knock(world) == "client_id_mismatch"


@in_world
async def test_an_open_request_goes_before_a_confirmed_one(world: World) -> None:
    """EC-07: with the same login, the device is admitted to the request that can still provision it."""
    await world.confirmed(await world.request(username="lobby", password=HUMAN))
    again = await world.request(username="lobby", password=HUMAN)
    admitted = await knock(world)
    assert isinstance(admitted, Admitted)
    assert admitted.request == again.request.id


@in_world
async def test_a_refused_login_leaves_no_trace_in_the_store(world: World) -> None:
    """EC-03: there is no side effect before CONNACK."""
    await world.request(username="lobby", password=HUMAN)
    before = await world.counts()
    await knock(world, password=OTHER)
    assert await world.counts() == before


@pytest.mark.parametrize(
    ("address", "after_s", "alerts"),
    [("192.0.2.7", 1, 0), ("198.51.100.9", 60, 1), ("198.51.100.9", 61, 0)],
)
@in_world
async def test_one_client_id_from_two_addresses_is_an_alert(
    world: World, address: str, after_s: int, alerts: int
) -> None:
    """F-22: within a minute; both are admitted all the same."""
    await world.request(username="lobby", password=HUMAN)
    admission = Admission(world.platform)
    assert isinstance(await admission.admit("gw1", "lobby", Secret(HUMAN), "192.0.2.7"), Admitted)
    world.clock.move(timedelta(seconds=after_s))
    assert isinstance(await admission.admit("gw1", "lobby", Secret(HUMAN), address), Admitted)
    rows = await world.audit("alert.two_addresses")
    assert [(row.address, row.details) for row in rows] == [(address, {"other_address": "192.0.2.7"})] * alerts
