"""``store.json``: a plain TinyDB file of one moment, replaced as a whole or not at all.

Tables are the kinds of nouns, ``audit`` (document id = seq) and ``_meta`` (one document). Any TinyDB opens it to read.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from tinydb.storages import Storage

from provisioner.model.audit import AuditEvent
from provisioner.model.errors import Unavailable
from provisioner.model.ports import Noun
from provisioner.model.records import Row
from provisioner.store.disk import Disk, forget, open_private, sync_directory, temporary
from provisioner.store.schema import Rows, to_json

_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Meta:
    """unit: number of the last unit that the snapshot contains, by which a journal knows what it adds.

    audit_seq: of the last audit row ever written, which may be archived."""

    schema_version: int
    unit: int
    audit_seq: int


@dataclass(frozen=True, slots=True)
class Moment:
    """Everything that a store holds at one moment. kept: the audit rows that stay in the snapshot."""

    meta: Meta
    nouns: Mapping[str, Sequence[Noun]]
    audit: Sequence[AuditEvent]


class SnapshotStorage(Storage):
    """A TinyDB storage whose writes survive a crash: temporary file, fsync, rename, fsync of the directory.

    Documents may be rows or nouns; both become the same JSON."""

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self._path = path
        self.disk = disk or Disk()

    def read(self) -> dict[str, dict[str, Any]] | None:
        """Tables of documents by document id; None when there is no file."""
        if not self._path.exists():
            return None
        tables: dict[str, dict[str, Any]] = orjson.loads(self._path.read_bytes())
        return tables

    def write(self, data: Mapping[str, Mapping[str, Any]]) -> None:
        fresh = temporary(self._path)
        fd = open_private(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            try:
                for chunk in _chunks(_json(data)):
                    self.disk.write(fd, chunk)
                self.disk.fsync(fd)
            finally:
                os.close(fd)
            self.disk.replace(fresh, self._path)
        except OSError:
            forget(fresh)
            raise
        sync_directory(self.disk, self._path.parent)

    def size_bytes(self) -> int:
        return self._path.stat().st_size


def write_moment(storage: SnapshotStorage, moment: Moment) -> None:
    tables: dict[str, dict[str, Any]] = {"_meta": {"1": asdict(moment.meta)}}
    for kind, nouns in moment.nouns.items():
        tables[kind] = {str(number): noun for number, noun in enumerate(nouns, 1)}
    tables["audit"] = {str(event.seq): event for event in moment.audit}
    storage.write(tables)


def read_rows(storage: SnapshotStorage) -> tuple[Meta, Rows] | None:
    """None when there is no snapshot; Unavailable when it is none of ours or damaged."""
    try:
        tables = storage.read()
        if tables is None:
            return None
        meta = _meta(tables.pop("_meta")["1"])
        return meta, {kind: _named(kind, documents) for kind, documents in tables.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable(f"store.json is damaged or not a fleetgate store ({type(error).__name__})") from None


def _named(kind: str, documents: Mapping[str, Any]) -> list[Row]:
    """Raises KeyError or TypeError when one of them lacks what it is known by."""
    by = "seq" if kind == AuditEvent.kind else "id"
    for document in documents.values():
        document[by]
    return list(documents.values())


def _meta(document: Mapping[str, Any]) -> Meta:
    return Meta(document["schema_version"], document["unit"], document["audit_seq"])


def _json(tables: Mapping[str, Mapping[str, Any]]) -> Iterator[bytes]:
    """One JSON object in pieces of a document each: one big call would hold the interpreter for its whole length."""
    opening = b"{"
    for name, documents in tables.items():
        yield opening + to_json(name) + b":{"
        opening = b"\n,"
        separator = b"\n"
        for doc_id, document in documents.items():
            yield separator + to_json(doc_id) + b":" + to_json(document)
            separator = b"\n,"
        yield b"}"
    yield b"}\n" if tables else b"{}\n"


def _chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    chunk = bytearray()
    for piece in pieces:
        chunk += piece
        if len(chunk) >= _CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)
