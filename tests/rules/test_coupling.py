"""Truth table of user and client id (EC-25, EC-26)."""

import pytest

from provisioner.model.account import Coupling
from provisioner.model.coupling import CLIENT_ID_RESERVED, NOT_ITS_OWN, RESERVED_ELSEWHERE, may_connect
from provisioner.model.ports import BrokerUser

LOOSE, STRICT, INHERITED = Coupling.LOOSE, Coupling.STRICT, Coupling.INHERITED


def user(name: str, client_id: str, coupling: Coupling, reserved: bool = False) -> BrokerUser:
    return BrokerUser(
        account="acme", username=name, client_id=client_id, verifier="v", reserved=reserved, coupling=coupling
    )


@pytest.mark.parametrize("reserved", [False, True])
@pytest.mark.parametrize(
    ("mode", "account_default", "of_another"),
    [
        (STRICT, LOOSE, NOT_ITS_OWN),
        (LOOSE, STRICT, None),
        (INHERITED, STRICT, NOT_ITS_OWN),
        (INHERITED, LOOSE, None),
    ],
)
def test_own_and_other_client_id(
    mode: Coupling, account_default: Coupling, of_another: str | None, reserved: bool
) -> None:
    """EC-26: its own client id in every mode, another's in LOOSE only; EC-25: reserved, never another's."""
    coupling = mode.within(account_default)
    asking = user("a", "gw1", coupling, reserved)
    expected = RESERVED_ELSEWHERE if reserved else of_another
    assert may_connect(asking, "gw1", asking) is None
    assert may_connect(asking, "gw2", user("b", "gw2", coupling)) == expected
    assert may_connect(asking, "gw3", None) == expected


@pytest.mark.parametrize("coupling", [LOOSE, STRICT])
def test_a_reserved_client_id_takes_its_own_user_only(coupling: Coupling) -> None:
    """EC-26 (kapua PR 4195): an owner's reservation refuses everybody else, in LOOSE mode and for its own id too."""
    owner = user("b", "gw2", coupling, reserved=True)
    assert may_connect(user("a", "gw1", coupling), "gw2", owner) == CLIENT_ID_RESERVED
    assert may_connect(user("a", "gw2", coupling), "gw2", owner) == CLIENT_ID_RESERVED
    assert may_connect(owner, "gw2", owner) is None


@pytest.mark.parametrize(("asking", "owner"), [(STRICT, LOOSE), (LOOSE, STRICT)])
def test_strict_on_either_end_binds_both(asking: Coupling, owner: Coupling) -> None:
    """EC-26: a STRICT user is not lent out by a LOOSE client id, nor the other way round."""
    assert may_connect(user("a", "gw1", asking), "gw2", user("b", "gw2", owner)) == NOT_ITS_OWN
