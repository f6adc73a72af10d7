"""Administration of accounts and of the users in them."""

from typing import Any

import pytest

from provisioner.model.account import Account, CertificateMode, Coupling
from provisioner.model.device import Device
from provisioner.model.effect import EffectVerb
from provisioner.model.errors import Conflict, Duplicate, InvalidInput, NotFound
from provisioner.model.messages import Delivery, Status
from provisioner.model.ports import Put
from provisioner.model.user import BROKER_CONNECT, AccountUser, ProvisionUser
from tests.services.world import ADA, NOON, World, in_world


@in_world
async def test_an_account_needs_a_name_and_a_broker(world: World) -> None:
    """EC-30: the broker's own address is the default endpoint; strict, without certificates, enabled."""
    made = await world.accounts.create(ADA, {"name": "globex", "broker": "other"})
    assert made == Account(id="globex", broker="other", broker_url="mqtts://other.example:8883", created_at=NOON)
    assert (await world.accounts.show("globex")).version == 1
    assert [row.subject for row in await world.audit("account.create")] == ["acme", "globex"]


@in_world
async def test_every_field_of_an_account_arrives(world: World) -> None:
    """EC-18, EC-26: all that can be said at creation."""
    raw = {"broker_url": "wss://edge.example", "coupling": "loose", "certificates": "server-key", "enabled": False}
    made = await world.account("globex", **raw)
    assert (made.broker_url, made.coupling) == ("wss://edge.example", Coupling.LOOSE)
    assert (made.certificates, made.enabled) == (CertificateMode.SERVER_KEY, False)


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        ({}, {"name", "broker", "broker_url"}),
        ({"name": "ab", "broker": "local"}, {"name"}),
        ({"name": "a/b", "broker": "local"}, {"name"}),
        ({"name": "provision", "broker": "local"}, {"name"}),
        ({"name": "EDC", "broker": "local"}, {"name"}),
        ({"name": "globex", "broker": ""}, {"broker", "broker_url"}),
        ({"name": "globex", "broker": "", "broker_url": "mqtt://h"}, {"broker"}),
        ({"name": "globex", "broker": "gone", "broker_url": "mqtt://h"}, {"broker"}),
        ({"name": "globex", "broker": "gone"}, {"broker"}),
        ({"name": "globex", "broker": "local", "broker_url": "http://h"}, {"broker_url"}),
        ({"name": "globex", "broker": "local", "coupling": "INHERITED"}, {"coupling"}),
        ({"name": "globex", "broker": "local", "coupling": "tight"}, {"coupling"}),
        ({"name": "globex", "broker": "local", "certificates": "always"}, {"certificates"}),
        ({"name": "globex", "broker": "local", "enabled": "perhaps"}, {"enabled"}),
        ({"name": "globex", "broker": "local", "colour": "red"}, {"colour"}),
        (
            {"name": "a", "broker": "gone", "coupling": "x", "certificates": 7},
            {"name", "broker", "coupling", "certificates"},
        ),
    ],
)
@in_world
async def test_every_broken_rule_is_reported_and_nothing_stored(
    world: World, raw: dict[str, Any], fields: set[str]
) -> None:
    """EC-10, EC-18: all fields at once, reserved names and brokers that are not configured among them."""
    before = await world.counts()
    with pytest.raises(InvalidInput) as refused:
        await world.accounts.create(ADA, raw)
    assert {problem.field for problem in refused.value.problems} == fields
    assert await world.counts() == before


@in_world
async def test_a_name_is_taken_once(world: World) -> None:
    """EC-30: the second account of that name is refused."""
    before = await world.counts()
    with pytest.raises(Duplicate):
        await world.account("acme", broker="other")
    assert await world.counts() == before
    assert (await world.accounts.show("acme")).broker == "local"


@in_world
async def test_a_dry_run_changes_nothing(world: World) -> None:
    """EC-42: for each verb."""
    before = await world.counts()
    await world.accounts.create(ADA, {"name": "globex", "broker": "local"}, dry_run=True)
    await world.accounts.update(ADA, "acme", {"enabled": False}, dry_run=True)
    await world.accounts.delete(ADA, "acme", dry_run=True)
    assert await world.counts() == before
    assert (await world.accounts.show("acme")).enabled
    assert world.cut == []


