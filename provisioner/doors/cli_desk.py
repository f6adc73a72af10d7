"""One command's way to the running service: finds the installation, connects when it is needed, prints."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from provisioner.doors import cli_frame
from provisioner.doors.cli_output import Printer

if TYPE_CHECKING:
    from provisioner.config import Settings
    from provisioner.doors.control_client import ControlClient

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # a listener on all addresses is reached on the nearest


class Desk:
    """``connection`` is opened once and closed with the command."""

    def __init__(self, config: Path, printer: Printer) -> None:
        self.config, self._stack = config, ExitStack()
        self._connection: ControlClient | None = None
        self.print = printer

    def __enter__(self) -> "Desk":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def settings(self) -> "Settings":
        return settings(self.config)

    @property
    def base(self) -> Path:
        """What paths in the settings are relative to."""
        return self.config.resolve().parent

    @property
    def connection(self) -> "ControlClient":
        if self._connection is None:
            self._connection = self._stack.enter_context(connect(self.config))
        return self._connection

    def ask(self, verb: str, **params: Any) -> Any:
        return self.connection.ask(verb, **params)

    def show(self, verb: str, **params: Any) -> None:
        """Ask, and print the record that comes back."""
        self.print.one(self.ask(verb, **params))

    def page(self, verb: str, limit: int | None, columns: Sequence[str], **params: Any) -> None:
        """Print a listing, followed from page to page."""
        found: Iterator[Mapping[str, Any]] = self.connection.pages(verb, limit=limit, **params)
        if not self.print.many(found, columns):
            note("nothing matches" if any(params.values()) else "there are none yet")


def settings(config: Path) -> "Settings":
    """The settings in that file; InvalidInput says which of them are wrong."""
    from provisioner import config as reading

    return reading.read(config)


def connect(config: Path) -> "ControlClient":
    """To the admin listener of the installation, with the credential that lies beside its settings."""
    from provisioner.doors.control_client import ControlClient
    from provisioner.doors.installation import CREDENTIAL_FILE, read_credential
    from provisioner.model.errors import InvalidInput, Problem

    read = settings(config)
    if not read.admin.port:
        rule = "must be a port that stays the same, for the service to be found; 0 is another one at each start"
        raise InvalidInput([Problem("admin.port", rule, "0")])
    base = config.resolve().parent
    name, credential = read_credential(base / CREDENTIAL_FILE)
    host = ANYWHERE.get(read.admin.host, read.admin.host)
    ca = base / read.authority.certificate if read.admin.tls else None
    return ControlClient(host, read.admin.port, name, credential, ca=ca)


def at_service(function: Callable[..., None]) -> Callable[..., None]:
    """A command about the running service: it takes ``desk`` first, and -c, -o and -q beside its own options."""

    @wraps(function)
    def command(config: Path, output: str | None, quiet: bool, **given: Any) -> None:
        with Desk(config, Printer(output, quiet)) as desk:
            function(desk, **given)

    return cli_frame.where()(cli_frame.printed()(command))


def note(text: str) -> None:
    """A message beside the data: on stderr."""
    from provisioner.doors.cli_output import for_terminal

    click.echo(for_terminal(text), err=True)


def notes(texts: Iterable[str]) -> None:
    for text in texts:
        note(f"warning: {text}")
