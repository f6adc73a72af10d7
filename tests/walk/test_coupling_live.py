"""Which client ids a device's new user may connect as, tried at the account broker itself."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.support.installation import Installation

FreshId = Callable[[], str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """With an account of either default."""
    installation = Installation(tmp_path_factory.mktemp("coupling") / "installation")
    with installation.running():
        installation.account("strict", coupling="STRICT")
        installation.account("loose", coupling="LOOSE")
        yield installation


def admitted(site: Installation, answer: Mapping[str, Any], client_id: str) -> bool:
    """Whether the account broker takes the answer's user as that client id."""
    try:
        site.account_wire(answer, client_id=client_id).leave()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("reserve_user", [False, True], ids=["free", "reserved"])
@pytest.mark.parametrize(
    ("coupling", "account", "loose"),
    [
        ("STRICT", "strict", False),
        ("STRICT", "loose", False),
        ("LOOSE", "strict", True),
        ("LOOSE", "loose", True),
        ("INHERITED", "strict", False),
        ("INHERITED", "loose", True),
    ],
)
def test_ec_26_coupling_and_reservation_decide_together(
    site: Installation, fresh_id: FreshId, coupling: str, account: str, loose: bool, reserve_user: bool
) -> None:
    """Its own client id always, any other in LOOSE mode only, and none at all where the user is reserved."""
    credentials = site.request(fresh_id(), account, coupling=coupling, reserve_user=reserve_user)
    answer = site.provision(credentials)
    neighbour = site.provision(site.request(fresh_id(), account, coupling=coupling))
    assert admitted(site, answer, credentials.client_id)
    lent_out = loose and not reserve_user
    assert admitted(site, answer, fresh_id()) == lent_out
    assert admitted(site, answer, neighbour["client_id"]) == lent_out
    # The other way round: the client id of a reserved user takes nobody else.
    assert admitted(site, neighbour, credentials.client_id) == lent_out
    user = site.ask("user.show", account=account, username=answer["username"])
    assert (user["reserved"], user["coupling"]) == (reserve_user, "LOOSE" if loose else "STRICT")


def test_ec_25_a_reserved_user_serves_one_device_connection(site: Installation, fresh_id: FreshId) -> None:
    """Reserve User holds even where everything else is LOOSE, and is shown with the device's connection."""
    credentials = site.request(fresh_id(), "loose", reserve_user=True)
    answer = site.provision(credentials)
    device = site.ask("device.show", id=credentials.client_id)
    assert (device["user"], device["reserved_user"]) == (answer["username"], answer["username"])
    assert admitted(site, answer, credentials.client_id)
    for other in (fresh_id(), credentials.client_id.upper(), f"{credentials.client_id}-2"):
        assert not admitted(site, answer, other)

    free = site.provision(site.request(fresh_id(), "loose"))
    assert site.ask("device.show", id=free["client_id"])["reserved_user"] is None
    assert admitted(site, free, fresh_id())
    assert not admitted(site, free, credentials.client_id)
