"""Activation keys: made by the platform, shown once, and asked of the device beside its credentials."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.device import Credentials
from tests.support.fleet import devices, fleet_of, run_fleet
from tests.support.installation import Installation

FreshId = Callable[[], str]
KEY_BITS_MIN = 128
# What a person copies wrongly from a label: each of these has a look-alike.
AMBIGUOUS = set("ILOUilou")


def test_ec_15_a_key_is_optional_and_off_by_default(shared_installation: Installation, fresh_id: FreshId) -> None:
    """Without the option there is no key, and the device needs none."""
    site = shared_installation
    credentials = site.request(fresh_id())
    assert credentials.activation_key is None
    assert site.ask("request.show", id=credentials.client_id)["activation_key"] is False
    with site.device(credentials) as device:
        assert device.ask()["status"] == "provisioned"


def test_ec_15_a_key_is_shown_at_creation_and_never_again(shared_installation: Installation, fresh_id: FreshId) -> None:
    """The option prints the key once; no later view, listing, audit row, log line or file holds it in clear."""
    site, client_id = shared_installation, fresh_id()
    create = ("request", "create", "--account", "acme", "--client-id", client_id, "--username", f"user-{client_id}")
    printed = site.cli(*create, "--activation-key").stdout
    made = json.loads(printed)
    secrets = made["secrets"]
    key = secrets["activation_key"]
    assert (printed.count(key), made["activation_key"]) == (1, True)
    credentials = Credentials(client_id=client_id, username=made["username"], **secrets)
    site.provision(credentials, broker="north")
    for verb in (("request", "show", client_id), ("request", "list"), ("request", "export"), ("audit", "list")):
        assert key not in site.cli(*verb).stdout, verb
    assert [path for path in _files(site.folder) if _holds(path, key)] == []


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _holds(path: Path, key: str) -> bool:
    content = path.read_bytes()
    return key.encode() in content or key.replace("-", "").encode() in content


def test_ec_16_only_the_right_key_provisions(shared_installation: Installation, fresh_id: FreshId) -> None:
    """Without the key or with a wrong one the device is refused and no user is made; the right one provisions."""
    site = shared_installation
    credentials, other = (site.request(fresh_id(), activation_key=True) for _ in range(2))
    with site.device(credentials) as device:
        for key in (None, "0" * 30, other.activation_key):
            answer = device.ask(activation_key=key)
            assert (answer["status"], answer.keys() & {"password", "configuration"}) == ("refused", set())
        rows = site.await_audit("provision.key_failure", 3, client_id=credentials.client_id)
        assert {row["reason"] for row in rows} == {"activation_key"}
        assert site.users_of(credentials.client_id) == []
        assert site.state(credentials.client_id) == "pending"
        answer = device.ask()
        assert answer["status"] == "provisioned"
    assert site.users_of(credentials.client_id) == [answer["username"]]


def test_ec_16_keys_are_strong_and_can_be_copied(shared_installation: Installation, fresh_id: FreshId) -> None:
    """At least 128 bits from an alphabet without look-alikes; typed in lower case and without dashes it is the key."""
    site = shared_installation
    requested = [site.request(fresh_id(), activation_key=True) for _ in range(50)]
    keys = [str(credentials.activation_key).replace("-", "") for credentials in requested]
    alphabet = set("".join(keys))
    assert len(set(keys)) == 50
    assert not alphabet & AMBIGUOUS
    assert len(keys[0]) * math.log2(len(alphabet)) >= KEY_BITS_MIN
    # 1,500 draws out of 32 letters leave hardly one out.
    assert len(alphabet) >= 30
    with site.device(requested[0]) as device:
        assert device.ask(activation_key=keys[0].lower())["status"] == "provisioned"


@pytest.mark.parametrize("kind", ["json", "esf"])
def test_ec_17_keys_work_with_shared_and_with_own_credentials(
    shared_installation: Installation, fresh_id: FreshId, kind: str
) -> None:
    """One run: devices with one username for all, devices with one each, and one of either with a neighbour's key."""
    site = shared_installation
    shared = {"username": f"user-{fresh_id()}", "password": "Printed-on-every-label"}
    fleet = [site.request(fresh_id(), activation_key=True, **shared) for _ in range(3)]
    fleet += [site.request(fresh_id(), activation_key=True) for _ in range(3)]
    right, swapped = [fleet[n] for n in (0, 1, 3, 4)], [fleet[n] for n in (2, 5)]
    report, sim = run_fleet(
        site,
        *(fleet_of(credentials, kind=kind) for credentials in right),
        *(
            fleet_of(credentials, kind=kind, activation_key=neighbour.activation_key, expect="refused")
            for credentials, neighbour in zip(swapped, right, strict=False)
        ),
    )
    assert report.is_met, report
    for credentials in right:
        site.await_state(credentials.client_id, "confirmed")
    assert [site.users_of(credentials.client_id) for credentials in swapped] == [[], []]
    assert [runner.device.state.settings for runner in devices(sim)[4:]] == [None, None]
