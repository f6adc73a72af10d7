"""The command line: new installations, their settings and their credential."""

import json
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from provisioner.doors.cli import cli
from tests.rules.direct_cli import SETTINGS

CANARY = "Canary-Pass-word1"


def test_init_makes_what_only_its_owner_can_read(tmp_path: Path) -> None:
    """EC-42: one command makes settings, keys, authority and the first administrator; secrets are 0600, unprinted."""
    folder = tmp_path / "plant"
    result = CliRunner().invoke(cli, ["init", str(folder), "--host", "gate.example.org", "--admin", "ada"])
    assert result.exit_code == 0, result.output
    credential = json.loads((folder / "admin-credential.json").read_text())
    assert credential["name"] == "ada"
    assert credential["credential"] not in result.output
    assert credential["credential"] not in (folder / "admins.json").read_text()
    public = {"fleetgate.yaml", "ca.pem", "server.pem"}
    for path in folder.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        allowed = 0o700 if path.is_dir() else 0o644 if path.name in public else 0o600
        assert mode & ~allowed == 0, path
    assert sorted(result.stdout.split()) == sorted(str(path) for path in folder.rglob("*") if path.is_file())
    names = subprocess.run(
        ["openssl", "x509", "-in", folder / "tls/server.pem", "-noout", "-ext", "subjectAltName"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(f"DNS:{name}" in names for name in ("localhost", "gate.example.org"))
    assert "IP Address:127.0.0.1" in names


def test_init_never_overwrites(tmp_path: Path) -> None:
    """Status 5 for a folder that holds an installation or any of its files; nothing of it is changed."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/ring.json").write_text("precious")
    result = CliRunner().invoke(cli, ["init", str(tmp_path)])
    assert result.exit_code == 5
    assert "ring.json exists" in result.stderr
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["ring.json"]
    assert (tmp_path / "keys/ring.json").read_text() == "precious"


def test_init_where_it_cannot_write_leaves_nothing(tmp_path: Path) -> None:
    """A folder that cannot be made is invalid input, told without a traceback."""
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(cli, ["init", str(tmp_path / "file" / "below")])
    assert result.exit_code == 6
    assert "must be a folder to write in" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--host", "b\u00fccher.example"), "host: must be an address, or a host name of ASCII letters"),
        (("--host", ""), "host: must be an address"),
        (("--host", "a b"), "host: must be an address"),
        (("--host", f"{'a' * 64}.example"), "host: must be an address"),
        (("--admin", ""), "admin: must be 1 to 64 printable characters"),
        (("--admin", "a b"), "admin: must be 1 to 64 printable characters"),
        (("--gate-port", "8884"), "broker_port: must not be that of gate_port (got 8884)"),
        (("--metrics-port", "8885"), "metrics_port: must not be that of admin_port (got 8885)"),
    ],
)
def test_init_refuses_what_could_not_work_and_makes_nothing(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    """Status 6 and the rule; not even a folder is left that a second try would stumble over."""
    result = CliRunner().invoke(cli, ["init", str(tmp_path / "plant"), *arguments])
    assert result.exit_code == 6, result.output
    assert result.stderr.startswith(told)
    assert list(tmp_path.iterdir()) == []


def test_init_takes_names_and_addresses(tmp_path: Path) -> None:
    """Every form that a certificate can hold; ports that are chosen by the system may be equal."""
    hosts = ("*.example.org", "xn--bcher-kva.example", "192.0.2.7", "2001:db8::1", "under_score")
    chosen = [part for host in hosts for part in ("--host", host)]
    ports = ("--gate-port", "0", "--admin-port", "0")
    assert CliRunner().invoke(cli, ["init", str(tmp_path / "plant"), *chosen, *ports]).exit_code == 0


def test_new_installation_passes_its_own_check(tmp_path: Path) -> None:
    """What init writes validates, and config show has every default of it; ports are those that were asked for."""
    config = str(tmp_path / "fleetgate.yaml")
    ports = ("--gate-port", "1", "--broker-port", "2", "--admin-port", "3")
    assert CliRunner().invoke(cli, ["init", str(tmp_path), *ports]).exit_code == 0
    assert CliRunner().invoke(cli, ["config", "check", "-c", config]).exit_code == 0
    shown = yaml.safe_load(CliRunner().invoke(cli, ["config", "show", "-c", config]).stdout)
    assert shown["gate"]["listeners"][0]["port"] == 1
    assert (shown["account_brokers"][0]["port"], shown["admin"]["port"]) == (2, 3)
    assert shown["store"]["requests_max"] == 10_000
    assert json.loads(CliRunner().invoke(cli, ["config", "show", "-c", config, "-o", "json"]).stdout) == shown


def test_config_check_names_the_path_of_each_wrong_field(tmp_path: Path) -> None:
    """Status 6; a misspelt name, a value out of range and a missing file are each told by their path."""
    config = tmp_path / "fleetgate.yaml"
    config.write_text("admin: {port: 70000, colour: red}\nstore: {kind: paper}\n")
    result = CliRunner().invoke(cli, ["config", "check", "-c", str(config)])
    assert result.exit_code == 6
    assert {line.split(":")[0] for line in result.stderr.splitlines()} == {"admin.port", "admin.colour", "store.kind"}
    config.write_text(SETTINGS)
    result = CliRunner().invoke(cli, ["config", "check"], env={"FLEETGATE_CONFIG": str(config)})
    assert result.exit_code == 6
    assert {line.split(":")[0] for line in result.stderr.splitlines()} == {
        *("key_ring", "authority.certificate", "authority.key", "admin.credentials"),
        *("gate.tls.certificate", "gate.tls.key"),
    }


def test_config_that_is_not_there_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings every command ends with status 6 and names init."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEETGATE_CONFIG", raising=False)
    for arguments in (["status"], ["config", "check"], ["serve"]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 6
        assert "fleetgate init" in result.stderr


def test_config_schema_is_json_schema() -> None:
    """Editors can check the file by it."""
    schema = json.loads(CliRunner().invoke(cli, ["config", "schema"]).stdout)
    assert {"gate", "admin", "store", "key_ring", "policy"} <= schema["properties"].keys()


def test_credential_that_others_can_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential file is used with mode 0600 only; a damaged one is told without its text."""
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["init"]).exit_code == 0
    credential = tmp_path / "admin-credential.json"
    credential.chmod(0o644)
    assert "chmod 600" in CliRunner().invoke(cli, ["status"]).stderr
    credential.chmod(0o600)
    for text in (CANARY, json.dumps({"name": "admin"}), json.dumps({"name": "admin", "credential": 7}), "[]"):
        credential.write_text(text)
        result = CliRunner().invoke(cli, ["status"])
        assert result.exit_code == 6
        assert "must be JSON with name and credential" in result.stderr
        assert CANARY not in result.stderr
    credential.unlink()
    assert CliRunner().invoke(cli, ["status"]).exit_code == 6


def test_a_service_on_any_port_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Port 0 is another one at each start: the command line says so, and which setting it is."""
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["init", "--admin-port", "0"]).exit_code == 0
    result = CliRunner().invoke(cli, ["status"])
    assert result.exit_code == 6, result.exception
    assert result.stderr.startswith("admin.port: must be a port that stays the same")
