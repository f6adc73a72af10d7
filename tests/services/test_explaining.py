"""What an administrator can see beforehand: every check at any instant, and the configuration to be delivered."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from provisioner.model.decision import CHECKS
from provisioner.model.device import Device
from provisioner.model.device_config import TRANSPORT_PID
from provisioner.model.errors import InvalidInput
from provisioner.model.policy import Policy
from provisioner.model.user import AccountUser
from tests.services.world import ADA, NOON, World, in_world

HOUR = timedelta(hours=1)


def blanked(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not known before the grant: username and password."""
    transport = {**configuration[TRANSPORT_PID], "username": "?", "password": "?"}
    return {**configuration, TRANSPORT_PID: transport}


@pytest.mark.parametrize(
    ("at", "failing"),
    [
        (None, ["window has opened", "approved"]),
        ((NOON + HOUR).isoformat(), ["approved"]),
        ((NOON + 2 * HOUR).isoformat(), ["window has not closed", "approved"]),
    ],
)
@in_world
async def test_an_explanation_shows_every_check_at_an_instant(world: World, at: str | None, failing: list[str]) -> None:
    """EC-20, EC-22: past the first refusal too, now or at any instant, and without consuming anything."""
    window = {"activates_on": (NOON + HOUR).isoformat(), "expires_on": (NOON + 2 * HOUR).isoformat()}
    await world.request(**window, activation_key=True, require_approval=True)
    before = await world.counts()
    request, decision = await world.requests.explain("gw1", at)
    assert request.client_id == "gw1"
    assert [check.name for check in decision.checks if not check.passed] == failing
    assert len(decision.checks) == len(CHECKS)
    assert await world.counts() == before


@in_world
async def test_an_explanation_wants_a_proper_instant(world: World) -> None:
    """F-33: a naive time is refused here too."""
    await world.request()
    with pytest.raises(InvalidInput, match="at: "):
        await world.requests.explain("gw1", "2030-01-01T00:00:00")


@pytest.mark.parametrize("policy", [Policy(shared_credentials_require_key=False)])
@in_world
async def test_an_explanation_sees_the_device_and_its_neighbours(world: World, policy: Policy) -> None:
    """F-22, AZ-05: a disabled device is part of the explanation."""
    await world.confirmed(await world.request())
    await world.devices.disable(ADA, "gw1")
    _, decision = await world.requests.explain("gw1")
    assert [check.name for check in decision.checks if not check.passed] == [
        "device is enabled",
        "not provisioned before",
    ]


@in_world
async def test_a_preview_is_what_will_be_delivered_without_the_password(world: World) -> None:
    """EC-29, F-47: the same merge, the two things that are not known yet in brackets, and the paths overridden."""
    additional = {
        TRANSPORT_PID: {"USER.NAME": "evil", "username": "evil", "keep-alive": 5},
        "org.example.A": {"x": None},
    }
    made = await world.request(configuration=additional)
    preview = await world.requests.preview("gw1")
    delivered = (await world.granted(made)).configuration
    assert blanked(preview.configuration) == blanked(delivered)
    assert preview.overridden == [f"{TRANSPORT_PID}/USER.NAME", f"{TRANSPORT_PID}/username"]


@in_world
async def test_a_preview_makes_nothing(world: World) -> None:
    """EC-29: no user, no device, no audit row."""
    await world.request()
    before = await world.counts()
    preview = await world.requests.preview("gw1")
    assert preview.configuration[TRANSPORT_PID]["password"] == "(generated)"
    assert await world.counts() == before
    assert (await world.store.count(AccountUser), await world.store.count(Device)) == (0, 0)
