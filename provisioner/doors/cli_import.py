"""fleetgate request import and export: many requests at once, each reported by its line."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import click

from provisioner.doors import cli_frame
from provisioner.doors.cli_desk import Desk, at_service, note
from provisioner.doors.cli_frame import Command, Failed
from provisioner.doors.cli_output import cell, csv_line
from provisioner.doors.error_kinds import PARTLY_DONE

RESULT_FIELDS = ("line", "id", "account", "client_id", "username", "password", "activation_key")
COLUMNS = ("line", "ok", "id", "client_id", "username", "password", "activation_key")
EXPORT_COLUMNS = ("account", "client_id", "username", "activates_on", "expires_on", "coupling")
# What makes the same request again; the password is not kept, so it is not exported.
EXPORTED = (
    *("account", "client_id", "username", "activation_key", "endpoint", "activates_on", "expires_on"),
    *("reserve_user", "coupling", "configuration", "packages", "max_attempts", "require_approval"),
)
Result = dict[str, Any]
Row = tuple[int, Mapping[str, Any]]


@click.command(
    "import",
    cls=Command,
    examples=(
        "fleetgate request import fleet.csv --dry-run",
        "fleetgate request import fleet.csv --template template.yaml --results secrets.csv",
    ),
)
@click.argument("file")
@click.option("--format", type=click.Choice(("csv", "json", "jsonl", "yaml")), help="If the name of FILE does not say.")
@click.option("--template", type=click.Path(dir_okay=False, path_type=Path), help="Fields for every row, JSON or YAML.")
@click.option(
    "--results", type=click.Path(dir_okay=False, path_type=Path), help="Write secrets there (0600, CSV or .jsonl) only."
)
@cli_frame.dry_run()
@at_service
def import_(
    desk: Desk, file: str, format: str | None, template: Path | None, results: Path | None, dry_run: bool
) -> None:
    """Make a request of each row of FILE (CSV, JSON or YAML, - for stdin), or report it by its line.

    Rows that fail stop no others; exit status 7 when some did. A row overrides the template's fields.
    """
    from provisioner.doors import row_files, rows
    from provisioner.model.draft import REQUEST_FIELDS

    form = format or rows.format_of(file)
    if form is None:
        raise click.UsageError(f"say what {file} is with --format")
    under = rows.read_object(template) if template is not None else {}
    with ExitStack() as stack:
        found = stack.enter_context(row_files.RowFile(file, form, REQUEST_FIELDS))
        wanted = sum(1 for _ in found)  # nothing is made before the whole file was understood
        if not wanted:
            raise click.UsageError(f"{file} holds no rows")
        connection = desk.connection  # before the file, which would be in the way of a second try
        secrets = _SecretsFile(stack, results) if results is not None and not dry_run else None
        merged = ((line, rows.over(under, row)) for line, row in found)
        sent = connection.send_rows(merged, dry_run=dry_run, arrived=secrets.take if secrets is not None else None)
        outcome = _Outcome(_progress(_checked(sent, dry_run), wanted), with_secrets=secrets is None)
        desk.print.many(outcome, COLUMNS)
        outcome.report(wanted, dry_run)
    if outcome.failures:
        raise Failed([], PARTLY_DONE)


@click.command(
    cls=Command,
    examples=("fleetgate request export", "fleetgate request export --account acme --state pending -o csv"),
)
@click.option("--account")
@click.option("--state", type=click.Choice(("pending", "granted", "confirmed", "revoked")))
@at_service
def export(desk: Desk, account: str | None, state: str | None) -> None:
    """Print requests in a form that `request import` takes; passwords and keys are not kept and not in it."""
    found = desk.connection.pages("request.page", account=account, state=state)
    desk.print.many((_exported(view) for view in found), EXPORT_COLUMNS, id="client_id")


class _SecretsFile:
    """Takes each new secret before anything is printed: who closes stdout has it. Only the owner can read it; nothing
    is overwritten."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise Failed([f"error: {path} exists, and results are never overwritten"], 5) from None
        except OSError as error:
            raise Failed([f"error: {path} cannot be written: {error.strerror}"], 6) from None
        self._path = path
        self._file: IO[str] = stack.enter_context(os.fdopen(descriptor, "w", encoding="utf-8", newline=""))
        self._lines = path.suffix == ".jsonl"
        if not self._lines:
            self._file.write(csv_line(RESULT_FIELDS))

    def take(self, result: Mapping[str, Any]) -> None:
        """One result of an import, whether a request was made or not."""
        if not result["ok"]:
            return
        row = {name: {**result, **result["secrets"]}.get(name) for name in RESULT_FIELDS}
        try:
            self._file.write(json.dumps(row) + "\n" if self._lines else csv_line(map(cell, row.values())))
            self._file.flush()
        except OSError as error:
            lost = (
                f"the secrets of {result['client_id']} (line {result['line']}) and of what was made behind it are lost"
            )
            advice = "see `fleetgate request list`, delete those requests and import their rows again"
            raise Failed([f"error: {self._path} cannot be written: {error.strerror}", f"{lost}; {advice}"], 1) from None


