"""fleetgate account and fleetgate user."""

from typing import Any

import click

from provisioner.doors import cli_frame
from provisioner.doors.cli_desk import Desk, at_service
from provisioner.doors.cli_frame import Noun

COLUMNS = ("id", "broker", "broker_url", "coupling", "certificates", "enabled")
USER_COLUMNS = ("username", "account", "client_id", "permissions", "enabled", "created_at")
COUPLING = click.Choice(("LOOSE", "STRICT"), case_sensitive=False)
CERTIFICATES = click.Choice(("off", "csr", "server-key"))
LIMIT = click.option("--limit", type=click.IntRange(1), help="At most so many; all of them without it.")


@click.group(cls=Noun)
def account() -> None:
    """Accounts: the tenants that own devices, each on one account broker."""


@account.command(
    examples=(
        "fleetgate account create globex",
        "fleetgate account create umbrella --broker embedded --coupling loose --certificates csr",
    )
)
@click.argument("name")
@click.option("--broker", help="Name of an account broker of the settings; the only one without it.")
@click.option("--broker-url", metavar="URL", help="Where devices reach it, if not where the settings say.")
@click.option("--coupling", type=COUPLING, help="How firmly a user is bound to its device.  [default: STRICT]")
@click.option("--certificates", type=CERTIFICATES, help="Which certificates devices are given.  [default: off]")
@cli_frame.dry_run()
@at_service
def create(desk: Desk, name: str, broker: str | None, dry_run: bool, **given: str | None) -> None:
    """Make the account NAME."""
    fields = {"name": name, "broker": broker or _only_broker(desk), **_named(given)}
    desk.show("account.create", fields=fields, dry_run=dry_run)


@account.command("list", examples=("fleetgate account list", "fleetgate account list -o csv --limit 20"))
@LIMIT
@at_service
def list_(desk: Desk, limit: int | None) -> None:
    """List the accounts."""
    desk.page("account.page", limit, COLUMNS)


@account.command(examples=("fleetgate account show acme", "fleetgate account show acme -o yaml"))
@click.argument("name")
@at_service
def show(desk: Desk, name: str) -> None:
    """Show one account."""
    desk.show("account.show", id=name)


@account.command(
    examples=(
        "fleetgate account update acme --coupling loose",
        "fleetgate account update acme --broker embedded --dry-run",
        "fleetgate account update acme --disabled --yes --dry-run",
    )
)
@click.argument("name")
@click.option("--broker", help="Where devices live that are granted from now on; those that are there stay.")
@click.option("--broker-url", metavar="URL")
@click.option("--coupling", type=COUPLING)
@click.option("--certificates", type=CERTIFICATES)
@click.option("--enabled/--disabled", default=None, help="Disabling cuts every device of the account.")
@cli_frame.dry_run()
@cli_frame.yes()
@at_service
def update(desk: Desk, name: str, dry_run: bool, yes: bool, enabled: bool | None, **given: str | None) -> None:
    """Change the named fields of an account; the others stay as they are."""
    if enabled is False:
        cli_frame.confirm(f"cut off every device of account {name}", yes=yes, dry_run=dry_run)
    fields = _named({**given, "enabled": enabled})
    if not fields:
        raise click.UsageError("name at least one field to change")
    desk.show("account.update", id=name, fields=fields, dry_run=dry_run)


@account.command(examples=("fleetgate account delete hooli --dry-run", "fleetgate account delete hooli --yes"))
@click.argument("name")
@cli_frame.dry_run()
@cli_frame.yes()
@at_service
def delete(desk: Desk, name: str, dry_run: bool, yes: bool) -> None:
    """Delete an account that has neither requests nor users."""
    cli_frame.confirm(f"delete account {name}", yes=yes, dry_run=dry_run)
    desk.show("account.delete", id=name, dry_run=dry_run)


@click.group(cls=Noun)
def user() -> None:
    """Users: those of the provision account, which devices come with, and those of accounts, which they leave with."""


@user.command("list", examples=("fleetgate user list --account provision", "fleetgate user list --account acme -q"))
@click.option("--account", required=True, help="An account, or the provision account by its name.")
@LIMIT
@at_service
def list_users(desk: Desk, account: str, limit: int | None) -> None:
    """List the users of an account."""
    desk.page("user.page", limit, USER_COLUMNS, account=account)


@user.command(
    "show",
    examples=(
        "fleetgate user show press --account provision",
        "fleetgate user show press --account provision -o json",
    ),
)
@click.argument("username")
@click.option("--account", required=True, help="An account, or the provision account by its name.")
@at_service
def show_user(desk: Desk, username: str, account: str) -> None:
    """Show one user and what it may do."""
    desk.show("user.show", account=account, username=username)


def _named(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _only_broker(desk: Desk) -> str:
    names = [broker.name for broker in desk.settings().account_brokers]
    if len(names) != 1:
        raise click.UsageError(f"name the account broker with --broker: {', '.join(names) or 'none is configured'}")
    return names[0]
