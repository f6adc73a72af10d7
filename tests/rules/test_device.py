"""The life of a device in the registry."""

import pytest

from provisioner.model.device import DeviceMove, DeviceState, move
from provisioner.model.errors import IllegalMove
from tests.rules.nouns import a_device

PROVISIONED, CONNECTED, DISABLED, REVOKED = DeviceState

# One row a state; "-" is illegal.
LIFE = {
    #              provision       see         disable     enable         revoke
    PROVISIONED: ("provisioned", "connected", "disabled", "-", "revoked"),
    CONNECTED: ("provisioned", "connected", "disabled", "-", "revoked"),
    DISABLED: ("-", "-", "-", "provisioned", "revoked"),
    REVOKED: ("provisioned", "-", "-", "-", "revoked"),
}


@pytest.mark.parametrize("state", list(DeviceState))
@pytest.mark.parametrize(("column", "what"), list(enumerate(DeviceMove)))
def test_the_life_cycle_has_these_moves_and_no_others(state: DeviceState, column: int, what: DeviceMove) -> None:
    """AZ-04, AZ-05: a disabled device waits to be enabled, a revoked one for a new grant; the rest as in the table."""
    expected = LIFE[state][column]
    if expected == "-":
        with pytest.raises(IllegalMove, match=f"{state} device cannot {what}"):
            move(state, what)
    else:
        assert move(state, what) == expected


def test_a_client_id_is_unique_within_its_account() -> None:
    """EC-30: two accounts may have a device of one client id, one account may not; one request makes one device."""
    mine, theirs = a_device(account="acme"), a_device(account="globex", request="req-2")
    assert mine.unique()["client_id"] != theirs.unique()["client_id"]
    assert mine.unique() == a_device(id="dev-2").unique()
