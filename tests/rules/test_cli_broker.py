"""fleetgate broker: what it prints and writes without any broker running."""

import stat
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from provisioner.doors.cli import cli
from tests.support.ports import free_ports


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Three brokers on ports where nobody listens."""
    files, dynsec, demo = free_ports(3)
    brokers = [
        {"name": "files", "kind": "mosquitto-files", "control_port": files, "pid_file": "mosquitto.pid"},
        {"name": "dynsec", "kind": "mosquitto-dynsec", "control_port": dynsec},
        {"name": "demo", "port": demo},
    ]
    path = tmp_path / "fleetgate.yaml"
    path.write_text(yaml.safe_dump({"account_brokers": brokers}))
    return path


def run(config: Path, *arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["broker", *arguments, "-c", str(config)], prog_name="fleetgate")
    assert result.exit_code == status, result.output
    return result


def test_render_prints_the_configuration(config: Path) -> None:
    """The whole of it, with absolute paths, and no secret."""
    text = run(config, "render", "mosquitto", "--broker", "files").stdout
    assert f"acl_file {config.parent}/mosquitto/files/acl\n" in text
    assert f"pid_file {config.parent}/mosquitto.pid\n" in text
    assert not (config.parent / "mosquitto").exists()


@pytest.mark.parametrize("name", ["files", "dynsec"])
def test_write_makes_everything_that_the_configuration_names(config: Path, name: str) -> None:
    """With --write mosquitto can be started: every file of ours is there, and only we can read secrets and users."""
    written = [Path(line) for line in run(config, "render", "mosquitto", "--broker", name, "--write").stdout.split()]
    assert written[0].name == "mosquitto.conf"
    folder = config.parent / "mosquitto" / name
    assert (folder / "secret").read_text().strip() not in written[0].read_text()
    for path in {*written, folder / "secret"} - {written[0]}:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for line in written[0].read_text().splitlines():
        setting, _, value = line.partition(" ")
        if setting in ("password_file", "acl_file", "plugin_opt_config_file"):
            assert Path(value).is_file()


def test_write_again_keeps_users_and_secret(config: Path) -> None:
    """An administrator may render as often as they like."""
    run(config, "render", "mosquitto", "--broker", "dynsec", "--write")
    folder = config.parent / "mosquitto/dynsec"
    before = [(folder / name).read_text() for name in ("secret", "dynamic-security.json")]
    run(config, "render", "mosquitto", "--broker", "dynsec", "--write")
    assert [(folder / name).read_text() for name in ("secret", "dynamic-security.json")] == before


@pytest.mark.parametrize(
    "arguments", [("render", "mosquitto"), ("render", "mosquitto", "--broker", "demo"), ("check",), ("check", "none")]
)
def test_which_broker_is_meant_has_to_be_said(config: Path, arguments: tuple[str, ...]) -> None:
    """Of several, or of none of that name, nothing is guessed; those that could be meant are listed."""
    assert "dynsec" in run(config, *arguments, status=2).stderr


def test_check_of_a_broker_that_is_down_fails(config: Path) -> None:
    """Nothing answers: exit status 1, and where it was looked for."""
    result = run(config, "check", "files", status=1)
    assert "nothing answers" in result.stdout


def test_check_of_the_evaluation_broker_points_to_selftest(config: Path) -> None:
    """It runs inside the service, where only the service can look."""
    assert "selftest" in run(config, "check", "demo").stdout
