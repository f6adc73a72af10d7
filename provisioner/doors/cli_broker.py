"""fleetgate broker: the software that accounts live on, configured and looked at. Needs no running service."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from provisioner.doors import cli_desk, cli_frame
from provisioner.doors.cli_frame import Noun
from provisioner.doors.cli_output import Printer

if TYPE_CHECKING:
    from provisioner.broker_settings import BrokerSettings

UNFIT = 1
SOFTWARE = click.Choice(("mosquitto",))


@click.group(cls=Noun)
def broker() -> None:
    """Account brokers: their configuration, and whether they are fit for the accounts on them."""


@broker.command(
    examples=(
        "fleetgate broker render mosquitto --broker south > /etc/mosquitto/conf.d/fleetgate.conf",
        "fleetgate broker render mosquitto --broker south --write",
    )
)
@click.argument("software", type=SOFTWARE)
@click.option("--broker", "name", metavar="NAME", help="An account broker of the settings; the only one without it.")
@click.option("--write", is_flag=True, help="Write it, and every file that it names, into the broker's folder.")
@cli_frame.where()
def render(software: str, name: str | None, write: bool, config: Path) -> None:
    """Print the configuration that SOFTWARE needs to be an account broker of this installation.

    With --write the broker can be started right away; users that are known already stay."""
    from provisioner import mosquitto_setup

    settings, base = cli_desk.settings(config), config.resolve().parent
    chosen = mosquitto_setup.chosen(_choose(settings.account_brokers, name, software))
    if not write:
        click.echo(mosquitto_setup.configuration(chosen, base), nl=False)
        return
    for path in mosquitto_setup.write_configuration(chosen, base, settings.esf.control_prefix):
        click.echo(path)


@broker.command(examples=("fleetgate broker check", "fleetgate broker check south -o json"))
@click.argument("name", required=False)
@cli_frame.where()
@cli_frame.printed()
def check(name: str | None, config: Path, output: str | None, quiet: bool) -> None:
    """Connect to the account broker NAME and look whether it is as the service needs it; exit status 1 when not."""
    from provisioner import brokers

    settings, base = cli_desk.settings(config), config.resolve().parent
    checks = asyncio.run(brokers.check(_choose(settings.account_brokers, name), base))
    rows = [{"name": each.name, "passed": each.passed, "detail": each.detail} for each in checks]
    Printer(output, quiet).many(rows, ("name", "passed", "detail"), id="name")
    if not all(each.passed for each in checks):
        raise cli_frame.Failed(["error: the account broker is not as the service needs it"], UNFIT)


def _choose(brokers: "tuple[BrokerSettings, ...]", name: str | None, software: str = "") -> "BrokerSettings":
    """The one of that name, or the only one of that software."""
    run_by_it = [each for each in brokers if _is_run_by(software, each.kind)]
    fit = [each for each in run_by_it if name in (None, each.name)]
    if len(fit) == 1:
        return fit[0]
    known = ", ".join(each.name for each in run_by_it) or "none"
    raise click.UsageError(f"name one account broker{f' of {software}' if software else ''} of the settings: {known}")


def _is_run_by(software: str, kind: str) -> bool:
    return kind.startswith(software) or (software == "mosquitto" and kind == "certificate")
