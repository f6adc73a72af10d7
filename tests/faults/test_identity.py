"""F-05, F-06, F-09 to F-11: who somebody is, and that nobody else can be it."""

import json
import unicodedata
from collections.abc import Callable

import pytest

from broker.packets import V5, V311, ConnAck, Version
from broker.properties import NO_PROPERTIES, Properties
from provisioner.doors.control_client import Refused
from tests.faults.scene import NOT_AUTHORIZED, WAYS, FreshId, door, new_source, raw_connect, resident, spy_on, verdict
from tests.support.device import Address, Credentials, JsonDevice, Wire
from tests.support.installation import Installation


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_05_a_valid_user_cannot_take_the_client_id_of_another(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-05: refused like any wrong login, and the victim keeps its connection, its answer and its peace."""
    attacker, victim = (shared_installation.request(fresh_id()) for _ in range(2))
    gate = door(shared_installation, name, new_source())
    with spy_on(shared_installation, fresh_id()) as spy, JsonDevice(gate, victim, version) as device:
        for username, password in (
            (attacker.username, attacker.password),
            (attacker.username, victim.password),
            (victim.username, attacker.password),
        ):
            for clean in (True, False):
                with Wire(gate, version) as wire:
                    assert wire.connect(victim.client_id, username, password, clean=clean) == NOT_AUTHORIZED[version]
                    assert wire.is_cut()
        assert device.wire.heard() == []
        assert device.ask()["status"] == "provisioned"
        assert spy.wire.heard() == []
    assert shared_installation.await_audit("connect.refused", reason="client_id_mismatch", address=gate.source)
    assert shared_installation.audit("connection.taken_over", client_id=victim.client_id) == []


def test_f_05_the_audit_names_who_tried_to_be_whom(make_installation: Callable[..., Installation]) -> None:
    """F-05: one row has the client id that was wanted, the user that was given, the address and the true reason."""
    installation = make_installation()
    with installation.running():
        installation.account()
        attacker, victim = installation.request("gw-a"), installation.request("gw-b")
        with Wire(door(installation, "plain", "127.0.0.2")) as wire:
            assert wire.connect(victim.client_id, attacker.username, attacker.password) == 5
        (row,) = installation.await_audit("connect.refused")
        assert (row["client_id"], row["username"]) == (victim.client_id, attacker.username)
        assert (row["address"], row["reason"], row["outcome"]) == ("127.0.0.2", "client_id_mismatch", "refused")


def test_f_05_account_broker_binds_the_client_id(shared_installation: Installation, fresh_id: FreshId) -> None:
    """F-05: on the account broker neither a neighbour nor a stranger who knows the client id silences its device."""
    attacker, victim = (resident(shared_installation, fresh_id()) for _ in range(2))
    client_id, theirs = victim.answer["client_id"], attacker.answer
    with victim.connect() as live:
        for username, password in (
            (theirs["username"], theirs["password"]),
            (victim.answer["username"], theirs["password"]),
            (attacker.credentials.username, attacker.credentials.password),
            ("nobody", "wrong"),
            (None, None),
        ):
            with Wire(victim.home) as wire:
                assert wire.connect(client_id, username, password) == 5
                assert wire.is_cut()
        assert victim.heard(live) == []


@pytest.mark.parametrize(("name", "version"), WAYS)
def test_f_06_no_session_outlives_its_connection(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-06: an answer that was not taken waits for nobody, not even its own device, whatever session it asks for."""
    victim, attacker = (shared_installation.request(fresh_id()) for _ in range(2))
    gate = door(shared_installation, name)
    lasting = Properties(session_expiry_interval_s=3_600) if version == V5 else NO_PROPERTIES
    response = f"prov/v1/{victim.client_id}/response"

    def connect_as(who: Credentials) -> tuple[Wire, int]:
        wire = Wire(gate, version)
        return wire, wire.connect(victim.client_id, who.username, who.password, clean=False, properties=lasting)

    with spy_on(shared_installation, fresh_id()) as spy:
        first, code = connect_as(victim)
        with first:
            assert code == 0 and first.subscribe(response) == (1,)
            first.publish(f"prov/v1/{victim.client_id}/request", b'{"request_id":"m-1"}')
            assert first.message(acknowledge=False) is not None, "an answer that stays unacknowledged"
        thief, code = connect_as(attacker)
        thief.close()
        assert code == NOT_AUTHORIZED[version]
        second, code = connect_as(victim)
        with second:
            assert code == 0 and isinstance(second.greeting, ConnAck) and not second.greeting.session_present
            assert second.heard() == []
            assert second.subscribe(response) == (1,)
            assert second.heard() == []
        assert spy.wire.heard() == []


@pytest.mark.parametrize("version", [V311, V5])
def test_f_06_nothing_is_queued_for_a_device_that_left_at_once(
    shared_installation: Installation, fresh_id: FreshId, version: Version
) -> None:
    """F-06: whoever asks and vanishes finds nothing when it comes back, until it asks again; then the same answer."""
    credentials = shared_installation.request(fresh_id())
    with shared_installation.device(credentials, version=version) as device:
        device.wire.publish(f"{device.base}/request", device.payload(), wait=False)
    shared_installation.await_state(credentials.client_id, "granted")
    with shared_installation.device(credentials, version=version) as device:
        assert device.wire.heard() == []
        assert device.ask()["status"] == "provisioned"
    assert len(shared_installation.audit("provision.granted", client_id=credentials.client_id)) == 1


# As bytes, since some are no text at all. Each is refused as a client id and as a username.
BAD_NAMES = {
    "plus": b"gw+1", "hash": b"gw#", "level": b"gw/1", "nul": b"gw\x00", "latin1": b"gw\xe9", "overlong": b"gw\xc0\xaf",
    "surrogate": b"gw\xed\xa0\x80", "bom": b"\xef\xbb\xbfgw1", "newline": b"gw\n1", "escape": b"gw\x1b[2J",
    "bidi": "gw\u202e1".encode(), "zero width": "gw\u200b1".encode(), "line separator": "gw\u2028".encode(),
}  # fmt: skip
BAD_CLIENT_IDS = {**BAD_NAMES, "pattern": b"%c", "user pattern": b"gw%u", "parent": b"..", "climb": b"gw..1"}


@pytest.mark.parametrize("version", [V311, V5])
@pytest.mark.parametrize("name", ["plain", "secure", "websocket"])
def test_f_09_a_bad_name_does_not_pass_the_connect(
    shared_installation: Installation, fresh_id: FreshId, name: str, version: Version
) -> None:
    """F-09: a client id or username that could act in a topic, a pattern or a log is refused with valid credentials."""
    genuine = shared_installation.request(fresh_id())
    gate = door(shared_installation, name, new_source())
    identifier_codes = {V311: (2, None), V5: (0x85, 0x81)}[version]
    login_codes = {V311: (5, None), V5: (0x87, 0x81)}[version]
    username, password = genuine.username.encode(), genuine.password.encode()
    with spy_on(shared_installation, fresh_id()) as spy:
        for kind, bad in BAD_CLIENT_IDS.items():
            with Wire(gate, version) as wire:
                wire.socket.sendall(raw_connect(version, bad, username, password))
                assert verdict(wire) in identifier_codes, kind
        for kind, bad in BAD_NAMES.items():
            with Wire(gate, version) as wire:
                wire.socket.sendall(raw_connect(version, genuine.client_id.encode(), bad, password))
                assert verdict(wire) in login_codes, kind
        assert spy.wire.heard() == []
    refused = shared_installation.await_audit("connect.refused", reason="client_id_malformed", address=gate.source)
    assert refused and shared_installation.await_audit("packet.violation", address=gate.source)
    shared_installation.legitimate_device_provisions(fresh_id())


def test_f_09_account_broker_refuses_bad_names(shared_installation: Installation, fresh_id: FreshId) -> None:
    """F-09: on the account broker too, where the library behind it would take NUL and broken UTF-8."""
    genuine = resident(shared_installation, fresh_id())
    username, password = genuine.answer["username"].encode(), genuine.answer["password"].encode()
    for kind, bad in BAD_CLIENT_IDS.items():
        with Wire(genuine.home) as wire:
            wire.socket.sendall(raw_connect(V311, bad, username, password))
            assert verdict(wire) in (2, 5, None), kind
    for kind, bad in BAD_NAMES.items():
        with Wire(genuine.home) as wire:
            wire.socket.sendall(raw_connect(V311, genuine.answer["client_id"].encode(), bad, password))
            assert verdict(wire) in (5, None), kind
    with genuine.connect() as wire:
        assert genuine.heard(wire) == []


@pytest.mark.parametrize("field", ["client_id", "username"])
def test_f_09_a_bad_name_is_refused_at_creation(
    shared_installation: Installation, fresh_id: FreshId, field: str
) -> None:
    """F-09: an administrator cannot create it either; the refusal names the field and never repeats the value."""
    names = {"client_id": BAD_CLIENT_IDS, "username": {**BAD_CLIENT_IDS, "blank": b"a b", "apostrophe": b"a'b"}}[field]
    for kind, bad in names.items():
        text = bad.decode("utf-8", "surrogateescape")
        is_text = not any("\udc80" <= c <= "\udcff" for c in text)
        fields = {"account": "acme", "client_id": fresh_id(), "username": "operator", field: text}
        with pytest.raises(Refused) as refusal:
            shared_installation.ask("request.create", fields=fields)
        # What is no text at all does not even get through the door.
        assert refusal.value.kind == ("invalid_input" if is_text else "usage"), kind
        assert {problem.field for problem in refusal.value.problems} == ({field} if is_text else set()), kind
        assert len(text) < 3 or text not in str(refusal.value), kind
    assert shared_installation.audit("request.create", username="operator") == []


def fullwidth(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in text)


# Each makes a look-alike of a client id such as Gateé-gw00012. The first four fall together when case is folded.
FOLDED: dict[str, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "fullwidth": fullwidth,
}
CYRILLIC = str.maketrans("aeG", "\u0430\u0435\u0413")


@pytest.mark.parametrize("version", [V311, V5])
def test_f_10_a_look_alike_is_somebody_else(
    shared_installation: Installation, fresh_id: FreshId, version: Version
) -> None:
    """F-10: client ids and usernames are compared byte by byte; no variant of them is admitted or displaces anybody."""
    number = fresh_id()
    genuine = shared_installation.request(f"Gate\u00e9-{number}", username=f"User-{number}")
    gate = door(shared_installation, "plain", new_source())
    lookalikes = [make(genuine.client_id) for make in FOLDED.values()] + [genuine.client_id.translate(CYRILLIC)]
    with shared_installation.device(genuine, version=version) as device:
        for variant in lookalikes:
            assert variant != genuine.client_id
            with Wire(gate, version) as wire:
                assert wire.connect(variant, genuine.username, genuine.password) == NOT_AUTHORIZED[version]
        for variant in (genuine.username.lower(), genuine.username.upper(), f"{genuine.username} "):
            with Wire(gate, version) as wire:
                assert wire.connect(genuine.client_id, variant, genuine.password) == NOT_AUTHORIZED[version]
        assert device.wire.heard() == []
        assert device.ask()["client_id"] == genuine.client_id
    for reason in ("client_id_mismatch", "unknown_user"):
        assert shared_installation.await_audit("connect.refused", reason=reason, address=gate.source)


def test_f_10_variants_of_a_client_id_are_a_conflict(shared_installation: Installation, fresh_id: FreshId) -> None:
    """F-10: what differs from an open request only in case or form is refused at creation, whichever account asks."""
    client_id = f"Gate\u00e9-{fresh_id()}"
    shared_installation.request(client_id, username="operator-of-variants")
    for kind, make in FOLDED.items():
        for account in ("acme", "bolt"):
            with pytest.raises(Refused) as refusal:
                shared_installation.request(make(client_id), account, username=f"other-{account}")
            assert refusal.value.kind == "conflict", kind


def test_f_10_letters_of_another_script_stay_apart(shared_installation: Installation, fresh_id: FreshId) -> None:
    """F-10: a client id in Cyrillic beside its Latin look-alike is warned of, and each hears its own answers alone."""
    latin_id = f"Gate-{fresh_id()}"
    cyrillic_id = latin_id.translate(CYRILLIC)
    latin = shared_installation.request(latin_id)
    wanted = {"account": "acme", "client_id": cyrillic_id, "username": f"c-{latin.username}"}
    made = shared_installation.ask("request.create", fields=wanted)
    assert any(warning.startswith("client_id: has characters beyond") for warning in made["warnings"])
    cyrillic = Credentials(client_id=cyrillic_id, username=wanted["username"], password=made["secrets"]["password"])
    with shared_installation.device(latin) as one, shared_installation.device(cyrillic) as other:
        first, second = one.ask(), other.ask()
        assert (first["client_id"], second["client_id"]) == (latin_id, cyrillic_id)
        assert first["username"] != second["username"] and first["device_id"] != second["device_id"]
        assert (one.wire.heard(), other.wire.heard()) == ([], [])


def test_f_10_by_policy_a_variant_is_only_warned_of(make_installation: Callable[..., Installation]) -> None:
    """F-10: with ``refuse_case_variants: false`` both exist, the second with a warning, and stay two devices."""
    installation = make_installation(policy={"refuse_case_variants": False})
    with installation.running():
        installation.account()
        upper = installation.request("Dev1", username="user-upper")
        fields = {"account": "acme", "client_id": "dev1", "username": "user-lower"}
        made = installation.ask("request.create", fields=fields)
        assert any("only in case" in warning for warning in made["warnings"])
        lower = Credentials(client_id="dev1", username="user-lower", password=made["secrets"]["password"])
        with installation.device(upper) as one, installation.device(lower) as other:
            assert one.ask()["username"] != other.ask()["username"]
            assert (one.wire.heard(), other.wire.heard()) == ([], [])
        with Wire(installation.plain) as wire:
            assert wire.connect("dev1", upper.username, upper.password) == 5


def every_listener(installation: Installation, source: str) -> list[tuple[Address, Version]]:
    """Of the gate in both versions, of the administrators in both, of the account brokers (MQTT 3.1.1 only)."""
    admin = Address(installation.admin_port, source=source)
    gate: list[tuple[Address, Version]] = [(door(installation, name, source), each) for name, each in WAYS]
    homes: list[tuple[Address, Version]] = [(home, V311) for home in installation.account_brokers.values()]
    return [*gate, (admin, V311), (admin, V5), *homes]


def test_f_11_no_listener_takes_half_a_login(shared_installation: Installation, fresh_id: FreshId) -> None:
    """F-11: anonymous, without or with an empty password, without or with an empty user: refused at every listener."""
    at_gate, at_home = shared_installation.request(fresh_id()), resident(shared_installation, fresh_id())
    admin = json.loads((shared_installation.folder / "admin-credential.json").read_text())
    genuine = [
        (at_gate.client_id, at_gate.username, at_gate.password),
        (at_home.answer["client_id"], at_home.answer["username"], at_home.answer["password"]),
        (fresh_id(), admin["name"], admin["credential"]),
    ]
    source = new_source()
    for address, version in every_listener(shared_installation, source):
        for client_id, username, password in genuine:
            halves = [(None, None), (username, None), (username, ""), ("", password), ("", ""), ("", None)]
            for user, secret in halves:
                with Wire(address, version) as wire:
                    code = wire.connect(client_id, user, secret)
                    assert code == NOT_AUTHORIZED[version], (address, version, user is None, secret is None)
            with Wire(address, version) as wire:
                wire.socket.sendall(raw_connect(version, client_id.encode(), None, password.encode()))
                # 3.1.1 calls it malformed, so there is no CONNACK to be had [MQTT-3.1.2-22].
                assert verdict(wire) == {V311: None, V5: 0x87}[version]
    assert shared_installation.await_audit("connect.refused", reason="anonymous", address=source)
    assert shared_installation.state(at_gate.client_id) == "pending"
