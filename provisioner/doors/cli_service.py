"""fleetgate init, serve, status, selftest and fsck: the installation as a whole."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from provisioner.doors import cli_desk, cli_frame
from provisioner.doors.cli_desk import Desk, at_service
from provisioner.doors.cli_frame import Command

if TYPE_CHECKING:
    from provisioner.app import Service

INCONSISTENT = 1
SELFTEST_S_MAX = 110.0  # ten seconds for each of the targets of a large installation
FSCK_S_MAX = 600.0
PORT = click.IntRange(0, 65_535)
STORES = ("tinydb", "sqlite", "postgresql")  # as in installation.STORES, which costs more to import


@click.command(
    cls=Command,
    examples=("fleetgate init plant-1", "fleetgate init plant-2 --host gate.example.org --store sqlite"),
)
@click.argument("directory", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--store", default="tinydb", show_default=True, type=click.Choice(STORES), help="Kind of store.")
@click.option("--host", multiple=True, help="A further name or address of this server, for its certificate.")
@click.option("--admin", default="admin", show_default=True, help="Name of the first administrator.")
@click.option("--gate-port", default=8883, show_default=True, type=PORT)
@click.option("--broker-port", default=8884, show_default=True, type=PORT, help="Of the embedded account broker.")
@click.option("--admin-port", default=8885, show_default=True, type=PORT)
@click.option("--metrics-port", default=9464, show_default=True, type=PORT, help="Of metrics, health and readiness.")
def init(directory: Path, store: str, host: tuple[str, ...], admin: str, **ports: int) -> None:
    """Make an installation in DIRECTORY and print the files that were made. Nothing is overwritten."""
    from datetime import UTC, datetime

    from provisioner.doors import installation

    plan = installation.Plan(store=store, admin=admin, hosts=host, **ports)
    for path in installation.create(directory, plan, datetime.now(UTC)):
        click.echo(path)
    cli_desk.note(f"start it with `fleetgate serve -c {directory / installation.SETTINGS_FILE}`")


@click.command(cls=Command, examples=("fleetgate serve", "fleetgate serve -c plant-1/fleetgate.yaml"))
@click.option("--worker", type=click.IntRange(1), hidden=True, help="Be that one of several; for their parent.")
@cli_frame.where()
def serve(config: Path, worker: int | None) -> None:
    """Run the gate, the provisioner and the embedded account broker until SIGTERM.

    SIGHUP takes renewed certificates. With gate.workers this is the parent of that many processes."""
    import asyncio
    import resource

    import uvloop

    from provisioner import named_files, workers
    from provisioner.doors import logs
    from provisioner.doors.error_kinds import EXIT_STATUS
    from provisioner.model.errors import Unavailable

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the keys (F-39)
    settings = cli_desk.settings(config)
    named_files.judge(settings, config.resolve().parent)
    logs.configure(settings.log_level, settings.log_format, sys.stderr)
    if worker is None and settings.gate.workers > 1:
        _keep_workers(config, settings.gate.workers, settings.gate.drain_s)
    parent = None if worker is None else sys.stdin.fileno()
    alive = _alive if parent is None else functools.partial(workers.live, parent)
    settings = settings.model_copy(update={"metrics": settings.metrics.of_worker(worker or 1)})
    from provisioner import app

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(app.serve(settings, config.resolve().parent, ready=_ready, alive=alive, parent=parent))
    except Unavailable as error:
        advice = "the service does not run; `fleetgate config show` says which addresses and which store it needs"
        raise cli_frame.Failed([f"error: {error}", advice], EXIT_STATUS["unavailable"]) from None


def _keep_workers(config: Path, count: int, drain_s: float) -> NoReturn:
    import asyncio

    from provisioner.workers import Workers

    def command(number: int) -> Sequence[str]:
        program = (sys.executable, "-m", "provisioner.doors.cli")
        return (*program, "serve", "-c", str(config), "--worker", str(number))

    raise SystemExit(asyncio.run(Workers(command, count, drain_s).run()))


@click.command(cls=Command, examples=("fleetgate status", "fleetgate status -o yaml"))
@at_service
def status(desk: Desk) -> None:
    """Show ports, connections, counts of records and what still waits to be done at account brokers."""
    desk.print.one(desk.ask("status"), id="time")


@click.command(cls=Command, examples=("fleetgate selftest", "fleetgate selftest -o json"))
@at_service
def selftest(desk: Desk) -> None:
    """Try store, clock, keys, authority and account brokers, then prove that devices are kept apart.

    The proof is made at every listener of the gate and on every account broker, by two throw-away devices that try
    to read, write and impersonate each other. Exit status 1 when a check fails; it says which, and what to do."""
    result = desk.ask("selftest", patience_s=SELFTEST_S_MAX)
    desk.print.many(result["checks"], ("name", "passed", "detail"), id="name")
    if not result["ok"]:
        failed = ", ".join(check["name"] for check in result["checks"] if not check["passed"])
        raise cli_frame.Failed([f"error: the self-test failed: {failed}"], INCONSISTENT)


@click.command(cls=Command, examples=("fleetgate fsck", "fleetgate fsck -o jsonl"))
@at_service
def fsck(desk: Desk) -> None:
    """List what is inconsistent between records and at account brokers; exit status 1 when there is anything."""
    findings = desk.ask("fsck", patience_s=FSCK_S_MAX)["findings"]
    desk.print.many(findings, ("kind", "subject", "detail"), id="subject")
    if findings:
        raise cli_frame.Failed([f"error: {len(findings)} findings"], INCONSISTENT)
    cli_desk.note("consistent")


def _ready(service: "Service") -> None:
    """To whoever waits for it, in the form of the log."""
    import logging

    from provisioner.doors import systemd

    systemd.notify(systemd.READY)
    if service.settings.log_format == "text":
        cli_desk.note("ready")
    else:
        logging.getLogger(__name__).info("ready")


def _alive() -> None:
    from provisioner.doors import systemd

    systemd.notify(systemd.ALIVE)
