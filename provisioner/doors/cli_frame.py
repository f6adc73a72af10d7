"""What every command has in common: where the installation is, how it ends, and its two examples."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
OUTPUTS = ("table", "json", "jsonl", "yaml", "csv")


class Failed(click.ClickException):
    """Ends the command with ``status``; each of ``lines`` is one line on stderr."""

    def __init__(self, lines: Sequence[str], status: int) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        setattr(self, "exit_code", status)  # noqa: B010  click declares it for the class

    def show(self, file: Any = None) -> None:
        from provisioner.doors.cli_output import for_terminal

        for line in self.lines:
            click.echo(for_terminal(line), file=file, err=True)


class Command(click.Command):
    """A command whose ``--help`` ends with its examples."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", CONTEXT)
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{' ' * formatter.current_indent}{example}\n")
        super().format_epilog(ctx, formatter)


class Noun(click.Group):
    """The verbs of one noun."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", CONTEXT)
        super().__init__(*args, **kwargs)


def where() -> Callable[[F], F]:
    """``-c``: the installation that a command is about."""
    return click.option(
        "-c",
        "--config",
        envvar="FLEETGATE_CONFIG",
        default="fleetgate.yaml",
        show_default=True,
        type=click.Path(dir_okay=False, path_type=Path),
        help="Settings of the installation.  [env: FLEETGATE_CONFIG]",
    )


def printed() -> Callable[[F], F]:
    """How data is printed."""

    def decorate(function: F) -> F:
        function = click.option("-q", "--quiet", is_flag=True, help="Print ids only.")(function)
        choices = click.Choice(OUTPUTS)
        return click.option("-o", "--output", type=choices, help="Default: table at a terminal, else json.")(function)

    return decorate


def dry_run() -> Callable[[F], F]:
    return click.option("--dry-run", is_flag=True, help="Check everything, change nothing.")


def yes() -> Callable[[F], F]:
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def confirm(question: str, *, yes: bool, dry_run: bool = False) -> None:
    """Ask at a terminal; without one, refuse rather than guess."""
    if yes or dry_run:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("this needs a person at a terminal to agree, or --yes")
    click.confirm(f"{question}?", abort=True, err=True)
