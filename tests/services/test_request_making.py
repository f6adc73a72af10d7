"""Making provision requests: what only the store can tell, secrets that are shown once, and all or nothing."""

import asyncio
import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from provisioner.model.errors import Conflict, Duplicate, InvalidInput, Unavailable
from provisioner.model.policy import Policy
from provisioner.model.ports import Unit
from provisioner.model.request import Approval, ProvisionRequest, RequestState
from provisioner.model.secret import Secret
from provisioner.model.user import ProvisionUser
from provisioner.services.platform import KEY_PURPOSE
from provisioner.services.request_import import RequestImport, RowResult
from provisioner.vault.generate import normal_key
from tests.services.world import ADA, NOON, RING, World, in_world

HUMAN = "Abcdefghijk!"
HOUR = timedelta(hours=1)


# What is made.


@in_world
async def test_a_request_is_one_commit_with_its_provision_user(world: World) -> None:
    """EC-11, EC-40: request, user of the provision account and audit row, by the administrator who asked."""
    world.store.units.clear()
    made = await world.request("gw1", username="lobby")
    (unit,) = world.store.units
    assert [type(change.noun) for change in unit.changes] == [ProvisionUser, ProvisionRequest]
    (row,) = await world.audit("request.create")
    assert (row.actor, row.subject, row.account, row.client_id) == (ADA, made.request.id, "acme", "gw1")
    assert [user.id for user in (await world.accounts.page_users("provision")).items] == ["lobby"]


@in_world
async def test_what_is_not_given_takes_its_default(world: World) -> None:
    """EC-15, EC-19, EC-21: no key, active from now, for good, pending."""
    request = (await world.request()).request
    assert (request.activates_on, request.expires_on, request.created_at) == (NOON, None, NOON)
    assert (request.key_verifier, request.approval, request.state) == (
        None,
        Approval.NOT_REQUIRED,
        RequestState.PENDING,
    )
    assert await world.requests.show(request.id) == dataclasses.replace(request, version=1)


@in_world
async def test_generated_secrets_are_shown_once_and_kept_as_verifiers(world: World) -> None:
    """EC-15, EC-16, EC-32: password and key are in the result and in nothing that can be read again."""
    made = await world.request(activation_key=True)
    assert made.password is not None
    assert made.activation_key is not None
    stored = await world.stored(made)
    user = await world.store.get(ProvisionUser, "user-gw1")
    assert user is not None
    assert RING.verify(stored.key_verifier, normal_key(made.activation_key), KEY_PURPOSE, stored.id)
    assert await world.platform.passwords.verify(user, made.password, user.id)
    shown = repr((made, stored, user, await world.audit()))
    assert made.password.reveal() not in shown
    assert made.activation_key.reveal() not in shown


@in_world
async def test_a_password_that_was_given_is_not_said_back(world: World) -> None:
    """EC-13: whoever chose it knows it."""
    made = await world.request(password=HUMAN)
    assert made.password is None
    user = await world.store.get(ProvisionUser, "user-gw1")
    assert user is not None
    assert user.verifier.startswith("$argon2id$")
    assert await world.platform.passwords.verify(user, Secret(HUMAN), user.id)


@in_world
async def test_overridden_parameters_and_odd_names_are_warned_about(world: World) -> None:
    """EC-08, EC-29: at creation already, each with its path."""
    pid = "org.eclipse.kura.core.data.transport.mqtt.MqttDataTransport"
    made = await world.request("gw-1", configuration={pid: {"Client_ID": "evil", "keep-alive": 5}})
    assert [text for text in made.warnings if "overridden" in text] == [
        f"configuration: {pid}/Client_ID is overridden by the gate"
    ]
    assert [text for text in made.warnings if text.startswith("client_id: ")] != []
    assert (await world.request("gw2")).warnings == ()


# Client ids.


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [("gw1", "gw1", Duplicate), ("Dev1", "dev1", Conflict), ("dev1", "\uff44ev1", Conflict), ("gw1", "gw2", None)],
)
@pytest.mark.parametrize("account", ["acme", "globex"])
@in_world
async def test_a_client_id_is_open_once_on_the_platform(
    world: World, first: str, second: str, refused: type[Conflict] | None, account: str
) -> None:
    """EC-07, F-10: the second open request is refused, and so are case variants and look-alikes, in any account."""
    await world.account("globex")
    await world.request(first, username="first")
    if refused is None:
        assert await world.request(second, account=account, username="second")
        return
    before = await world.counts()
    with pytest.raises(refused):
        await world.request(second, account=account, username="second")
    assert await world.counts() == before


