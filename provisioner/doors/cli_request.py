"""fleetgate request: the life of provision requests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from provisioner.doors import cli_frame, cli_import
from provisioner.doors.cli_account import LIMIT
from provisioner.doors.cli_desk import Desk, at_service, note, notes
from provisioner.doors.cli_frame import Noun
from provisioner.doors.cli_password import password_options, read_password

COLUMNS = ("id", "account", "client_id", "username", "phase", "activates_on", "expires_on", "approval")
STATES = ("pending", "granted", "confirmed", "revoked", "active", "scheduled", "waiting", "expired", "restored")
COUPLING = click.Choice(("INHERITED", "LOOSE", "STRICT"), case_sensitive=False)
FILE = click.Path(dir_okay=False, path_type=Path)
TIME = "TIME"  # RFC 3339 with an offset; the service judges it


@click.group(cls=Noun)
def request() -> None:
    """Provision requests: each lets one device through the gate once.

    A request is named by its id or its client id. TIME is RFC 3339 with an offset: 2030-01-31T08:00:00+01:00.
    """


request.add_command(cli_import.import_)
request.add_command(cli_import.export)


@request.command(
    examples=(
        "fleetgate request create --account acme --client-id press-18 --username press-18",
        "fleetgate request create --account acme --client-id press-19 --username press-19 --activation-key "
        "--password-file password.txt --expires-on 2099-01-01T00:00:00Z -o json",
    )
)
@click.option("--account", required=True)
@click.option("--client-id", required=True, help="The MQTT client id that the device will use.")
@click.option("--username", required=True, help="What the device logs in with; one account's, and it may be shared.")
@password_options
@click.option("--activation-key", is_flag=True, help="Require a key, generated and shown once.")
@click.option("--endpoint", metavar="URL", help="The broker that the device goes to; the account's without it.")
@click.option("--activates-on", metavar=TIME, help="Not before; now without it.")
@click.option("--expires-on", metavar=TIME, help="Not from then on; never without it.")
@click.option("--reserve-user", is_flag=True, help="Keep the device's new user for it alone.")
@click.option("--coupling", type=COUPLING, help="How firmly that user is bound.  [default: INHERITED]")
@click.option("--configuration", type=FILE, help="Additional device configuration, JSON or YAML.")
@click.option("--packages", type=FILE, help="Applications to install: a list in JSON or YAML.")
@click.option("--max-attempts", type=click.IntRange(1), help="How many asks are answered; all without it.")
@click.option("--require-approval", is_flag=True, help="Let the device wait until somebody approves.")
@cli_frame.dry_run()
@at_service
def create(desk: Desk, password_file: str | None, dry_run: bool, **given: Any) -> None:
    """Make a provision request. What is generated for it is shown now and never again."""
    fields = _with_files({**given, "password": read_password(password_file)})
    made = desk.ask("request.create", fields=fields, dry_run=dry_run)
    notes(made.pop("warnings"))
    desk.print.one(made)


@request.command("list", examples=("fleetgate request list", "fleetgate request list --account acme --state active -q"))
@click.option("--account")
@click.option("--state", type=click.Choice(STATES), help="A stored state, or what it amounts to now.")
@click.option("--client-id")
@click.option("--username")
@LIMIT
@at_service
def list_(desk: Desk, limit: int | None, **filters: str | None) -> None:
    """List requests."""
    desk.page("request.page", limit, COLUMNS, **filters)


@request.command(examples=("fleetgate request show press-17", "fleetgate request show press-17 -o yaml"))
@click.argument("request")
@at_service
def show(desk: Desk, request: str) -> None:
    """Show one request."""
    desk.show("request.show", id=request)


@request.command(
    examples=(
        "fleetgate request update press-20 --expires-on 2099-01-01T00:00:00Z",
        "fleetgate request update press-20 --unset expires_on --unset endpoint",
    )
)
@click.argument("request")
@click.option("--activates-on", metavar=TIME)
@click.option("--expires-on", metavar=TIME)
@click.option("--endpoint", metavar="URL")
@click.option("--reserve-user/--no-reserve-user", default=None)
@click.option("--coupling", type=COUPLING)
@click.option("--configuration", type=FILE)
@click.option("--packages", type=FILE)
@click.option("--max-attempts", type=click.IntRange(1))
@click.option(
    "--unset",
    multiple=True,
    type=click.Choice(("expires_on", "endpoint", "configuration", "packages", "max_attempts")),
    help="Take the field away.",
)
@cli_frame.dry_run()
@at_service
def update(desk: Desk, request: str, unset: tuple[str, ...], dry_run: bool, **given: Any) -> None:
    """Change the named fields of an open request; the others stay as they are."""
    fields = {**_with_files(given), **dict.fromkeys(unset)}
    if not fields:
        raise click.UsageError("name at least one field to change")
    desk.show("request.update", id=request, fields=fields, dry_run=dry_run)


@request.command(
    examples=("fleetgate request delete press-20 --dry-run", "fleetgate request delete press-21 --yes"),
)
@click.argument("request")
@cli_frame.dry_run()
@cli_frame.yes()
@at_service
def delete(desk: Desk, request: str, dry_run: bool, yes: bool) -> None:
    """Forget a request, and credentials that it granted and nobody used."""
    cli_frame.confirm(f"delete request {request}", yes=yes, dry_run=dry_run)
    desk.show("request.delete", id=request, dry_run=dry_run)


@request.command(
    examples=("fleetgate request revoke press-20 --dry-run", "fleetgate request revoke press-22 --yes"),
)
@click.argument("request")
@cli_frame.dry_run()
@cli_frame.yes()
@at_service
def revoke(desk: Desk, request: str, dry_run: bool, yes: bool) -> None:
    """End a request now: its connection at the gate is cut. A device that was confirmed stays; see device revoke."""
    cli_frame.confirm(f"revoke request {request}", yes=yes, dry_run=dry_run)
    desk.show("request.revoke", id=request, dry_run=dry_run)


@request.command(
    examples=("fleetgate request rearm press-20 --cut --dry-run", "fleetgate request rearm press-22 --yes"),
)
@click.argument("request")
@click.option("--cut", is_flag=True, help="End the present credentials now: the device comes back to the gate.")
@cli_frame.dry_run()
@cli_frame.yes()
@at_service
def rearm(desk: Desk, request: str, cut: bool, dry_run: bool, yes: bool) -> None:
    """Open a request again, for a new grant with new credentials; locks and counts are forgotten."""
    cli_frame.confirm(f"re-arm request {request}{' and cut its device' * cut}", yes=yes, dry_run=dry_run)
    desk.show("request.rearm", id=request, cut=cut, dry_run=dry_run)


@request.command(examples=("fleetgate request approve press-23 --dry-run", "fleetgate request approve press-23"))
@click.argument("request")
@cli_frame.dry_run()
@at_service
def approve(desk: Desk, request: str, dry_run: bool) -> None:
    """Let the device of a request that waits for it through."""
    desk.show("request.approve", id=request, dry_run=dry_run)


@request.command(examples=("fleetgate request reject press-23 --dry-run", "fleetgate request reject press-23"))
@click.argument("request")
@cli_frame.dry_run()
@at_service
def reject(desk: Desk, request: str, dry_run: bool) -> None:
    """Refuse the device of a request that waits for approval; it can still be approved."""
    desk.show("request.reject", id=request, dry_run=dry_run)


@request.command(
    examples=(
        "fleetgate request explain press-17",
        "fleetgate request explain press-20 --at 2030-01-31T08:00:00+01:00 -o json",
    )
)
@click.argument("request")
@click.option("--at", metavar=TIME, help="As if it were then; now without it.")
@at_service
def explain(desk: Desk, request: str, at: str | None) -> None:
    """Walk every check that the gate would make if the device came with the right key, and say which one refuses."""
    result = desk.ask("request.explain", id=request, at=at)
    if desk.print.is_table:
        desk.print.many(result["checks"], ("passed", "name", "detail"), id="name")
    else:
        desk.print.one(result)
    refusal = result["refusal"]
    note("it would be granted" if refusal is None else _refused(refusal))


@request.command(examples=("fleetgate request preview press-17", "fleetgate request preview press-17 -o yaml"))
@click.argument("request")
@at_service
def preview(desk: Desk, request: str) -> None:
    """Show the configuration that the device would be given, its new password left out."""
    result = desk.ask("request.preview", id=request)
    notes(f"configuration: {path} is overridden by the gate" for path in result["overridden"])
    desk.print.one({"id": request, **result})


def _refused(refusal: Mapping[str, Any]) -> str:
    retry_s = refusal["retry_after_s"]
    told = f"told {refusal['status']}" + (f", retry after {retry_s} s" if retry_s is not None else "")
    return f"it would be refused ({refusal['reason']}; {told}): {refusal['detail']}"


def _with_files(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were named, with files read."""
    from provisioner.doors import rows

    fields = {name: value for name, value in given.items() if value is not None and value is not False}
    if given.get("reserve_user") is False:
        fields["reserve_user"] = False
    if "configuration" in fields:
        fields["configuration"] = rows.read_object(fields["configuration"])
    if "packages" in fields:
        fields["packages"] = rows.read_value(fields["packages"])
    return fields
