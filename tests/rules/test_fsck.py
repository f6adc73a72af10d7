"""fsck: every kind of contradiction is found by name, and a sound installation has none."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provisioner.model.account import Account
from provisioner.model.device import Device
from provisioner.model.effect import Effect, EffectVerb
from provisioner.model.ports import BrokerUser, Delete, Put, Unit
from provisioner.model.request import ProvisionRequest, RequestState
from provisioner.model.user import AccountUser, ProvisionUser
from provisioner.services import fsck as module
from provisioner.services.fsck import Finding, fsck
from tests.rules.admin_desk import BROKER, Desk, open_desk

CONFIRMED, GRANTED, PENDING = "gw1", "gw2", "gw3"
N = ProvisionRequest | Device | AccountUser | ProvisionUser | Account


def sound(folder: Path, then: Callable[[Desk], Awaitable[None]]) -> None:
    """An installation with a request of each state, then what a test does to it."""

    async def walk() -> None:
        async with open_desk(folder) as desk:
            await desk.account()
            made = {client_id: await desk.request(client_id) for client_id in (CONFIRMED, GRANTED, PENDING)}
            await desk.confirm(await desk.grant(made[CONFIRMED]))
            await desk.grant(made[GRANTED])
            await then(desk)

    asyncio.run(walk())


def rivals(*requests: ProvisionRequest) -> list[Finding]:
    """Of requests that no store would keep beside each other."""
    known = module._Known(accounts={})
    return [finding for request in requests for finding in module._rivals(request, known)]


async def found(desk: Desk) -> set[tuple[str, str]]:
    return {(finding.kind, finding.subject) for finding in await fsck(desk.platform)}


async def the(desk: Desk, client_id: str) -> ProvisionRequest:
    (request,) = await desk.platform.store.find(ProvisionRequest, "any_client_id", client_id)
    return request


async def change(desk: Desk, *changes: Put | Delete) -> None:
    await desk.platform.store.commit(Unit(changes=changes))


async def user_of(desk: Desk, client_id: str) -> AccountUser:
    request = await the(desk, client_id)
    assert request.grant is not None
    user = await desk.platform.store.get(AccountUser, f"{request.account}/{request.grant.username}")
    assert user is not None
    return user


async def device_of(desk: Desk, client_id: str) -> Device:
    (device,) = await desk.platform.store.find(Device, "any_client_id", client_id)
    return device


def test_sound_installation_has_no_findings(tmp_path: Path) -> None:
    """Whatever administrators and devices do leaves the records consistent."""

    async def then(desk: Desk) -> None:
        assert await found(desk) == set()
        for verb, id in (("request.rearm", CONFIRMED), ("request.revoke", GRANTED), ("request.delete", PENDING)):
            await desk.ask(verb, id=id)
            assert await found(desk) == set(), verb
        await desk.confirm(
            await desk.grant(
                {
                    "id": (await the(desk, CONFIRMED)).id,
                    "client_id": CONFIRMED,
                    "username": f"user-{CONFIRMED}",
                    "secrets": {},
                }
            )
        )
        await desk.ask("device.disable", id=CONFIRMED)
        await desk.ask("account.update", id="acme", fields={"enabled": False})
        assert await found(desk) == set()

    sound(tmp_path, then)


def test_account_goes_with_its_provision_users(tmp_path: Path) -> None:
    """A username is free again once its account is gone; nothing is left that belongs to nobody."""

    async def then(desk: Desk) -> None:
        await desk.account("globex")
        await desk.request("gw9", account="globex", username="lobby")
        await desk.ask("request.delete", id="gw9")
        await desk.ask("account.delete", id="globex")
        assert await found(desk) == set()
        await desk.request("gw9", username="lobby")

    sound(tmp_path, then)


async def _lose_user(desk: Desk) -> tuple[str, str]:
    user = await user_of(desk, GRANTED)
    await desk.broker.remove_user(user.account, user.username)
    await change(desk, Delete(user))
    return "granted_without_user", (await the(desk, GRANTED)).id


async def _lose_grant(desk: Desk) -> tuple[str, str]:
    request = await the(desk, GRANTED)
    await change(desk, Put(replace(request, grant=None)))
    return "granted_without_grant", request.id


async def _spoil_box(desk: Desk) -> tuple[str, str]:
    request = await the(desk, GRANTED)
    assert request.grant is not None
    box = request.grant.sealed
    assert box is not None
    await change(desk, Put(replace(request, grant=replace(request.grant, sealed=box.replace("gcm1$", "gcm1$other")))))
    return "sealed_box_unreadable", request.id


async def _damage_box(desk: Desk) -> tuple[str, str]:
    request = await the(desk, GRANTED)
    assert request.grant is not None
    assert request.grant.sealed is not None
    broken = request.grant.sealed.rpartition("$")[0] + "$x"
    await change(desk, Put(replace(request, grant=replace(request.grant, sealed=broken))))
    return "sealed_box_unreadable", request.id


async def _leave_box(desk: Desk) -> tuple[str, str]:
    request = await the(desk, GRANTED)
    await change(desk, Put(replace(request, state=RequestState.REVOKED)))
    return "sealed_box_left", request.id


async def _lose_provision_user(desk: Desk) -> tuple[str, str]:
    user = await desk.platform.store.get(ProvisionUser, f"user-{PENDING}")
    assert user is not None
    await change(desk, Delete(user))
    return "request_without_provision_user", (await the(desk, PENDING)).id


async def _orphan_effect(desk: Desk) -> tuple[str, str]:
    effect = Effect(
        id="acme/nobody",
        verb=EffectVerb.APPLY,
        broker=BROKER,
        account="acme",
        username="nobody",
        created_at=desk.platform.now(),
    )
    await change(desk, Put(effect))
    return "effect_without_user", effect.id


async def _effect_elsewhere(desk: Desk) -> tuple[str, str]:
    user = await user_of(desk, GRANTED)
    plan = await desk.effects.plan(EffectVerb.APPLY, replace(user, broker="gone"))
    await change(desk, plan)
    return "effect_without_broker", user.id


async def _forget_at_broker(desk: Desk) -> tuple[str, str]:
    user = await user_of(desk, CONFIRMED)
    await desk.broker.remove_user(user.account, user.username)
    return "user_missing_at_broker", user.id


async def _smuggle_into_broker(desk: Desk) -> tuple[str, str]:
    await desk.broker.put_user(BrokerUser(account="acme", username="intruder", client_id="x", verifier="v"))
    return "user_only_at_broker", "acme/intruder"


async def _take_broker_away(desk: Desk) -> tuple[str, str]:
    desk.broker.reachable = False
    return "broker_unreachable", BROKER


async def _account_elsewhere(desk: Desk) -> tuple[str, str]:
    account = await desk.platform.store.get(Account, "acme")
    assert account is not None
    await change(desk, Put(replace(account, broker="gone")))
    return "account_without_broker", "acme"


BREAKS = (
    *(_lose_user, _lose_grant, _spoil_box, _damage_box, _leave_box, _lose_provision_user, _orphan_effect),
    *(_effect_elsewhere, _forget_at_broker, _smuggle_into_broker, _take_broker_away, _account_elsewhere),
)


@pytest.mark.parametrize("break_", BREAKS, ids=lambda break_: break_.__name__.strip("_"))
def test_contradiction_is_found_and_nothing_else(tmp_path: Path, break_: Callable[[Desk], Awaitable[Any]]) -> None:
    """One broken record gives one finding, with its kind and the record that it is about."""

    async def then(desk: Desk) -> None:
        assert {await break_(desk)} == await found(desk)

    sound(tmp_path, then)


def test_lost_device_is_found_at_both_ends(tmp_path: Path) -> None:
    """A device that is gone is missed by the request that made it and by its user."""

    async def then(desk: Desk) -> None:
        user, request = await user_of(desk, GRANTED), await the(desk, GRANTED)
        await change(desk, Delete(await device_of(desk, GRANTED)))
        assert await found(desk) == {("granted_without_device", request.id), ("user_without_device", user.id)}

    sound(tmp_path, then)


def test_lost_account_is_found_for_all_that_it_owned(tmp_path: Path) -> None:
    """Everything that belongs to an account that does not exist is listed."""

    async def then(desk: Desk) -> None:
        account = await desk.platform.store.get(Account, "acme")
        assert account is not None
        await change(desk, Delete(account))
        kinds = [kind for kind, _ in sorted(await found(desk))]
        owned = {"request": 3, "provision_user": 3, "device": 2, "user": 2}
        assert {name: kinds.count(f"{name}_without_account") for name in owned} == owned
        assert len(kinds) == sum(owned.values())

    sound(tmp_path, then)


def test_ec07_client_id_of_two_open_requests_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EC-07: two open requests of one client id, or of one login, are found even where no index refused them."""

    async def then(desk: Desk) -> None:
        first = await the(desk, PENDING)
        twin = replace(first, id="req-ZZZZZZZZZZZZZZZZ", version=0)
        closed = replace(first, id="req-0000000000000000", state=RequestState.REVOKED, version=0)
        findings = rivals(first, twin, closed)
        assert {(finding.kind, finding.subject) for finding in findings} == {
            ("client_id_twice", first.id),
            ("login_twice", first.id),
        }
        assert rivals(first, closed) == []

    sound(tmp_path, then)