# Update.


@in_world
async def test_an_update_changes_what_is_named(world: World) -> None:
    """EC-26: a field that is not named, or null, stays as it is; one audit row tells which changed."""
    await world.accounts.update(ADA, "acme", {"coupling": "LOOSE", "certificates": None})
    updated = await world.accounts.update(ADA, "acme", {"broker_url": "mqtt://new.example"})
    assert (updated.broker_url, updated.coupling) == ("mqtt://new.example", Coupling.LOOSE)
    assert [row.details for row in await world.audit("account.update")] == [
        {"fields": ["coupling"]},
        {"fields": ["broker_url"]},
    ]


@pytest.mark.parametrize(
    "raw", [{"name": "globex"}, {"broker": "nowhere"}, {"broker_url": ""}, {"coupling": "INHERITED"}, {"enabled": "x"}]
)
@in_world
async def test_a_refused_update_changes_nothing(world: World, raw: dict[str, Any]) -> None:
    """AZ-14: the name of an account is fixed, and the rules are those of creation."""
    before = await world.accounts.show("acme")
    with pytest.raises(InvalidInput):
        await world.accounts.update(ADA, "acme", {"certificates": "csr", **raw})
    assert await world.accounts.show("acme") == before


@in_world
async def test_a_disabled_account_has_no_device_and_no_newcomer(world: World) -> None:
    """F-08: live devices are cut, reconnects refused, the gate refuses too; enabling lets the same devices in."""
    fleet = [await world.confirmed(await world.request(f"gw{number}")) for number in range(3)]
    newcomer = await world.request("new")
    assert all(world.broker.connect(delivery) for delivery in fleet)
    await world.accounts.update(ADA, "acme", {"enabled": False})
    assert world.broker.live == {}
    assert not any(world.broker.connect(delivery) for delivery in fleet)
    assert newcomer.request.id in world.cut
    assert await world.status(newcomer) is Status.REFUSED
    assert await world.reasons() == ["account_disabled"]
    await world.accounts.update(ADA, "acme", {"enabled": True})
    assert all(world.broker.connect(delivery) for delivery in fleet)
    assert await world.status(newcomer) is Status.PROVISIONED


@in_world
async def test_an_enabled_account_does_not_enable_its_disabled_devices(world: World) -> None:
    """AZ-05: a device that was disabled by itself stays so."""
    delivery = await world.confirmed(await world.request())
    await world.devices.disable(ADA, "gw1")
    await world.accounts.update(ADA, "acme", {"enabled": False})
    await world.accounts.update(ADA, "acme", {"enabled": True})
    assert not world.broker.connect(delivery)


@in_world
async def test_disabling_touches_no_other_account(world: World) -> None:
    """EC-30: the neighbours stay connected."""
    await world.account("globex")
    theirs = await world.confirmed(await world.request("gw2", account="globex"))
    assert world.broker.connect(theirs)
    await world.accounts.update(ADA, "acme", {"enabled": False})
    assert world.broker.live == {("globex", "gw2"): theirs.username}
    assert world.cut == []


@in_world
async def test_a_broker_that_is_away_is_told_of_the_change_later(world: World) -> None:
    """F-25: disabling is durable at once and true at the broker as soon as that is back."""
    delivery = await world.confirmed(await world.request())
    world.broker.available = False
    await world.accounts.update(ADA, "acme", {"enabled": False})
    assert world.broker.connect(delivery)
    world.broker.available = True
    assert await world.effects.finish_left_over() == 0
    assert not world.broker.connect(delivery)


# Delete.


@in_world
async def test_an_account_that_is_in_use_stays(world: World) -> None:
    """AZ-09: requests first, then users, are named as what stands in the way."""
    delivery = await world.confirmed(await world.request())
    with pytest.raises(Conflict, match="1 requests"):
        await world.accounts.delete(ADA, "acme")
    await world.requests.delete(ADA, "gw1")
    with pytest.raises(Conflict, match="1 users"):
        await world.accounts.delete(ADA, "acme")
    assert world.broker.connect(delivery)