@pytest.mark.parametrize("policy", [Policy(client_id_scope="account")])
@in_world
async def test_with_a_scope_of_account_two_accounts_may_share_a_client_id(world: World, policy: Policy) -> None:
    """EC-07: by another username only, and still once within each account."""
    await world.account("globex")
    first = await world.request("gw1", username="first")
    with pytest.raises(Duplicate):
        await world.request("gw1", account="globex", username="first")
    second = await world.request("gw1", account="globex", username="second")
    with pytest.raises(Duplicate):
        await world.request("gw1", account="globex", username="third")
    assert [(await world.granted(made)).account for made in (first, second)] == ["acme", "globex"]


@pytest.mark.parametrize("policy", [Policy(refuse_case_variants=False)])
@in_world
async def test_look_alikes_may_be_let_through_with_a_warning(world: World, policy: Policy) -> None:
    """F-10: by policy; byte for byte they are two devices."""
    first, second = await world.request("Dev1"), await world.request("dev1")
    assert any("look-alike" in warning for warning in second.warnings)
    assert (await world.granted(first)).username != (await world.granted(second)).username


@pytest.mark.parametrize("policy", [Policy(strict_mqtt31=True)])
@pytest.mark.parametrize(("client_id", "fits"), [("a" * 23, True), ("a" * 24, False), ("gw-1", False)])
@in_world
async def test_mqtt_3_1_may_be_insisted_on(world: World, policy: Policy, client_id: str, fits: bool) -> None:
    """EC-08: then what is only warned about elsewhere is refused by its field."""
    if fits:
        assert (await world.request(client_id)).warnings == ()
        return
    with pytest.raises(InvalidInput) as refused:
        await world.request(client_id, username="some")
    assert {problem.field for problem in refused.value.problems} == {"client_id"}


@pytest.mark.parametrize("closing", ["confirmed", "revoked", "deleted"])
@in_world
async def test_a_closed_request_gives_its_client_id_back(world: World, closing: str) -> None:
    """EC-07: only open requests hold one; the next request of the device makes a user of its own."""
    made = await world.request("gw1", username="first")
    first = await world.granted(made)
    if closing == "confirmed":
        await world.seen(first)
    elif closing == "revoked":
        await world.requests.revoke(ADA, "gw1")
    else:
        await world.requests.delete(ADA, "gw1")
    second = await world.granted(await world.request("gw1", username="second"))
    assert second.username != first.username
    assert world.broker.connect(second)


@in_world
async def test_of_two_at_the_same_moment_one_is_made(world: World) -> None:
    """EC-07, F-16: the store decides, also when both found the client id free."""
    results = await asyncio.gather(
        *(world.request("gw1", username=f"user-{number}") for number in range(10)), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert all(isinstance(result, Conflict) for result in results if isinstance(result, BaseException))
    assert await world.store.count(ProvisionRequest) == 1
    assert await world.store.count(ProvisionUser) == 1


# All or nothing.


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ({"client_id": ""}, InvalidInput),
        ({"client_id": "a/b"}, InvalidInput),
        ({"username": "ab"}, InvalidInput),
        ({"password": "short"}, InvalidInput),
        ({"account": "nobody"}, InvalidInput),
        ({"endpoint": "http://h"}, InvalidInput),
        ({"expires_on": NOON.isoformat()}, InvalidInput),
        ({"expires_on": "2020-01-01T00:00:00Z"}, InvalidInput),
        ({"configuration": {"pid": 1}}, InvalidInput),
        ({"configuration": {"pid": {"x": "\ud800"}}}, InvalidInput),
        ({"packages": [{}]}, InvalidInput),
        ({"max_attempts": 0}, InvalidInput),
        ({"colour": "red"}, InvalidInput),
        ({"client_id": "taken"}, Duplicate),
        ({"client_id": "TAKEN"}, Conflict),
    ],
)
@in_world
async def test_a_refused_request_leaves_nothing_behind(
    world: World, raw: dict[str, Any], error: type[Exception]
) -> None:
    """EC-06, EC-23, EC-40: not a record, not an audit row, and the username is still free."""
    await world.request("taken")
    before = await world.counts()
    with pytest.raises(error):
        await world.request(**{"client_id": "gw1", "username": "lobby", **raw})
    assert await world.counts() == before
    assert await world.request("gw1", username="lobby")


@in_world
async def test_a_store_that_fails_leaves_nothing_behind(world: World) -> None:
    """F-42: neither request nor user, and the same call succeeds later."""
    before = await world.counts()

    async def fail(unit: Unit) -> None:
        raise Unavailable("no space left")

    world.store.before_commit = fail
    with pytest.raises(Unavailable):
        await world.request()
    world.store.before_commit = None
    assert await world.counts() == before
    assert await world.request()