def test_what_is_found_once_only_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contradiction that is gone at the second look was a change under way."""

    async def then(desk: Desk) -> None:
        await _smuggle_into_broker(desk)
        sleep = asyncio.sleep

        async def meanwhile(seconds: float) -> None:
            if seconds:
                await desk.broker.remove_user("acme", "intruder")
            await sleep(0)

        monkeypatch.setattr(asyncio, "sleep", meanwhile)
        assert await fsck(desk.platform) == []

    sound(tmp_path, then)


def test_user_that_waits_for_its_effect_is_no_finding(tmp_path: Path) -> None:
    """D6: what is committed and not applied yet is the ordinary state after a crash, not a contradiction."""

    async def then(desk: Desk) -> None:
        user = await user_of(desk, GRANTED)
        await desk.broker.remove_user(user.account, user.username)
        await change(desk, await desk.effects.plan(EffectVerb.APPLY, user))
        assert await found(desk) == set()

    sound(tmp_path, then)


def test_findings_are_ordered_and_told_through_the_door(tmp_path: Path) -> None:
    """The verb lists kind, subject and detail; the order is that of kind and subject."""

    async def then(desk: Desk) -> None:
        await _smuggle_into_broker(desk)
        await _orphan_effect(desk)
        findings = (await desk.ask("fsck"))["findings"]
        assert [finding["kind"] for finding in findings] == ["effect_without_user", "user_only_at_broker"]
        assert set(findings[0]) == {"kind", "subject", "detail"}
        assert await fsck(desk.platform) == sorted(Finding(**finding) for finding in findings)

    sound(tmp_path, then)
