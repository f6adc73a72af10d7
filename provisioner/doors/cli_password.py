"""Where a password comes from: a file, stdin or the environment; never the command line, which everybody can read."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

VARIABLE = "FLEETGATE_PASSWORD"
PASSWORD_BYTES_MAX = 4_096


def _refuse(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError(
            "a password on the command line can be read by everybody on this machine: use --password-file FILE, "
            f"--password-file - for stdin, the variable {VARIABLE}, or leave it out to have one generated"
        )


def password_options(function: F) -> F:
    """``--password-file``, and a ``--password`` that only says why there is none."""
    refused = click.option(
        "--password", hidden=True, expose_value=False, is_flag=False, flag_value="", callback=_refuse, is_eager=True
    )
    file = click.option(
        "--password-file",
        metavar="FILE",
        help=f"First line of FILE, - for stdin.  [env: {VARIABLE}]  Generated without it.",
    )
    return refused(file(function))


def read_password(file: str | None) -> str | None:
    """None: none was given. Only the end of the line is taken off."""
    if file is None:
        return os.environ.get(VARIABLE) or None
    from provisioner.doors.rows import read_text

    lines = read_text(file, PASSWORD_BYTES_MAX).split("\n")
    password = lines[0].removesuffix("\r")
    if not password or any(lines[1:]):
        raise click.UsageError(f"{file} must hold one line, the password")
    return password
