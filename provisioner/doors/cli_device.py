"""fleetgate device: the registry."""

from typing import Any

import click

from provisioner.doors import cli_frame
from provisioner.doors.cli_account import LIMIT
from provisioner.doors.cli_desk import Desk, at_service, note
from provisioner.doors.cli_frame import Noun

COLUMNS = ("id", "account", "client_id", "state", "status", "user", "last_seen_at", "address")
ACCOUNT = click.option("--account", help="Tells apart devices of one client id.")


@click.group(cls=Noun)
def device() -> None:
    """Devices that passed the gate. A device is named by its id or its client id."""


@device.command("list", examples=("fleetgate device list", "fleetgate device list --account acme --state connected -q"))
@click.option("--account")
@click.option("--state", type=click.Choice(("provisioned", "connected", "disabled", "revoked")))
@click.option("--client-id")
@LIMIT
@at_service
def list_(desk: Desk, limit: int | None, **filters: str | None) -> None:
    """List devices."""
    desk.page("device.page", limit, COLUMNS, **filters)


@device.command(examples=("fleetgate device show press-17", "fleetgate device show press-17 --account acme -o json"))
@click.argument("device")
@ACCOUNT
@at_service
def show(desk: Desk, device: str, account: str | None) -> None:
    """Show one device."""
    desk.show("device.show", id=device, account=account)


@device.command(examples=("fleetgate device enable press-16 --dry-run", "fleetgate device enable press-16"))
@click.argument("device")
@ACCOUNT
@cli_frame.dry_run()
@at_service
def enable(desk: Desk, device: str, account: str | None, dry_run: bool) -> None:
    """Let a disabled device in again, with the credentials that it has."""
    desk.show("device.enable", id=device, account=account, dry_run=dry_run)


@device.command(examples=("fleetgate device disable press-17 --dry-run", "fleetgate device disable press-17 --yes"))
@click.argument("device")
@ACCOUNT
@cli_frame.dry_run()
@cli_frame.yes()
@at_service
def disable(desk: Desk, device: str, account: str | None, dry_run: bool, yes: bool) -> None:
    """Cut a device off and keep everything of it."""
    cli_frame.confirm(f"cut off device {device}", yes=yes, dry_run=dry_run)
    desk.show("device.disable", id=device, account=account, dry_run=dry_run)


@device.command(examples=("fleetgate device revoke press-17 --dry-run", "fleetgate device revoke press-15 --yes"))
@click.argument("device")
@ACCOUNT
@cli_frame.dry_run()
@cli_frame.yes()
@at_service
def revoke(desk: Desk, device: str, account: str | None, dry_run: bool, yes: bool) -> None:
    """End a device's credentials, certificates and requests for good: re-arm or make a request to let it in again."""
    cli_frame.confirm(f"revoke device {device}, its credentials and its requests", yes=yes, dry_run=dry_run)
    desk.show("device.revoke", id=device, account=account, dry_run=dry_run)


@device.command(examples=("fleetgate device kick press-17", "fleetgate device kick press-17 --account acme --dry-run"))
@click.argument("device")
@ACCOUNT
@cli_frame.dry_run()
@at_service
def kick(desk: Desk, device: str, account: str | None, dry_run: bool) -> None:
    """Cut the device's live connection to its account broker; it may come back at once."""
    result: dict[str, Any] = desk.ask("device.kick", id=device, account=account, dry_run=dry_run)
    desk.print.one(result)
    if result["cut"] is False:
        note("it was not connected")
