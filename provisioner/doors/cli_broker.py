"""fleetgate broker: the software that accounts live on, configured and looked at. Needs no running service."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from provisioner.doors import cli_desk, cli_frame
from provisioner.doors.cli_frame import Noun
from provisioner.doors.cli_output import Printer

if TYPE_CHECKING:
    from provisioner.broker_settings import BrokerSettings

UNFIT = 1
_PATH = click.Path(path_type=Path)
ASKING = ("rabbitmq", "emqx", "vernemq")
SOFTWARE = click.Choice(("mosquitto", *ASKING))


@click.group(cls=Noun)
def broker() -> None:
    """Account brokers: their configuration, and whether they are fit for the accounts on them."""


@broker.command(
    examples=(
        "fleetgate broker render mosquitto --broker south --write",
        "fleetgate broker render rabbitmq --broker cluster --output rabbitmq/",
    )
)
@click.argument("software", type=SOFTWARE)
@click.option("--broker", "name", metavar="NAME", help="An account broker of the settings; the only one without it.")
@click.option("--write", is_flag=True, help="mosquitto: write it, and every file that it names, into its folder.")
@click.option("--output", metavar="FOLDER", type=_PATH, help="The others: write everything there.")
@click.option("--node", "nodes", multiple=True, metavar="NODE", help="RabbitMQ: a node of the cluster, rabbit@host.")
@click.option("--client-certificate", metavar="FILE", type=_PATH, help="What the broker shows us, for client_ca.")
@click.option("--client-key", metavar="FILE", type=_PATH, help="The key of that certificate.")
@cli_frame.where()
def render(software: str, name: str | None, write: bool, config: Path, **written: Any) -> None:
    """Print or write the configuration that SOFTWARE needs to be an account broker of this installation.

    mosquitto with --write can be started right away; users that are known already stay. The configuration of the
    others holds secrets: it is written for nobody but you to read, and what to do with it is said."""
    settings, base = cli_desk.settings(config), config.resolve().parent
    chosen = _choose(settings.account_brokers, name, software)
    if software in ASKING:
        _render_asking(chosen, base, write, **written)
    elif any(written.values()):
        raise click.UsageError("mosquitto is printed, or written by --write into the folder that it reads")
    else:
        _render_mosquitto(chosen, base, write, settings.esf.control_prefix)


def _render_asking(
    broker: "BrokerSettings",
    base: Path,
    write: bool,
    output: Path | None,
    nodes: tuple[str, ...],
    client_certificate: Path | None,
    client_key: Path | None,
) -> None:
    from provisioner import callback_render

    if write or output is None:
        raise click.UsageError("this configuration holds secrets: say --output FOLDER")
    shown = (client_certificate, client_key) if client_certificate and client_key else None
    made = callback_render.write_configuration(callback_render.chosen(broker), base, output, nodes, shown)
    for path in made.files:
        click.echo(path)
    click.echo(made.next_steps, err=True)


def _render_mosquitto(broker: "BrokerSettings", base: Path, write: bool, control_prefix: str) -> None:
    from provisioner import mosquitto_setup

    chosen = mosquitto_setup.chosen(broker)
    if not write:
        click.echo(mosquitto_setup.configuration(chosen, base), nl=False)
        return
    for path in mosquitto_setup.write_configuration(chosen, base, control_prefix):
        click.echo(path)


@broker.command(examples=("fleetgate broker check south", "fleetgate broker check south -o json"))
@click.argument("name", required=False)
@cli_frame.where()
@cli_frame.printed()
def check(name: str | None, config: Path, output: str | None, quiet: bool) -> None:
    """Connect to the account broker NAME and look whether it is as the service needs it; exit status 1 when not.

    Where a mosquitto stands in the place of the gate, that is looked at, too."""
    from provisioner import brokers

    settings, base = cli_desk.settings(config), config.resolve().parent
    checks = [*asyncio.run(brokers.check(_choose(settings.account_brokers, name), base))]
    if settings.provision_link.kind == "mosquitto":
        from provisioner import link_check

        checks += link_check.look_at(settings.provision_link, base, _link_status(config))
    rows = [{"name": each.name, "passed": each.passed, "detail": each.detail} for each in checks]
    Printer(output, quiet).many(rows, ("name", "passed", "detail"), id="name")
    if not all(each.passed for each in checks):
        raise cli_frame.Failed(["error: the account broker is not as the service needs it"], UNFIT)


def _link_status(config: Path) -> "Mapping[str, Any] | None":
    """What the running service says of its link; None when it does not answer."""
    from provisioner.doors.control_client import Unreachable

    try:
        with cli_desk.connect(config) as connection:
            status: Mapping[str, Any] = connection.ask("status")["provision_link"]
            return status
    except Unreachable:
        return None


def _choose(brokers: "tuple[BrokerSettings, ...]", name: str | None, software: str = "") -> "BrokerSettings":
    """The one of that name, or the only one of that software."""
    run_by_it = [each for each in brokers if _is_run_by(software, each)]
    fit = [each for each in run_by_it if name in (None, each.name)]
    if len(fit) == 1:
        return fit[0]
    known = ", ".join(each.name for each in run_by_it) or "none"
    raise click.UsageError(f"name one account broker{f' of {software}' if software else ''} of the settings: {known}")


def _is_run_by(software: str, broker: "BrokerSettings") -> bool:
    if software in ASKING:
        return getattr(broker, "product", None) == software
    return broker.kind.startswith(software) or (software == "mosquitto" and broker.kind == "certificate")
