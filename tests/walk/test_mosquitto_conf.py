"""mosquitto.conf at the root: started as it stands, it lets nobody in whom it should not; and what a site changes for
devices that share a username, or sets wrongly, behaves as documented."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.packets import V5, V311, Version
from tests.support.device import Address, Credentials, Wire
from tests.support.fleet import fleet_of, run_fleet
from tests.support.installation import CLI, ROOT, Installation
from tests.support.mosquitto_gate import MosquittoGate, await_link, connected, login

HUMAN = "Abcdefghijk!"


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MosquittoGate]:
    """Running, without a provisioner."""
    gate = MosquittoGate(tmp_path_factory.mktemp("gate") / "installation")
    gate.installation()
    with gate:
        yield gate


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, MosquittoGate]]:
    """A site whose devices share usernames: without the line that makes the user the client id."""
    gate = MosquittoGate(tmp_path_factory.mktemp("shared") / "installation", shared=True)
    installation = gate.installation()
    with gate, installation.running():
        await_link(installation)
        installation.account()
        yield installation, gate


def test_every_line_is_explained() -> None:
    """Every block of settings in the file has a comment of its own."""
    blocks = re.split(r"\n\s*\n", (ROOT / "mosquitto.conf").read_text())
    assert len(blocks) > 10
    assert [block for block in blocks if not block.strip().startswith("#")] == []


@pytest.mark.parametrize("version", [V311, V5])
@pytest.mark.parametrize(
    "credentials", [(None, None), ("meters", None), ("meters", ""), ("meters", HUMAN), ("", HUMAN)]
)
def test_nobody_comes_in_without_a_login(gate: MosquittoGate, version: Version, credentials: tuple[Any, Any]) -> None:
    """F-11: anonymous, empty and unknown logins are refused on the listeners of devices."""
    account = Address(gate.account_port, gate.secure.ca)
    for address in (gate.plain, gate.secure, account):
        with Wire(address, version) as wire:
            assert wire.connect("gw1", *credentials) not in (0, -1)


@pytest.mark.parametrize("port", ["port", "account_port"])
def test_old_tls_is_refused(gate: MosquittoGate, port: str) -> None:
    """F-45: both listeners of devices speak TLS 1.2 and 1.3 and nothing older."""
    assert _handshake(getattr(gate, port), "-tls1_2") == 0
    assert _handshake(getattr(gate, port), "-tls1_3") == 0
    for old in ("-tls1", "-tls1_1"):
        assert _handshake(getattr(gate, port), old) != 0


def test_devices_that_share_a_username_walk_through(shared: tuple[Installation, MosquittoGate]) -> None:
    """EC-12, EC-17: with keys of their own ten devices pass by one username and password, at the same time."""
    installation, gate = shared
    made = [
        installation.request(f"meter{n}", username="meters", password=HUMAN, activation_key=True) for n in range(10)
    ]
    gate.await_user("meters", "prov/v1/meter9/response")
    report, _ = run_fleet(installation, *(fleet_of(each) for each in made))
    assert report.is_met, report.outcomes()
    for each in made:
        installation.await_state(each.client_id, "confirmed")


def test_sharer_gets_nothing_without_the_key(shared: tuple[Installation, MosquittoGate]) -> None:
    """F-22: whoever knows a shared login may speak as a fellow there, and gets nothing without the fellow's key."""
    installation, gate = shared
    victim = installation.request("pump1", username="pumps", password=HUMAN, activation_key=True)
    fellow = installation.request("pump2", username="pumps", password=HUMAN, activation_key=True)
    gate.await_user("pumps", "prov/v1/pump2/response")
    with connected(installation, victim) as device:
        assert device.ask("stolen", activation_key=fellow.activation_key)["status"] == "refused"
        assert device.ask("own")["status"] == "provisioned"


def test_inherited_session_holds_nothing_that_is_not_allowed(shared: tuple[Installation, MosquittoGate]) -> None:
    """F-06: even where a client id can be taken from a device, its waiting answer is dropped and not handed over."""
    installation, _ = shared
    victim, intruder = installation.request("valve1"), installation.request("valve2")
    with login(installation, victim, clean=False) as wire:
        wire.subscribe("prov/v1/valve1/response")
        wire.publish("prov/v1/valve1/request", b'{"request_id":"m-1"}', wait=False)
    installation.await_audit("provision.granted", client_id="valve1")
    forged = Credentials(client_id="valve1", username=intruder.username, password=intruder.password)
    with login(installation, forged, known_as=intruder, clean=False) as wire:
        assert wire.greeting is not None and wire.greeting.session_present, "it does inherit the session"
        wire.subscribe("prov/v1/valve1/response")
        assert wire.heard() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy": {"shared_credentials_require_key": False}}, "shared_credentials_require_key must be true"),
        ({"policy": {"client_id_scope": "account"}}, "client_id_scope must"),
        ({"provision_link": {"url": "ws://localhost:80"}}, "mqtts://HOST"),
        ({"provision_link": {"window": 20}}, "provision_link.mosquitto.window"),
        ({"provision_link": {"reload": {}}}, "either pid_file or command"),
        ({"provision_link": {"dialects": ["smoke"]}}, "provision_link.mosquitto.dialects"),
        ({"provision_link": {"password_file": "nowhere"}}, "provision_link.password_file"),
        ({"provision_link": {"ca": "nowhere"}}, "provision_link.ca"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """A setting that cannot be right ends the start with its name and rule, and exit status 6."""
    gate = MosquittoGate(tmp_path / "installation")
    installation = gate.installation()
    values = yaml.safe_load(installation.config.read_text())
    for name, value in changes.items():
        values[name] = {**values.get(name, {}), **value}
    installation.config.write_text(yaml.safe_dump(values))
    command = [*CLI, "serve", "-c", str(installation.config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 6, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_files_are_found_before_the_start(tmp_path: Path) -> None:
    """`config check` names the link's files that are not there, and is content when they are."""
    gate = MosquittoGate(tmp_path / "installation")
    installation = gate.installation()
    installation.cli("config", "check")
    (gate.folder / "secret").unlink()
    assert "provision_link.password_file" in installation.cli("config", "check", status=6).stderr


def _handshake(port: int, version: str) -> int:
    """Exit status of openssl's own client, which still can what Python's cannot."""
    weak = "DEFAULT:@SECLEVEL=0"
    command = ["openssl", "s_client", version, "-cipher", weak, "-connect", f"127.0.0.1:{port}", "-brief"]
    return subprocess.run(command, input=b"", capture_output=True, timeout=10, check=False).returncode
