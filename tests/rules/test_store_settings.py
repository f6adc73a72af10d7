"""Which store an installation has: said in its settings, chosen when it is made."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from provisioner import config
from provisioner.doors import cli_service, installation
from provisioner.doors.cli import cli
from provisioner.model.errors import InvalidInput
from provisioner.store_settings import SqliteSettings, TinyDbSettings


@pytest.mark.parametrize("kind", cli_service.STORES)
def test_init_makes_an_installation_on_that_store(tmp_path: Path, kind: str) -> None:
    """``init --store`` writes settings that name the store, and that pass their own check."""
    assert CliRunner().invoke(cli, ["init", str(tmp_path), "--store", kind]).exit_code == 0
    assert config.read(tmp_path / "fleetgate.yaml", {}).store.kind == kind
    assert CliRunner().invoke(cli, ["config", "check", "-c", str(tmp_path / "fleetgate.yaml")]).exit_code == 0


def test_every_store_that_init_offers_is_known() -> None:
    """The command line and the installation name the same kinds."""
    assert set(cli_service.STORES) == installation.STORES.keys()


def test_a_store_without_a_kind_is_the_default_one(tmp_path: Path) -> None:
    """Settings that say nothing of the store, or its path alone, mean tinydb; the environment may choose another."""
    path = tmp_path / "fleetgate.yaml"
    path.write_text("{}")
    assert config.read(path, {}).store == TinyDbSettings()
    path.write_text("store: {path: elsewhere}")
    assert config.read(path, {}).store == TinyDbSettings(path=Path("elsewhere"))
    chosen = {"FLEETGATE__STORE__KIND": "sqlite"}
    assert config.read(path, chosen).store == SqliteSettings(kind="sqlite", path=Path("elsewhere"))


def test_an_unknown_store_is_told_by_its_field(tmp_path: Path) -> None:
    """The message names the kinds there are, not the value."""
    path = tmp_path / "fleetgate.yaml"
    path.write_text("store: {kind: hunter2}")
    with pytest.raises(InvalidInput, match=r"store\.kind: must be one of 'tinydb', 'sqlite'") as refused:
        config.read(path, {})
    assert "hunter2" not in str(refused.value)
