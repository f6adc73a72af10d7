"""fleetgate completion: the script that makes a shell complete nouns, verbs and options."""

import click
from click.shell_completion import get_completion_class

from provisioner.doors.cli_frame import Command

VARIABLE = "_FLEETGATE_COMPLETE"


@click.command(
    cls=Command,
    examples=("fleetgate completion bash > fleetgate.bash", "fleetgate completion fish > fleetgate.fish"),
)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL; source it in the shell's start-up file."""
    complete = get_completion_class(shell)
    if complete is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(complete(ctx.find_root().command, {}, "fleetgate", VARIABLE).source())
