"""Who comes in at every kind of account broker, as whom, and what that opens."""

import json
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest

from broker.packets import V5, V311, Subscribe, Subscription, Version
from tests.support.device import Address, Wire
from tests.support.every_broker import KINDS, MOSQUITTOS, REFUSED, EveryBroker, Home
from tests.support.installation import ROOT

FreshId = Callable[[], str]
Login = tuple[str | None, str | None]
each_kind = pytest.mark.parametrize("broker", KINDS)


def try_login(address: Address, client_id: str, login: Login, version: Version = V311) -> int:
    """The code of the CONNACK; -1 when there was none, or not even a connection."""
    try:
        with Wire(address, version) as wire:
            code = wire.connect(client_id, *login)
            assert code == 0 or wire.is_cut(), "refused, and left open"
            return code
    except OSError:
        return -1


@each_kind
@pytest.mark.parametrize("version", [V311, V5])
def test_az_03_nobody_comes_in_without_authentication(
    every_broker: EveryBroker, fresh_id: FreshId, broker: str, version: Version
) -> None:
    """AZ-03: anonymous, empty and wrong logins are refused on the listeners of devices and of the service."""
    home = every_broker.resident(broker, fresh_id())
    username, password = home.answer["username"], home.answer["password"]
    addresses = [replace(home.address, certificate=None)]
    if broker in MOSQUITTOS:
        addresses.append(Address(every_broker.mosquittos[broker].settings.control_port))
    for address in addresses:
        for login in ((None, None), ("", ""), (username, None), (username, ""), (username, "Wrong-1"), ("", password)):
            assert try_login(address, home.client_id, login, version) in REFUSED, (address, login)


@pytest.mark.parametrize("version", [V311, V5])
def test_az_03_the_gate_and_the_administrators_want_a_login_too(
    every_broker: EveryBroker, fresh_id: FreshId, version: Version
) -> None:
    """AZ-03: on every listener of the service itself."""
    site = every_broker.installation
    credentials = site.request(fresh_id(), "near")
    for address in (site.plain, site.secure, site.websocket, Address(site.admin_port)):
        for login in ((None, None), ("", ""), (credentials.username, None), (credentials.username, "Wrong-1")):
            assert try_login(address, credentials.client_id, login, version) in REFUSED, (address, login)


@each_kind
def test_ec_31_the_new_user_of_a_device_may_connect_and_no_more(
    every_broker: EveryBroker, fresh_id: FreshId, broker: str
) -> None:
    """EC-31: `user show` lists broker:connect alone; it opens its own topics, and no door of an administrator."""
    site, home = every_broker.installation, every_broker.resident(broker, fresh_id())
    username, password = home.answer["username"], home.answer["password"]
    user = json.loads(site.cli("user", "show", username, "--account", broker, "-o", "json").stdout)
    assert (user["permissions"], user["account"], user["broker"]) == (["broker:connect"], broker, broker)
    with home.listening() as wire:
        for topic in (f"{home.topic}/data", f"$EDC/{home.topic}/MQTT/BIRTH"):
            wire.publish(topic, b"mine")
            assert home.heard(wire) == [(topic, b"mine")]
    for version, refused in ((V311, 5), (V5, 0x87)):
        assert try_login(Address(site.admin_port), f"admin-{version}", (username, password), version) == refused
    if broker in ("files", "papers"):
        control = Address(every_broker.mosquittos[broker].settings.control_port)
        assert try_login(control, home.client_id, (username, password)) in REFUSED
    if broker == "rabbit":
        for url in every_broker.rabbit.management_urls:
            assert ask_management(url, username, password) == 401