@in_world
async def test_an_empty_account_goes_with_its_provision_users(world: World) -> None:
    """EC-11: their names are free for other accounts."""
    await world.account("globex")
    await world.request("gw1", username="lobby")
    await world.requests.delete(ADA, "gw1")
    await world.accounts.delete(ADA, "acme")
    with pytest.raises(NotFound):
        await world.accounts.show("acme")
    assert await world.store.count(ProvisionUser) == 0
    assert await world.request("gw1", account="globex", username="lobby")


@in_world
async def test_a_revoked_device_does_not_keep_its_account(world: World) -> None:
    """AZ-04: what is left of it is a row of the registry, which goes with the account."""
    await world.confirmed(await world.request())
    await world.devices.revoke(ADA, "gw1")
    await world.requests.delete(ADA, "gw1")
    await world.accounts.delete(ADA, "acme")
    assert await world.store.count(Device) == 0


@pytest.mark.parametrize("verb", ["show", "delete", "update"])
@in_world
async def test_an_account_that_is_not_there_is_not_found(world: World, verb: str) -> None:
    """EC-30: by every verb."""
    arguments: dict[str, tuple[Any, ...]] = {
        "show": ("globex",),
        "delete": (ADA, "globex"),
        "update": (ADA, "globex", {"enabled": False}),
    }
    with pytest.raises(NotFound, match="no account 'globex'"):
        await getattr(world.accounts, verb)(*arguments[verb])


# Users.


@in_world
async def test_users_are_listed_by_account(world: World) -> None:
    """EC-11, EC-31: provision users under the provision account's name, account users under their own account."""
    await world.account("globex")
    mine = await world.granted(await world.request("gw1", username="lobby"))
    theirs = await world.granted(await world.request("gw2", account="globex", username="cellar"))
    assert [user.id for user in (await world.accounts.page_users("provision")).items] == ["cellar", "lobby"]
    assert [user.username for user in (await world.accounts.page_users("acme")).items] == [mine.username]
    assert [user.username for user in (await world.accounts.page_users("globex")).items] == [theirs.username]
    with pytest.raises(NotFound):
        await world.accounts.page_users("nobody")


@in_world
async def test_a_user_is_shown_with_its_permissions_in_its_own_account_only(world: World) -> None:
    """EC-30, EC-31: exactly broker:connect."""
    await world.account("globex")
    delivery = await world.granted(await world.request("gw1", username="lobby"))
    user = await world.accounts.show_user("acme", delivery.username)
    assert isinstance(user, AccountUser)
    assert user.permissions == (BROKER_CONNECT,)
    assert isinstance(await world.accounts.show_user("provision", "lobby"), ProvisionUser)
    for account, username in (("globex", delivery.username), ("acme", "lobby"), ("provision", delivery.username)):
        with pytest.raises(NotFound):
            await world.accounts.show_user(account, username)


@in_world
async def test_accounts_are_listed_in_pages(world: World) -> None:
    """AZ-14: each account once, in order of its name."""
    for name in ("zeta", "beta", "eta"):
        await world.account(name)
    first = await world.accounts.page(limit=3)
    second = await world.accounts.page(after=first.after, limit=3)
    assert [account.id for account in (*first.items, *second.items)] == ["acme", "beta", "eta", "zeta"]
    assert second.after is None


@in_world
async def test_f_08_a_device_that_is_granted_meanwhile_is_cut_with_its_account(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To disable a large account takes a while, and its devices go on: whoever came in after they were counted is
    shut out like the others."""
    await world.granted(await world.request("gw1"))
    late, plan, came = await world.request("gw2"), world.effects.plan, list[Delivery]()

    async def meanwhile(verb: EffectVerb, user: AccountUser) -> Put:
        if not came:
            came.append(await world.granted(late))
        return await plan(verb, user)

    monkeypatch.setattr(world.effects, "plan", meanwhile)
    await world.accounts.update(ADA, "acme", {"enabled": False})
    assert not world.broker.connect(came[0])
    assert [user.enabled for user in world.broker.known.values()] == [False, False]
