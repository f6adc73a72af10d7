"""The administrators' door: users, devices, accounts and the audit log."""

import asyncio

from tests.rules.admin_desk import ADMIN, BROKER, Desk, at_desk, every, refused, stored


@at_desk
async def test_ec11_provision_user_is_seen_in_the_provision_account(desk: Desk) -> None:
    """EC-11: a request's username is a user of the provision account, owned by one account."""
    await desk.request(username="lobby")
    page = await desk.ask("user.page", account="provision")
    assert [(user["username"], user["account"], user["kind"]) for user in page["items"]] == [
        ("lobby", "acme", "provision")
    ]
    assert (await desk.ask("user.show", account="provision", username="lobby"))["account"] == "acme"
    await desk.account("globex")
    error = await refused(desk.request("gw2", account="globex", username="lobby"))
    assert error["kind"] == "conflict"


@at_desk
async def test_ec31_account_user_may_exactly_connect(desk: Desk) -> None:
    """EC-31: the user that a grant makes is shown in its account with broker:connect and nothing else."""
    answer = await desk.grant(await desk.request())
    assert answer.delivery is not None
    user = await desk.ask("user.show", account="acme", username=answer.delivery.username)
    assert user["permissions"] == ["broker:connect"]
    assert [u["username"] for u in (await desk.ask("user.page", account="acme"))["items"]] == [answer.delivery.username]


@at_desk
async def test_device_is_disabled_enabled_and_kicked(desk: Desk) -> None:
    """AZ-05: disabling reaches the account broker with the answer; kicking says whether anybody was there."""
    answer = await desk.grant(await desk.request())
    assert answer.delivery is not None
    user = ("acme", answer.delivery.username)
    assert (await desk.ask("device.disable", id="gw1", account="acme"))["state"] == "disabled"
    assert desk.broker.known[user].enabled is False
    assert (await desk.ask("device.enable", id="gw1"))["state"] == "provisioned"
    assert desk.broker.known[user].enabled is True
    assert (await desk.ask("device.kick", id="gw1"))["cut"] is True
    assert (await refused(desk.ask("device.show", id="gw1", account="globex")))["kind"] == "not_found"


@at_desk
async def test_device_is_revoked(desk: Desk) -> None:
    """AZ-04: its account broker has forgotten it when the answer comes, its request is closed, and it is listed so."""
    await desk.grant(await desk.request())
    assert (await desk.ask("device.revoke", id="gw1", account="acme"))["state"] == "revoked"
    assert desk.broker.known == {}
    assert (await desk.ask("request.show", id="gw1"))["state"] == "revoked"
    assert [each["client_id"] for each in await every(desk, "device.page", state="revoked")] == ["gw1"]


@at_desk
async def test_what_an_accounts_broker_can_do_is_shown(desk: Desk) -> None:
    """EC-26: with the account and in the status, so that nobody expects of a broker what it cannot."""
    shown = (await desk.ask("account.show", id="acme"))["broker_capabilities"]
    assert {"kicks", "reports_sightings", "refuses_subscribe", "checks_client_id", "loose", "users_max"} <= shown.keys()
    assert (await desk.ask("status"))["account_brokers"] == {BROKER: shown}


@at_desk
async def test_account_lives_and_goes(desk: Desk) -> None:
    """An account is shown, changed and deleted; one that still has requests conflicts."""
    assert (await desk.ask("account.update", id="acme", fields={"coupling": "LOOSE"}))["coupling"] == "LOOSE"
    assert (await desk.ask("account.show", id="acme"))["coupling"] == "LOOSE"
    await desk.request()
    assert (await refused(desk.ask("account.delete", id="acme")))["kind"] == "conflict"
    await desk.ask("request.delete", id="gw1")
    await desk.ask("account.delete", id="acme")
    assert (await desk.ask("account.page"))["items"] == []


@at_desk
async def test_audit_is_read_by_page_and_by_kind(desk: Desk) -> None:
    """Rows come in order, each once, and can be narrowed to an action, a noun, an account or a client id."""
    await desk.request("gw1")
    await desk.request("gw2")
    await desk.ask("request.revoke", id="gw1")
    rows = await every(desk, "audit.page", limit=2)
    assert [row["seq"] for row in rows] == [1, 2, 3, 4]
    assert {row["actor"] for row in rows} == {ADMIN}
    for filters, expected in (
        ({"action": "request"}, [2, 3, 4]),
        ({"action": "request.revoke"}, [4]),
        ({"action": "requ"}, []),
        ({"client_id": "gw1"}, [2, 4]),
        ({"account": "globex"}, []),
    ):
        assert [row["seq"] for row in await every(desk, "audit.page", limit=2, **filters)] == expected, filters


@at_desk
async def test_audit_wait_returns_with_the_next_row(desk: Desk) -> None:
    """A long poll ends as soon as something happens, and says where the next one goes on."""
    start = (await desk.ask("audit.wait"))["after"]
    waiting = asyncio.create_task(desk.ask("audit.wait", after=start, wait_s=20))
    await asyncio.sleep(0)
    assert not waiting.done()
    await desk.request()
    page = await asyncio.wait_for(waiting, 5)
    assert [row["action"] for row in page["items"]] == ["request.create"]
    assert page["after"] == start + 1


@at_desk
async def test_audit_wait_ends_empty_when_nothing_happens(desk: Desk) -> None:
    """Without an event the answer is empty and comes when the time is over."""
    page = await asyncio.wait_for(desk.ask("audit.wait", wait_s=1), 5)
    assert page["items"] == []
    assert page["after"] == (await stored(desk))[1]
