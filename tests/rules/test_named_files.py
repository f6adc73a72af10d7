"""Files that the settings name: what is missing or unfit is told before anything is opened, by setting and rule."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from provisioner import config
from provisioner.doors.cli import cli
from provisioner.model.errors import InvalidInput
from provisioner.named_files import judge

CANARY = "Canary-Pass-word1"
FILES = {
    "keys/ring.json": "key_ring",
    "ca/ca.pem": "authority.certificate",
    "ca/ca.key": "authority.key",
    "tls/server.pem": "gate.tls.certificate",
    "tls/server.key": "gate.tls.key",
    "admins.json": "admin.credentials",
}
UNFIT = {
    "keys/ring.json": "key_ring: {path} must list ids and keys as JSON",
    "ca/ca.pem": "authority: {path}: must be a PEM certificate",
    "ca/ca.key": "authority: {path}: must be a PEM private key",
    "tls/server.pem": "gate.tls.certificate: {path} must be a PEM certificate with its chain",
    "tls/server.key": "gate.tls.key: {path} must be a PEM private key",
    "admins.json": "admin.credentials: {path}: must be a JSON object",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    assert CliRunner().invoke(cli, ["init", str(folder)]).exit_code == 0
    return folder


@pytest.fixture
def plant(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "plant"))


def _told(plant: Path, verb: str) -> str:
    """What the command says before it ends with status 6."""
    result = CliRunner().invoke(cli, [*verb.split(), "-c", str(plant / "fleetgate.yaml")])
    assert result.exit_code == 6, (result.output, result.exception)
    assert CANARY not in result.output
    return result.stderr


@pytest.mark.parametrize("verb", ["config check", "serve"])
@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_told_by_its_setting(plant: Path, verb: str, name: str) -> None:
    """The service does not begin, and ends without a traceback; the message says which file of which setting."""
    (plant / name).unlink()
    told = _told(plant, verb)
    assert told.startswith(f"{FILES[name]}: must name a readable file, {plant / name} is none")


@pytest.mark.parametrize("verb", ["config check", "serve"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_holds_something_else_is_told_without_its_text(plant: Path, verb: str, name: str) -> None:
    """F-39: what is in a file that was mixed up may be a secret; its place and the rule are enough."""
    (plant / name).write_text(CANARY)
    assert _told(plant, verb).startswith(UNFIT[name].format(path=plant / name))


def test_all_that_is_wrong_is_told_at_once(plant: Path) -> None:
    """Whoever moved an installation and forgot files mends it in one go."""
    for name in FILES:
        (plant / name).unlink()
    assert {line.split(":")[0] for line in _told(plant, "config check").splitlines()} == set(FILES.values())


@pytest.mark.parametrize(("key", "other"), [("ca/ca.key", "tls/server.key"), ("tls/server.key", "ca/ca.key")])
def test_a_key_of_another_certificate_is_refused(plant: Path, key: str, other: str) -> None:
    """F-45: two halves that do not belong together would sign, or show, what nobody can verify."""
    shutil.copy(plant / other, plant / key)
    told = _told(plant, "config check")
    assert "must be the key of" in told
    assert "PRIVATE" not in told


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("foo", "1", "gate.limits.foo: is not a limit; known are "),
        ("connections_max", "2.5", "gate.limits.connections_max: must be a whole number"),
        ("connections_max", ".inf", "gate.limits.connections_max: must be a whole number"),
        ("connections_max", ".nan", "gate.limits.connections_max: must be a whole number"),
        ("connections_max", "-1", "gate.limits: connections_max is not in "),
        ("lockout_s", ".nan", "gate.limits: lockout_s is not in "),
    ],
)
def test_limits_are_judged_with_the_files(plant: Path, name: str, value: str, told: str) -> None:
    """``config check`` does not call good what the service then refuses, or takes for another number."""
    variable = f"FLEETGATE__GATE__LIMITS__{name.upper()}"
    result = CliRunner().invoke(cli, ["config", "check", "-c", str(plant / "fleetgate.yaml")], env={variable: value})
    assert result.exit_code == 6, result.exception
    assert result.stderr.startswith(told)


def test_a_certificate_that_nothing_shows_need_not_be_there(plant: Path) -> None:
    """A gate behind which only mosquitto speaks TLS has no certificate of its own."""
    for name in ("tls/server.pem", "tls/server.key"):
        (plant / name).unlink()
    path = plant / "fleetgate.yaml"
    text = path.read_text().replace("port: 8883, tls: true", "port: 8883, tls: false")
    path.write_text(text)
    with pytest.raises(InvalidInput, match=r"gate\.tls\.key"):  # the broker of the evaluation mode wants it
        judge(config.read(path, {}), plant)
    path.write_text(text.replace("kind: embedded", "kind: mosquitto-files\n    pid_file: mosquitto.pid"))
    judge(config.read(path, {}), plant)
