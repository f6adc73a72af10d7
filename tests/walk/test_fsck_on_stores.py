"""``fleetgate fsck`` on each kind of store: what contradicts itself is found by name, and nothing else is."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.model.device import Device
from provisioner.model.ports import Delete, Noun, Put, Unit
from provisioner.model.request import ProvisionRequest, RequestState
from provisioner.model.user import AccountUser
from tests.support.installation import Installation
from tests.support.stores import KINDS, StoreSite, empty_site

INCONSISTENT = 1
MANY = 2_500  # more than two pages


@pytest.mark.parametrize("kind", KINDS)
def test_f_25_contradictions_are_found_on_every_store(
    make_installation: Callable[..., Installation], request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """F-25: records that were taken away behind the service's back are named, on any page, with exit status 1; what is
    sound is not."""
    store = empty_site(kind, tmp_path / "store", request)
    site = make_installation(store=store.settings)
    with site.running():
        site.account()
        site.provision(site.request("done"))
        with site.device(site.request("granted")) as device:
            assert device.ask()["status"] == "provisioned"
        assert site.ask("fsck") == {"findings": []}
        granted = site.ask("request.show", id="granted")["id"]
    expected = asyncio.run(damage(store, granted))
    with site.running():
        done = site.cli("fsck", "-o", "json", status=INCONSISTENT)
        found = {(each["kind"], each["subject"]) for each in json.loads(done.stdout)}
        assert found == expected
        assert f"{len(found)} findings" in done.stderr


async def damage(store: StoreSite, granted: str) -> set[tuple[str, str]]:
    """What fsck has to say of it."""
    open_store = await store.open()
    try:
        request = await open_store.get(ProvisionRequest, granted)
        assert request is not None
        (device,) = await open_store.find(Device, "request", granted)
        (user,) = await open_store.find(AccountUser, "device", device.id)
        copies: list[Noun] = [
            replace(
                request,
                id=f"req-Z{number:015d}",
                client_id=f"copy-{number}",
                client_id_claim=f"/copy-{number}",
                account="acme" if number < MANY - 1 else "gone",
                grant=None,
                state=RequestState.PENDING,
                version=0,
            )
            for number in range(MANY)
        ]
        for start in range(0, MANY, 500):
            await open_store.commit(Unit([Put(noun) for noun in copies[start : start + 500]]))
        await open_store.commit(Unit([Delete(device)]))
    finally:
        await open_store.close()
    return {
        ("granted_without_device", granted),
        ("user_without_device", user.id),
        ("request_without_account", copies[-1].id),
    }
