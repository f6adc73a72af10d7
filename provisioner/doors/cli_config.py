"""fleetgate config: the settings, judged and shown."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from provisioner.doors import cli_desk, cli_frame, cli_output
from provisioner.doors.cli_frame import Noun
from provisioner.model.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from provisioner.config import Settings


@click.group(cls=Noun)
def config() -> None:
    """Check and show the settings of an installation."""


@config.command(examples=("fleetgate config check", "fleetgate config check -c fleetgate.yaml"))
@cli_frame.where()
def check(config: Path) -> None:
    """Judge the settings and that the files they name exist; exit status 6 when something is wrong."""
    settings = cli_desk.settings(config)
    missing = list(_missing(settings, config.resolve().parent))
    if missing:
        raise InvalidInput(missing)
    cli_desk.note(f"{config}: good")


@config.command(examples=("fleetgate config show", "fleetgate config show -o json"))
@cli_frame.where()
@click.option("-o", "--output", type=click.Choice(("yaml", "json")), default="yaml", show_default=True)
def show(config: Path, output: str) -> None:
    """Print the settings in force: the file, its defaults, the environment over them. They hold no secrets."""
    values = cli_desk.settings(config).model_dump(mode="json")
    click.echo(cli_output.to_yaml(values).rstrip() if output == "yaml" else cli_output.to_json(values, indent=2))


@config.command(examples=("fleetgate config schema", "fleetgate config schema > fleetgate.schema.json"))
def schema() -> None:
    """Print the JSON Schema of fleetgate.yaml."""
    from provisioner import config as reading

    click.echo(cli_output.to_json(reading.schema(), indent=2))


def _missing(settings: "Settings", base: Path) -> Iterator[Problem]:
    """Files that are named and not there. A data folder may be missing: the store makes it."""
    named = {
        "key_ring": settings.key_ring,
        "authority.certificate": settings.authority.certificate,
        "authority.key": settings.authority.key,
        "gate.tls.certificate": settings.gate.tls.certificate,
        "gate.tls.key": settings.gate.tls.key,
        "admin.credentials": settings.admin.credentials,
    }
    link = settings.provision_link
    if link.kind == "mosquitto":
        named["provision_link.password_file"] = link.password_file
        if link.ca is not None:
            named["provision_link.ca"] = link.ca
    for field, path in named.items():
        if not (base / path).is_file():
            yield Problem(field, f"must name a file, {base / path} is none", "a path")
