"""fleetgate, the command line: nouns and verbs. Each one's code is loaded when it is called, not before.

Exit status: 0 done, 1 failure, 2 usage, 3 not authenticated or not allowed, 4 not found, 5 conflict, 6 invalid
input, 7 partly done, 8 service unreachable.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import click

from provisioner.doors.cli_frame import CONTEXT, Failed

PROGRAM = "fleetgate"
# name -> where its command is, and its line in the overview
COMMANDS = {
    "init": ("cli_service", "Make a new installation: settings, keys, authority, first administrator."),
    "serve": ("cli_service", "Run the service until SIGTERM."),
    "status": ("cli_service", "Show how the running service is doing."),
    "selftest": ("cli_service", "Try every part that a device's walk through the gate needs."),
    "fsck": ("cli_service", "Look for records that contradict each other or the account brokers."),
    "backup": ("cli_store", "Write everything that is stored to one file."),
    "restore": ("cli_store", "Fill an empty store from a backup."),
    "store": ("cli_store", "Move everything to a store of another kind."),
    "config": ("cli_config", "Check and show the settings."),
    "account": ("cli_account", "Accounts: the tenants that own devices."),
    "broker": ("cli_broker", "Account brokers: their configuration, and whether they are fit."),
    "user": ("cli_account", "Users of the provision account and of accounts."),
    "request": ("cli_request", "Provision requests: which device may pass the gate, and when."),
    "device": ("cli_device", "The registry of provisioned devices."),
    "audit": ("cli_audit", "The audit log."),
    "watch": ("cli_audit", "Show events as they happen."),
    "completion": ("cli_completion", "Print the completion script of a shell."),
}


class Overview(click.Group):
    """The root: knows its commands by name, and turns what they raise into messages and exit statuses."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"provisioner.doors.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if (ended := _ended(error)) is None:
                raise
            raise ended from None


@click.group(cls=Overview, context_settings=CONTEXT)
@click.version_option(package_name=PROGRAM, message="%(prog)s %(version)s")
def cli() -> None:
    """The gate that a factory-fresh device passes through once.

    Data goes to stdout, messages to stderr. Exit status: 0 done, 1 failure, 2 usage, 3 not authenticated or not
    allowed, 4 not found, 5 conflict, 6 invalid input, 7 partly done, 8 service unreachable.
    """


def main() -> None:
    cli(prog_name=PROGRAM)


def _ended(error: Exception) -> Failed | None:
    """The error as the way for a command to end; None when it is not ours."""
    from provisioner.model.errors import FleetgateError, InvalidInput

    if not isinstance(error, FleetgateError):
        return None
    from provisioner.doors.control_client import LoginRefused, Refused, Unreachable
    from provisioner.doors.error_kinds import EXIT_STATUS, kind_of
    from provisioner.doors.installation import CREDENTIAL_FILE

    if isinstance(error, Refused):
        kind, problems = error.kind, error.problems
    else:
        kind, problems = kind_of(error), error.problems if isinstance(error, InvalidInput) else ()
    lines = [str(problem) for problem in problems] or [f"error: {error}"]
    if isinstance(error, Unreachable):
        lines.append("is the service running? start it with `fleetgate serve`, and name its settings with -c")
    elif isinstance(error, LoginRefused):
        lines.append(
            f"{CREDENTIAL_FILE} beside the settings must be the one that `fleetgate init` made for this service"
        )
    else:
        lines += _next_step(kind, by_service=isinstance(error, Refused))
    return Failed(lines, EXIT_STATUS.get(kind, 1))


def _next_step(kind: str, *, by_service: bool) -> Sequence[str]:
    see = "try again, and see `fleetgate status`" if by_service else "put that right and try again"
    steps = {
        "not_found": "names that exist are listed by the verb `list`",
        "unavailable": f"nothing was done; {see}",
    }
    return [steps[kind]] if kind in steps else []


if __name__ == "__main__":
    main()