def ask_management(url: str, username: str, password: str) -> int:
    """The status of RabbitMQ's own administration interface."""
    login = b64encode(f"{username}:{password}".encode()).decode()
    asked = urllib.request.Request(f"{url}/api/users", headers={"authorization": f"Basic {login}"})
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_ec_31_no_device_speaks_to_the_plugin(every_broker: EveryBroker, fresh_id: FreshId) -> None:
    """EC-31: what administers mosquitto from within hears nothing of a device, nor a device of it."""
    home = every_broker.resident("dynsec", fresh_id())
    control = Address(every_broker.mosquittos["dynsec"].settings.control_port)
    forged = {"commands": [{"command": "createClient", "username": "intruder", "password": "Intruder-pass-1"}]}
    for each in (home, replace(home, address=control)):  # one plugin serves both listeners
        with each.connect() as wire:
            filters = ("$CONTROL/#", "$CONTROL/dynamic-security/v1/response", "$SYS/#", "#")
            assert wire.subscribe(*filters) == (0x80,) * 4
            wire.publish("$CONTROL/dynamic-security/v1", json.dumps(forged).encode())
            assert wire.heard() == []
    assert try_login(home.address, "intruder", ("intruder", "Intruder-pass-1")) in REFUSED


def strangers(site: EveryBroker, broker: str, fresh_id: FreshId) -> Iterator[Home]:
    """Another device of the account, one of another account there, and one that may be any client id it likes."""
    yield site.resident(broker, fresh_id())
    yield site.resident(broker, fresh_id(), f"{broker}-loose", coupling="STRICT")
    yield site.resident(broker, fresh_id(), f"{broker}-loose")


@each_kind
def test_f_05_another_devices_client_id_takes_nothing_from_it(
    every_broker: EveryBroker, fresh_id: FreshId, broker: str
) -> None:
    """F-05: a valid user under another's client id is refused, or where client ids mean nothing is let in as itself;
    either way the rightful device stays connected and hears nothing of it, whosever account the other is of."""
    victim = every_broker.resident(broker, fresh_id())
    checks = every_broker.can(broker)["checks_client_id"]
    with victim.listening() as live:
        for other in strangers(every_broker, broker, fresh_id):
            if broker != "papers":
                crossed = (victim.answer["username"], other.answer["password"])
                assert try_login(victim.address, victim.client_id, crossed) in REFUSED
            for clean in (True, False):
                try:
                    wire = other.connect(victim.client_id, clean=clean)
                except ConnectionRefusedError:
                    assert checks
                    continue
                with wire:
                    wire.publish(f"{other.topic}/data", b"me")
                    wire.publish(f"{victim.topic}/data", b"forged")
        assert victim.heard(live) == []


@each_kind
def test_f_06_what_waits_for_an_absent_device_waits_for_it_alone(
    every_broker: EveryBroker, fresh_id: FreshId, broker: str
) -> None:
    """F-06: whoever asks for the session of an absent device under its client id finds none of it, message or right."""
    victim, other = (every_broker.resident(broker, fresh_id()) for _ in range(2))
    with victim.listening(clean=False) as wire:
        wire.publish(f"{victim.topic}/data", b"for me alone")
        assert wire.message(acknowledge=False) is not None
    try:
        wire = other.connect(victim.client_id, clean=False)
    except ConnectionRefusedError:
        assert every_broker.can(broker)["checks_client_id"]
    else:
        with wire:
            assert not every_broker.can(broker)["checks_client_id"], "it was let in as itself"
            assert wire.greeting is not None and not wire.greeting.session_present
            wire.subscribe(f"{victim.topic}/#", f"{other.topic}/#")
            assert other.heard(wire) == []
    if broker != "near":  # amqtt does not deliver again what was not acknowledged
        with victim.connect(clean=False) as wire:
            message = wire.message()
            assert message is not None and message.payload == b"for me alone", "it did wait there"


@each_kind
def test_f_07_nothing_retained_comes_to_another_device(
    every_broker: EveryBroker, fresh_id: FreshId, broker: str
) -> None:
    """F-07: a new device finds nothing kept for it; what another one retains, there or at home, reaches nobody."""
    author, victim = (every_broker.resident(broker, fresh_id()) for _ in range(2))
    with victim.listening() as wire:
        assert victim.heard(wire) == []
    with ExitStack() as stack:
        for topic in (f"{author.topic}/kept", f"{victim.topic}/command", f"$EDC/{victim.topic}/command"):
            stack.enter_context(author.connect()).publish(topic, b"kept", retain=True)
    with victim.listening() as wire:
        assert victim.heard(wire) == []
    for topic_filter in (f"{author.topic}/kept", f"{broker}/+/kept", "#"):
        with victim.connect() as wire:
            granted = wire.subscribe(topic_filter)
            if granted:  # else it was cut
                assert [message for message in wire.heard() if message.payload == b"kept"] == []


