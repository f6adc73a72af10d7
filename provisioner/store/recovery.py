"""From files to memory: the snapshot, plus the journal's units that are newer, plus the end of the audit archive."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from provisioner.model import records
from provisioner.model.audit import AuditEvent
from provisioner.model.errors import FleetgateError, Unavailable
from provisioner.model.ports import Noun
from provisioner.model.records import Row
from provisioner.store.audit_log import AuditArchive
from provisioner.store.disk import Disk, forget, open_private, sync_directory, temporary
from provisioner.store.journal import Journal, has_good_line, read_journal
from provisioner.store.schema import Rows, Schema
from provisioner.store.snapshot import Meta, Moment, SnapshotStorage, read_rows, write_moment

SNAPSHOT = "store.json"
JOURNAL = "store.log"
ARCHIVE = "audit-archive.jsonl"
LOCK = "store.lock"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recovered:
    """All that a directory holds, and its open journal. audit: the rows that are not archived."""

    meta: Meta
    nouns: Mapping[str, Sequence[Noun]]
    audit: Sequence[AuditEvent]
    archive: AuditArchive
    storage: SnapshotStorage
    journal: Journal


def recover(directory: Path, schema: Schema, disk: Disk) -> Recovered:
    """Read the store, making a new one where there is none. The caller holds the lock.

    Raises Unavailable, with nothing changed, when the files are damaged or of a newer schema; OSError."""
    for name in (SNAPSHOT, JOURNAL):
        forget(temporary(directory / name))
    storage = SnapshotStorage(directory / SNAPSHOT, disk)
    archive = AuditArchive(directory / ARCHIVE, disk)
    text = read_journal(directory / JOURNAL)
    found = read_rows(storage)
    if found is None and (text.units or archive.last_seq):
        raise Unavailable(f"{SNAPSHOT} is missing beside a {JOURNAL} or an {ARCHIVE}: restore it from a backup")
    old, rows = found or (Meta(schema.version, 0, 0), {})
    schema.check(old.schema_version)
    nouns, audit = _loaded(schema.migrated(_replayed(rows, old.unit, text.units), old.schema_version), schema)
    last = max(old.unit, _number(text.units[-1]) if text.units else 0)
    seq = max([old.audit_seq, archive.last_seq, *(event.seq for event in audit[-1:])])
    audit = [event for event in audit if event.seq > archive.last_seq]
    meta = Meta(schema.version, last, seq)
    rewritten = found is None or old.schema_version != schema.version
    if rewritten:
        write_moment(storage, Moment(meta, nouns, audit))
    _set_aside(directory, last, text.tail, disk)
    needed = not rewritten and last > old.unit
    journal = Journal(directory / JOURNAL, disk, text.good_bytes if needed else 0)
    return Recovered(meta, nouns, audit, archive, storage, journal)


def _replayed(rows: Rows, unit: int, units: Sequence[bytes]) -> Rows:
    """The snapshot's rows with every later unit of the journal applied; units that it contains are passed over."""
    audit = rows.pop("audit", [])
    tables = {kind: {row["id"]: row for row in table} for kind, table in rows.items()}
    for number, text in enumerate(units, _number(units[0]) if units else 0):
        line = orjson.loads(text)
        if line["unit"] != number or number > unit + 1:
            raise Unavailable(f"{JOURNAL} and {SNAPSHOT} do not belong together: unit {unit + 1} is missing")
        if number == unit + 1:
            _apply(tables, line)
            audit += line["audit"]
            unit = number
    return {kind: list(table.values()) for kind, table in tables.items()} | {"audit": audit}


def _apply(tables: dict[str, dict[str, Row]], line: Mapping[str, Any]) -> None:
    for kind, what in line["changes"]:
        table = tables.setdefault(kind, {})
        if isinstance(what, str):
            del table[what]
        else:
            table[what["id"]] = what


def _number(unit: bytes) -> int:
    number: int = orjson.loads(unit)["unit"]
    return number


def _loaded(rows: Rows, schema: Schema) -> tuple[dict[str, list[Noun]], list[AuditEvent]]:
    audit = rows.pop("audit")
    classes = {noun.kind: noun for noun in schema.nouns}
    unknown = sorted(rows.keys() - classes.keys())
    if unknown:
        raise Unavailable(f"{SNAPSHOT} holds records of an unknown kind: {unknown[0]}")
    nouns: dict[str, list[Noun]] = {
        kind: [_record(noun, row) for row in rows.get(kind, ())] for kind, noun in classes.items()
    }
    return nouns, [_record(AuditEvent, row) for row in audit]


def _record(noun: type[records.T], row: Row) -> records.T:
    try:
        return records.load(noun, row)
    except (TypeError, ValueError) as error:
        # Our own errors describe values without showing them; others might quote one.
        why = str(error) if isinstance(error, FleetgateError) else type(error).__name__
        name = row.get("id", row.get("seq"))
        raise Unavailable(f"{SNAPSHOT} holds a damaged {noun.__name__} ({name}): {why}") from None


def _set_aside(directory: Path, unit: int, tail: bytes, disk: Disk) -> None:
    """A tail cut short by a crash was never acknowledged. Whole units behind a bad line may have been: keep them,
    and on the disk before the journal is cut."""
    if not tail:
        return
    _log.warning("%s: cut %d bytes that follow unit %d and fail their checksum", JOURNAL, len(tail), unit)
    if has_good_line(tail):
        kept = directory / f"{JOURNAL}.damaged-after-{unit}"
        fd = open_private(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            disk.write(fd, tail)
            disk.fsync(fd)
        finally:
            os.close(fd)
        sync_directory(disk, directory)
        _log.error("whole units followed the damage; they are kept in %s", kept.name)