@in_world
async def test_a_dry_run_checks_everything_and_stores_nothing(world: World) -> None:
    """EC-42: the same refusals, the same warnings, and no trace."""
    await world.request("gw1")
    before = await world.counts()
    raw = {"account": "acme", "client_id": "gw-2", "username": "lobby"}
    made = await world.requests.create(ADA, raw, dry_run=True)
    assert made.warnings != ()
    with pytest.raises(Duplicate):
        await world.requests.create(ADA, {**raw, "client_id": "gw1"}, dry_run=True)
    assert await world.counts() == before


# Many at once.


async def make_all(world: World, rows: list[dict[str, Any]], *, dry_run: bool = False) -> list[RowResult]:
    numbered = [(line, {"account": "acme", **row}) for line, row in enumerate(rows, 2)]
    importing = RequestImport(world.requests.making, world.platform.now)
    return await importing.make_all(ADA, numbered, dry_run=dry_run)


@pytest.mark.parametrize("dry_run", [False, True])
@in_world
async def test_every_row_is_made_or_reported_by_its_line(world: World, dry_run: bool) -> None:
    """EC-41, ID-11: a bad row stops no other, and a repeated client id is found in the file itself."""
    rows = [
        {"client_id": "gw1", "username": "user-1"},
        {"client_id": "a/b", "username": "ab"},
        {"client_id": "gw1", "username": "user-2"},
        {"client_id": "gw3", "username": "user-3", "activation_key": "yes"},
    ]
    before = await world.counts()
    results = await make_all(world, rows, dry_run=dry_run)
    assert [(result.line, result.made is not None) for result in results] == [
        (2, True),
        (3, False),
        (4, False),
        (5, True),
    ]
    assert isinstance(results[1].error, InvalidInput)
    assert [problem.field for problem in results[1].error.problems] == ["client_id", "username"]
    assert isinstance(results[2].error, Duplicate)
    after = await world.counts()
    assert after["request"] - before["request"] == (0 if dry_run else 2)


@in_world
async def test_a_store_that_fails_stops_the_whole(world: World) -> None:
    """F-42: what could not be stored is not reported as a bad row."""

    async def fail(unit: Unit) -> None:
        raise Unavailable("no space left")

    world.store.before_commit = fail
    with pytest.raises(Unavailable):
        await make_all(world, [{"client_id": "gw1", "username": "user-1"}])


@in_world
async def test_rows_that_share_nothing_share_a_commit(world: World) -> None:
    """P8: a flush for many rows; each row has its own audit row all the same."""
    commits = []

    async def count(unit: Unit) -> None:
        commits.append(len(unit.audit))

    world.store.before_commit = count
    rows = [{"client_id": f"gw{n}", "username": f"user-{n}"} for n in range(50)]
    assert all(result.made for result in await make_all(world, rows))
    assert commits == [50]


@in_world
async def test_rows_of_one_username_see_each_other(world: World) -> None:
    """EC-11, F-22: the user is made once, and without a key none is reached by credentials that others share."""
    rows = [{"client_id": f"gw{n}", "username": "lobby", "activation_key": "yes"} for n in range(20)]
    rows.insert(10, {"client_id": "keyless", "username": "lobby"})
    results = await make_all(world, rows)
    assert [place for place, result in enumerate(results) if result.made is None] == [10]
    assert sum(result.made is not None and result.made.password is not None for result in results) == 1


@in_world
async def test_rows_that_another_administrator_overtakes_fail_alone(world: World) -> None:
    """EC-41: a commit of many that is refused is made again row by row."""

    async def overtake(unit: Unit) -> None:
        world.store.before_commit = None
        await world.request("gw7")

    world.store.before_commit = overtake
    results = await make_all(world, [{"client_id": f"gw{n}", "username": f"user-{n}"} for n in range(10)])
    assert [place for place, result in enumerate(results) if result.made is None] == [7]
    assert isinstance(results[7].error, Duplicate)


@in_world
async def test_rows_behind_a_failure_have_no_result(world: World) -> None:
    """F-42: those that were made are told with their secrets, and the rest can be sent again."""
    rows = [{"client_id": f"gw{n}", "username": f"user-{n // 2}", "activation_key": "yes"} for n in range(9)]
    rows[5]["client_id"] = "not/allowed"

    async def fail_later(unit: Unit) -> None:
        if any(row.client_id == "gw4" for row in unit.audit):
            raise Unavailable("no space left")

    world.store.before_commit = fail_later
    results = await make_all(world, rows)
    assert [result.line for result in results] == [2, 3, 4]
    assert all(result.made for result in results)
