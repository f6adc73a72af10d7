"""Which client ids a device's new user may connect as, tried at every kind of account broker."""

from collections.abc import Callable

import pytest

from tests.support.every_broker import KINDS, EveryBroker, Home

FreshId = Callable[[], str]
each_kind = pytest.mark.parametrize("broker", KINDS)
# The six cells, INHERITED once for each mode that an account can have: coupling, account, whether it is lent out.
MODES = [
    ("STRICT", "loose", False),
    ("LOOSE", "strict", True),
    ("INHERITED", "strict", False),
    ("INHERITED", "loose", True),
]


def account_on(broker: str, mode: str) -> str:
    return f"{broker}-loose" if mode == "loose" else broker


def admitted(site: EveryBroker, broker: str, home: Home, client_id: str) -> bool:
    """Whether the broker takes the user for that client id, and not for itself whatever client id it gives."""
    if not site.can(broker)["checks_client_id"] and client_id != home.client_id:
        is_itself(home, client_id)
        return False
    try:
        home.connect(client_id).leave()
    except ConnectionRefusedError:
        return False
    return True


def is_itself(home: Home, client_id: str) -> None:
    """Under the other client id it has its own topics, and none of the other one's."""
    account = home.answer["account"]
    with home.connect(client_id) as wire:
        wire.subscribe(f"{home.topic}/#", f"{account}/{client_id}/#")
        wire.publish(f"{account}/{client_id}/data", b"as another")
        wire.publish(f"{home.topic}/data", b"as itself")
        assert home.heard(wire) == [(f"{home.topic}/data", b"as itself")]


@each_kind
@pytest.mark.parametrize("reserve_user", [False, True], ids=["free", "reserved"])
@pytest.mark.parametrize(("coupling", "mode", "loose"), MODES)
def test_ec_26_coupling_and_reservation_decide_together(
    every_broker: EveryBroker,
    fresh_id: FreshId,
    broker: str,
    coupling: str,
    mode: str,
    loose: bool,
    reserve_user: bool,
) -> None:
    """EC-26: its own client id always, any other in LOOSE mode only, and none at all where the user is reserved; where
    the broker says that it cannot be LOOSE, every user is bound to its device."""
    site, account = every_broker, account_on(broker, mode)
    home = site.resident(broker, fresh_id(), account, coupling=coupling, reserve_user=reserve_user)
    neighbour = site.resident(broker, fresh_id(), account, coupling=coupling)
    lent_out = loose and not reserve_user and site.can(broker)["loose"]
    assert admitted(site, broker, home, home.client_id)
    assert admitted(site, broker, home, fresh_id()) == lent_out
    assert admitted(site, broker, home, neighbour.client_id) == lent_out
    # The other way round: the client id of a reserved user takes nobody else.
    assert admitted(site, broker, neighbour, home.client_id) == lent_out
    user = site.installation.ask("user.show", account=account, username=home.answer["username"])
    assert (user["reserved"], user["coupling"]) == (reserve_user, "LOOSE" if loose else "STRICT")


@each_kind
def test_ec_26_whoever_is_not_admitted_disturbs_nobody(
    every_broker: EveryBroker, fresh_id: FreshId, broker: str
) -> None:
    """EC-25, EC-26: the device of a reserved user stays connected and hears nothing, whoever tries its client id."""
    site, account = every_broker, f"{broker}-loose"
    home = site.resident(broker, fresh_id(), account, coupling="LOOSE", reserve_user=True)
    others = [site.resident(broker, fresh_id(), account, coupling=coupling) for coupling in ("LOOSE", "STRICT")]
    with home.listening() as wire:
        for other in others:
            assert not admitted(site, broker, other, home.client_id)
        assert home.heard(wire) == []


@each_kind
def test_ec_25_a_reserved_user_serves_one_device_connection(
    every_broker: EveryBroker, fresh_id: FreshId, broker: str
) -> None:
    """EC-25: Reserve User holds even where everything else is LOOSE, and is shown with the device's connection."""
    site, account = every_broker, f"{broker}-loose"
    home = site.resident(broker, fresh_id(), account, reserve_user=True)
    device = site.installation.ask("device.show", id=home.client_id)
    assert (device["user"], device["reserved_user"]) == (home.answer["username"], home.answer["username"])
    assert admitted(site, broker, home, home.client_id)
    for other in (fresh_id(), home.client_id.upper(), f"{home.client_id}-2"):
        assert not admitted(site, broker, home, other)

    free = site.resident(broker, fresh_id(), account)
    assert site.installation.ask("device.show", id=free.client_id)["reserved_user"] is None
    assert admitted(site, broker, free, fresh_id()) == site.can(broker)["loose"]
    assert not admitted(site, broker, free, home.client_id)
