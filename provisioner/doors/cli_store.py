"""fleetgate backup, restore and store: whole copies of what is stored."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from provisioner.doors import cli_desk, cli_frame
from provisioner.doors.cli_desk import Desk, at_service
from provisioner.doors.cli_frame import Command, Noun
from provisioner.doors.cli_output import Printer, to_yaml

if TYPE_CHECKING:
    from provisioner.config import Settings
    from provisioner.services.copying import Restored, Summaries
    from provisioner.store.backup_file import Backup

BACKUP_S_MAX = 600.0
STATE_OF_OPEN = "restored"


@click.command(
    cls=Command, examples=("fleetgate backup plant.backup", "fleetgate backup before-upgrade.backup -o yaml")
)
@click.argument("target", type=click.Path(path_type=Path))
@at_service
def backup(desk: Desk, target: Path) -> None:
    """Write everything that is stored, as it is at one moment, to the new file TARGET.

    The running service does it, on its own host, and goes on serving; when none is running the store is opened here.
    The file can be restored into every kind of store. It holds no key: they are named, and must be kept elsewhere."""
    from provisioner.doors.control_client import Unreachable

    settings, path = desk.settings(), target.absolute()
    try:
        connection = desk.connection
    except Unreachable:
        written = _backup_here(settings, desk.base, path)
    else:
        written = connection.ask("store.backup", patience_s=BACKUP_S_MAX, target=str(path))
    desk.print.one(written, id="target")
    cli_desk.note(f"keep these elsewhere, for without them the backup is worth nothing: {_kept(settings, desk)}")


@click.command(
    cls=Command,
    examples=("fleetgate restore plant.backup --dry-run", "fleetgate restore plant.backup -o json"),
)
@click.argument("source", metavar="BACKUP", type=click.Path(path_type=Path))
@cli_frame.dry_run()
@cli_frame.where()
@cli_frame.printed()
def restore(source: Path, dry_run: bool, config: Path, output: str | None, quiet: bool) -> None:
    """Fill the store that the settings name, which must be empty, from a backup.

    The service must not be running. Requests that were open in the backup may have been used since it was made:
    their devices wait until somebody approves them, so that no single-use secret is good twice."""
    import asyncio

    view, waiting = asyncio.run(_restored(cli_desk.settings(config), config.resolve().parent, source, dry_run))
    Printer(output, quiet).one(view, id="store")
    if waiting:
        cli_desk.note(
            f"{waiting:,} open requests wait for a person: `fleetgate request list --state {STATE_OF_OPEN}`, then "
            "`fleetgate request approve ID` for each whose device was not provisioned since, or revoke or re-arm it"
        )
    if not dry_run:
        cli_desk.note("devices that were disabled, revoked or re-armed since the backup are as they were then")


@click.group(cls=Noun)
def store() -> None:
    """Where everything is kept."""


@store.command(
    examples=(
        "fleetgate store migrate tinydb:data sqlite:data/fleetgate.db",
        "fleetgate store migrate tinydb:data 'postgresql://gate@db1/fleetgate?password_file=db.txt' --dry-run",
    )
)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@cli_frame.dry_run()
@cli_frame.printed()
def migrate(source: str, target: str, dry_run: bool, output: str | None, quiet: bool) -> None:
    """Move everything from one store to another one, which must be empty.

    A store is named tinydb:FOLDER, sqlite:FILE or postgresql://USER@HOST:PORT/DATABASE?password_file=FILE. No service
    may be running on either. Counts and digests of both are compared before it is called done; a command that was
    interrupted goes on when it is run again. The old store stays, marked so that no service takes it any more."""
    import asyncio

    from provisioner.store_places import read_place, yaml_of

    wanted = read_place(target)
    view = asyncio.run(_migrated(source, target, dry_run))
    Printer(output, quiet).one(view, id="to")
    if not dry_run:
        cli_desk.note("now name it in fleetgate.yaml, relative to that file:\n" + to_yaml({"store": yaml_of(wanted)}))


def _backup_here(settings: "Settings", base: Path, target: Path) -> Mapping[str, Any]:
    import asyncio

    return asyncio.run(_backed_up(settings, base, target))


async def _backed_up(settings: "Settings", base: Path, target: Path) -> Mapping[str, Any]:
    from provisioner.doors import views
    from provisioner.services import copying
    from provisioner.store_places import opened

    async with opened(settings.store, base, existing=True) as place:
        return views.backup(target, await copying.backup(copying.ACTOR, place.store, target, datetime.now(UTC)))


async def _restored(settings: "Settings", base: Path, path: Path, dry_run: bool) -> tuple[Mapping[str, Any], int]:
    """What is printed, and how many requests wait."""
    from provisioner.services import copying
    from provisioner.store.backup_file import Backup
    from provisioner.store_places import name_of, opened

    backup = await Backup.open(path)
    name = name_of(settings.store, base)
    if dry_run:
        return _view(name, backup, backup.summaries, epoch=backup.header.epoch + 1), 0
    async with opened(settings.store, base) as place:
        done: Restored = await copying.restore(backup, place, datetime.now(UTC))
    view = _view(name, backup, done.summaries, epoch=done.epoch)
    return {**view, "open_requests": done.open_requests}, done.open_requests


def _view(name: str, backup: "Backup", summaries: "Summaries", epoch: int) -> Mapping[str, Any]:
    counts = {kind: summary.count for kind, summary in summaries.items()}
    return {"store": name, "made_at": backup.header.made_at.isoformat(), "epoch": epoch, "records": counts}


async def _migrated(source: str, target: str, dry_run: bool) -> Mapping[str, Any]:
    from provisioner.model.errors import InvalidInput, Problem
    from provisioner.services import copying
    from provisioner.store.whole import parts, tallied
    from provisioner.store_places import name_of, opened, read_place

    here = Path.cwd()
    old, new = read_place(source), read_place(target)
    names = {"from": name_of(old, here), "to": name_of(new, here)}
    if names["from"] == names["to"]:
        raise InvalidInput([Problem("TO", "must be another store", "the same one")])
    async with opened(old, here, existing=True) as place:
        if dry_run:
            async with place.store.moment() as moment:
                summaries = await tallied(parts(place.store, moment))
        else:
            async with opened(new, here) as filled:
                summaries = await copying.migrate(place, filled, datetime.now(UTC))
    return {**names, "records": {kind: summary.count for kind, summary in summaries.items()}}


def _kept(settings: "Settings", desk: Desk) -> str:
    """What a restored installation needs beside the backup; the key ring first."""
    authority, tls = settings.authority, settings.gate.tls
    files = [settings.key_ring, authority.key, authority.certificate, tls.key, tls.certificate]
    files += [settings.admin.credentials, Path(desk.config.name)]
    if settings.store.kind == "postgresql" and settings.store.password_file is not None:
        files.append(settings.store.password_file)
    return ", ".join(str(desk.base / file) for file in files)