@each_kind
def test_f_12_neither_login_opens_the_other_broker(every_broker: EveryBroker, fresh_id: FreshId, broker: str) -> None:
    """F-12: provision credentials are refused on the account broker, account credentials on every listener of the
    gate."""
    site, home = every_broker.installation, every_broker.resident(broker, fresh_id())
    factory = (home.credentials.username, home.credentials.password)
    waiting = site.request(fresh_id(), broker)
    for credentials in (home.credentials, waiting):
        login = (credentials.username, credentials.password)
        assert try_login(replace(home.address, certificate=None), credentials.client_id, login) in REFUSED
    for address in (site.plain, site.secure, site.websocket):
        login = (home.answer["username"], home.answer["password"])
        assert try_login(address, home.client_id, login) == 5
        assert try_login(address, home.client_id, (factory[0], login[1])) == 5
    with home.connect():
        pass


def certified_elsewhere(site: EveryBroker, client_id: str) -> Home:
    """A device at home on the embedded broker that shows its certificate where certificates are the logins."""
    account = f"near-{client_id}"
    site.installation.account(account, "near", certificates="server-key")
    home = site.resident("near", client_id, account)
    paper = site.installation.folder / f"{client_id}.pem"
    paper.write_text(home.answer["certificate"] + home.answer["private_key"])
    return replace(home, address=replace(site.installation.account_brokers["papers"], certificate=paper))


@pytest.mark.parametrize("revoked", [False, True], ids=["valid", "revoked"])
def test_f_12_a_certificate_of_another_broker_stays_nowhere(
    every_broker: EveryBroker, fresh_id: FreshId, revoked: bool
) -> None:
    """F-12, AZ-04: the authority certifies devices of other brokers too; where the certificate is the login such a one
    is thrown out as soon as it comes, and reaches nobody meanwhile."""
    victim, home = every_broker.resident("papers", fresh_id()), certified_elsewhere(every_broker, fresh_id())
    if revoked:
        every_broker.installation.ask("device.revoke", id=home.client_id)
    with victim.listening() as wire:
        for client_id in (home.client_id, victim.client_id):
            with home.connect(client_id) as stranger:
                with suppress(OSError):  # it may be out already
                    stranger.send(Subscribe(1, (Subscription("#", 1),)))
                    stranger.publish(f"{victim.topic}/data", b"forged", wait=False)
                assert stranger.is_cut()
        assert victim.heard(wire) == []


def said_of(broker: str) -> dict[str, str]:
    """What docs/account-brokers.md says that a broker of this name can do: capability -> the words of its column."""
    rows = [line for line in (ROOT / "docs/account-brokers.md").read_text("utf-8").splitlines() if line[:2] == "| "]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in rows]
    head = next(row for row in cells if row[0] == "capability")
    column = head.index({"near": "embedded", "rabbit": "RabbitMQ"}.get(broker, KINDS[broker]))
    return {row[0].strip("`"): row[column] for row in cells if len(row) == len(head) and row[0][0] == "`"}


@each_kind
def test_what_a_broker_cannot_do_is_said(every_broker: EveryBroker, broker: str) -> None:
    """EC-25, EC-26, F-04, F-05: whatever a broker does not do of these rows stands in `account show` and in the page
    about brokers, and the two agree."""
    shown = json.loads(every_broker.installation.cli("account", "show", broker, "-o", "json").stdout)
    can, said = shown["broker_capabilities"], said_of(broker)
    assert {"checks_client_id", "loose", "refuses_subscribe", "kicks", "client_ids_shared"} <= said.keys() <= can.keys()
    for name, words in said.items():
        assert words.split(", ")[0] == _in_words(can[name]), name
    assert can["kicks"] and can["reports_sightings"], "no row is left out at a broker of these kinds for want of them"


def _in_words(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case None | "":
            return "none"
        case int():
            return f"{value:,}"
        case _:
            return f"`{value}`"