class _Outcome:
    """The results as they are printed, one by one; what ended them early is raised by ``report``."""

    def __init__(self, results: Iterable[Result], *, with_secrets: bool) -> None:
        self._results, self._with_secrets = results, with_secrets
        self._made = 0
        self._notes: list[str] = []
        self._ended_by: Exception | None = None
        self.failures = 0

    def __iter__(self) -> Iterator[Result]:
        try:
            for result in self._results:
                told = _told(result, with_secrets=self._with_secrets)
                self._made += told["ok"]
                self.failures += not told["ok"]
                self._notes += _notes(told)
                yield told
        except Exception as error:  # what was made before it has to be printed all the same
            self._ended_by = error

    def report(self, wanted: int, dry_run: bool) -> None:
        for text in self._notes:
            note(text)
        left = wanted - self._made - self.failures
        verb = "would be made" if dry_run else "made"
        note(f"{self._made} {verb}, {self.failures} failed" + (f", {left} not tried" if left else ""))
        if self._ended_by is not None:
            raise self._ended_by


def _checked(results: Iterable[Mapping[str, Any]], dry_run: bool) -> Iterator[Result]:
    """The service's results. In a dry run nothing is stored, so rows that collide with each other are found here."""
    seen: set[str] = set()
    for result in results:
        if dry_run and result["ok"] and result["client_id"] in seen:
            error = {"kind": "conflict", "message": "an earlier row has this client_id", "problems": []}
            yield {"line": result["line"], "ok": False, "error": error}
        else:
            if dry_run:
                seen.add(result.get("client_id", ""))
            yield dict(result)


def _told(result: Result, *, with_secrets: bool) -> Result:
    """As it is printed: flat."""
    shown = dict.fromkeys(("id", "account", "client_id", "username", "password", "activation_key", "error"))
    told = {"line": result["line"], "ok": result["ok"], **shown, "warnings": result.get("warnings", [])}
    if not result["ok"]:
        told["error"] = result["error"]
        return told
    told |= {name: result[name] for name in ("id", "account", "client_id", "username")}
    return told | result["secrets"] if with_secrets else told


def _progress(results: Iterator[Result], count: int) -> Iterator[Result]:
    """With a bar on stderr when that is a terminal."""
    if not sys.stderr.isatty():
        yield from results
        return
    with click.progressbar(results, length=count, label="rows", file=sys.stderr) as bar:
        yield from bar


def _notes(told: Result) -> Iterator[str]:
    error = told["error"] or {}
    lines = [f"{p['field']}: {p['rule']} (got {p['shape']})" for p in error.get("problems", ())]
    for text in lines or ([error["message"]] if error else []):
        yield f"line {told['line']}: {text}"
    for warning in told["warnings"]:
        yield f"line {told['line']}: warning: {warning}"


def _exported(view: Mapping[str, Any]) -> Mapping[str, Any]:
    row = {**view, "require_approval": view["approval"] != "not_required"}
    return {name: row[name] for name in EXPORTED}
