"""fleetgate config: the settings, judged and shown."""

from pathlib import Path

import click

from provisioner.doors import cli_desk, cli_frame, cli_output
from provisioner.doors.cli_frame import Noun


@click.group(cls=Noun)
def config() -> None:
    """Check and show the settings of an installation."""


@config.command(examples=("fleetgate config check", "fleetgate config check -c fleetgate.yaml"))
@cli_frame.where()
def check(config: Path) -> None:
    """Judge the settings and the files that they name; exit status 6 when something is wrong."""
    from provisioner.named_files import judge

    judge(cli_desk.settings(config), config.resolve().parent)
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
