"""The life of a provision request in the hands of administrators."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from provisioner.model.device import DeviceState
from provisioner.model.errors import Conflict, Duplicate, IllegalMove, InvalidInput, NotFound
from provisioner.model.messages import Status
from provisioner.model.request import Approval, ProvisionRequest, RequestState
from provisioner.services.request_making import Made
from tests.services.world import ADA, NOON, World, in_world

HOUR = timedelta(hours=1)
PENDING, GRANTED, CONFIRMED, REVOKED = RequestState


async def in_state(world: World, state: RequestState, client_id: str = "gw1", **fields: Any) -> Made:
    """A request that was led into that state as devices and administrators do it."""
    made = await world.request(client_id, **fields)
    if state is GRANTED:
        await world.granted(made, key=made.activation_key)
    elif state is CONFIRMED:
        await world.confirmed(made, key=made.activation_key)
    elif state is REVOKED:
        await world.requests.revoke(ADA, client_id)
    assert (await world.stored(made)).state is state
    return made


# Which verb in which state.

VERBS: dict[str, Callable[[World], Any]] = {
    "update": lambda world: world.requests.update(ADA, "gw1", {"max_attempts": 7}),
    "revoke": lambda world: world.requests.revoke(ADA, "gw1"),
    "rearm": lambda world: world.requests.rearm(ADA, "gw1"),
    "approve": lambda world: world.requests.decide_approval(ADA, "gw1", Approval.APPROVED),
}
LEGAL = {
    #          update revoke rearm  approve (none of them waits for it)
    PENDING: (True, True, True, False),
    GRANTED: (True, True, True, False),
    CONFIRMED: (False, True, True, False),
    REVOKED: (False, False, True, False),
}


@pytest.mark.parametrize("state", list(RequestState))
@pytest.mark.parametrize(("column", "verb"), list(enumerate(VERBS)))
@in_world
async def test_a_verb_that_the_life_cycle_does_not_know_changes_nothing(
    world: World, state: RequestState, column: int, verb: str
) -> None:
    """EC-40, F-08: a legal verb is one audit row more; an illegal one raises, and nothing at all is different."""
    made = await in_state(world, state)
    before, stored = await world.counts(), await world.stored(made)
    if LEGAL[state][column]:
        await VERBS[verb](world)
        assert len(await world.audit(f"request.{verb}")) == (2 if state is REVOKED and verb == "revoke" else 1)
        assert await world.stored(made) != stored
    else:
        with pytest.raises(IllegalMove):
            await VERBS[verb](world)
        assert await world.stored(made) == stored
        assert await world.counts() == before


@pytest.mark.parametrize("verb", ["update", "revoke", "rearm", "delete"])
@pytest.mark.parametrize("state", [PENDING, GRANTED])
@in_world
async def test_a_dry_run_changes_nothing(world: World, state: RequestState, verb: str) -> None:
    """EC-42: it shows what would be, cuts nobody and tells no broker."""
    made = await in_state(world, state)
    before, stored, known = await world.counts(), await world.stored(made), dict(world.broker.known)
    raw = ({"max_attempts": 7},) if verb == "update" else ()
    shown = await getattr(world.requests, verb)(ADA, "gw1", *raw, dry_run=True)
    assert shown.id == made.request.id
    assert await world.stored(made) == stored
    assert await world.counts() == before
    assert (world.broker.known, world.cut) == (known, [])


# Revoke, delete, re-arm.

ENDS = ("revoke", "delete", "rearm")


@pytest.mark.parametrize("verb", ENDS)
@in_world
async def test_ending_an_unconfirmed_grant_ends_its_credentials(world: World, verb: str) -> None:
    """F-08, AZ-04: user gone from store and broker, device record gone, connection cut on both sides."""
    made = await world.request()
    delivery = await world.granted(made)
    assert world.broker.connect(delivery)
    await getattr(world.requests, verb)(ADA, "gw1")
    assert world.cut == [made.request.id]
    assert world.broker.live == {}
    assert not world.broker.connect(delivery)
    counts = await world.counts()
    assert (counts["account_user"], counts["device"]) == (0, 0)


@pytest.mark.parametrize("verb", ENDS)
@in_world
async def test_a_confirmed_device_keeps_its_credentials(world: World, verb: str) -> None:
    """D6: what becomes of the request does not touch a device that has long moved on."""
    delivery = await world.confirmed(await world.request())
    await getattr(world.requests, verb)(ADA, "gw1")
    assert world.broker.connect(delivery)
    assert (await world.device()).state is DeviceState.CONNECTED


@pytest.mark.parametrize("verb", ENDS)
@in_world
async def test_ending_a_second_grant_leaves_the_first_as_it_was(world: World, verb: str) -> None:
    """D6, AZ-13: the device that was being given new credentials stays in the registry with its present ones."""
    made = await world.request()
    present = await world.confirmed(made)
    await world.requests.rearm(ADA, "gw1")
    coming = await world.granted(made, "m2")
    await getattr(world.requests, verb)(ADA, "gw1")
    assert not world.broker.connect(coming)
    assert world.broker.connect(present)
    assert (await world.device()).id == present.device_id
    await world.devices.disable(ADA, "gw1")
    assert not world.broker.connect(present)


@in_world
async def test_a_revoked_request_provisions_nobody(world: World) -> None:
    """F-08: with the right key, in the window, and after a restart of the device."""
    made = await in_state(world, REVOKED, activation_key=True)
    assert await world.status(made, key=made.activation_key) is Status.REFUSED
    assert await world.reasons() == ["revoked"]
    assert world.broker.known == {}


@pytest.mark.parametrize("state", list(RequestState))
@in_world
async def test_a_rearmed_request_grants_new_credentials(world: World, state: RequestState) -> None:
    """D6: from every state; another user, another password, everything that stood in the way forgotten."""
    made = await in_state(world, state)
    before = (await world.stored(made)).grant
    armed = await world.requests.rearm(ADA, "gw1")
    assert (armed.state, armed.arm, armed.grant, armed.confirmed_at) == (PENDING, 2, None, None)
    delivery = await world.granted(made, "m1")
    assert world.broker.connect(delivery)
    assert before is None or before.username != delivery.username


@in_world
async def test_rearming_unlocks_key_and_attempts(world: World) -> None:
    """F-18: after ten wrong keys, and after the last attempt, an administrator opens the request again."""
    made = await world.request(activation_key=True, max_attempts=1)
    await world.granted(made, "m1", key=made.activation_key)
    for _ in range(10):
        await world.ask(made, "m2", key="wrong")
        world.clock.move(HOUR)
    assert await world.status(made, "m2", key=made.activation_key) is Status.REFUSED
    armed = await world.requests.rearm(ADA, "gw1")
    assert (armed.key_failures, armed.key_blocked_until, armed.attempts) == (0, None, 0)
    assert await world.status(made, "m3", key=made.activation_key) is Status.PROVISIONED


@pytest.mark.parametrize("state", [CONFIRMED, REVOKED])
@in_world
async def test_a_client_id_that_was_given_on_cannot_be_taken_back(world: World, state: RequestState) -> None:
    """EC-07: re-arming a closed request whose client id another open request holds by now is refused."""
    made = await in_state(world, state, username="first")
    await world.request("gw1", username="second")
    before = await world.counts()
    with pytest.raises(Duplicate):
        await world.requests.rearm(ADA, made.request.id)
    assert (await world.stored(made)).state is state
    assert await world.counts() == before


@in_world
async def test_a_deleted_request_is_gone(world: World) -> None:
    """EC-02: it admits nobody and is found no more; its username stays with the account."""
    made = await world.request(username="lobby")
    await world.requests.delete(ADA, "gw1")
    with pytest.raises(NotFound):
        await world.stored(made)
    assert await world.store.find(ProvisionRequest, "login", "lobby/gw1") == []
    await world.account("globex")
    with pytest.raises(Duplicate, match="username"):
        await world.request("gw1", account="globex", username="lobby")


# Approval.


@in_world
async def test_a_request_may_wait_for_a_person(world: World) -> None:
    """ID-05, ID-06: waiting with a delay, rejected, then approved all the same."""
    made = await world.request(require_approval=True)
    waiting = await world.ask(made)
    assert waiting is not None
    assert (waiting.status, waiting.retry_after_s) == (Status.WAITING, 60)
    await world.requests.decide_approval(ADA, "gw1", Approval.REJECTED)
    assert await world.status(made) is Status.REFUSED
    await world.requests.decide_approval(ADA, "gw1", Approval.APPROVED)
    assert await world.status(made) is Status.PROVISIONED
    assert [len(await world.audit(f"request.{verb}")) for verb in ("reject", "approve")] == [1, 1]


@pytest.mark.parametrize("state", [CONFIRMED, REVOKED])
@in_world
async def test_a_closed_request_waits_for_nobody(world: World, state: RequestState) -> None:
    """ID-06: there is nothing left to approve."""
    made = await world.request(require_approval=True)
    await world.requests.decide_approval(ADA, "gw1", Approval.APPROVED)
    if state is CONFIRMED:
        await world.confirmed(made)
    else:
        await world.requests.revoke(ADA, "gw1")
    with pytest.raises(IllegalMove):
        await world.requests.decide_approval(ADA, "gw1", Approval.REJECTED)


# Update.


@in_world
async def test_an_update_changes_what_is_named(world: World) -> None:
    """EC-18 to EC-29: the device is given what holds when it asks."""
    made = await world.request(expires_on=(NOON + HOUR).isoformat(), max_attempts=3)
    changes = {"expires_on": None, "endpoint": "wss://edge.example", "configuration": {"org.example.A": {"x": 1}}}
    updated = await world.requests.update(ADA, "gw1", changes)
    assert (updated.expires_on, updated.endpoint, updated.max_attempts) == (None, "wss://edge.example", 3)
    world.clock.move(2 * HOUR)
    delivery = await world.granted(made)
    assert delivery.broker_url == "wss://edge.example"
    assert delivery.configuration["org.example.A"] == {"x": 1}


@pytest.mark.parametrize(
    "raw",
    [
        {"expires_on": NOON.isoformat()},
        {"activates_on": (NOON + 2 * HOUR).isoformat()},
        {"activates_on": None},
        {"client_id": "gw2"},
        {"endpoint": "http://h", "max_attempts": 7},
    ],
)
@in_world
async def test_a_refused_update_changes_nothing(world: World, raw: dict[str, Any]) -> None:
    """EC-06, EC-23: the window is judged as a whole, and one bad field keeps the good ones out too."""
    made = await world.request(expires_on=(NOON + HOUR).isoformat())
    before, stored = await world.counts(), await world.stored(made)
    with pytest.raises(InvalidInput):
        await world.requests.update(ADA, "gw1", raw)
    assert await world.stored(made) == stored
    assert await world.counts() == before


# Finding and listing.


@in_world
async def test_a_request_is_found_by_id_and_by_client_id(world: World) -> None:
    """EC-07: of several with one client id the open one is meant."""
    closed = await in_state(world, CONFIRMED, username="first")
    opened = await world.request("gw1", username="second")
    assert (await world.requests.find(closed.request.id)).id == closed.request.id
    assert (await world.requests.find("gw1")).id == opened.request.id
    with pytest.raises(NotFound):
        await world.requests.find("gw9")


@in_world
async def test_a_client_id_of_several_closed_requests_is_ambiguous(world: World) -> None:
    """EC-07: then the id has to be named."""
    for username in ("first", "second"):
        await in_state(world, CONFIRMED, username=username)
    with pytest.raises(Conflict, match="name one by its id"):
        await world.requests.find("gw1")


@in_world
async def test_a_listing_is_paged_and_filtered(world: World) -> None:
    """EC-41: key-set paging visits every request once, a filter only those that match."""
    ids = {(await world.request(f"gw{number}")).request.id for number in range(5)}
    await world.requests.revoke(ADA, "gw0")
    listed: list[str] = []
    after: str | None = None
    while True:
        page = await world.requests.page(after=after, limit=2)
        listed += [request.id for request in page.items]
        if (after := page.after) is None:
            break
    assert (set(listed), len(listed)) == (ids, 5)
    assert [request.client_id for request in (await world.requests.page(where={"state": "revoked"})).items] == ["gw0"]
