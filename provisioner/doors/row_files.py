"""A file of rows that can be read more than once; CSV and JSON lines row by row, however long the file is."""

import io
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from provisioner.doors.rows import FILE_BYTES_MAX, Row, bad, csv_rows, json_lines, json_rows, text_of, yaml_rows

LINE_CHARACTERS_MAX = 1 << 20  # far above what the service takes as a row
_LINE_ENDS = {"csv": "", "jsonl": "\n"}  # as io.TextIOWrapper has them
_BEYOND = "; CSV and JSON lines may be longer"


class RowFile:
    """``iter`` begins at the beginning. Raises InvalidInput, and OSError when the disk fails."""

    def __init__(self, path: str, format: str, known: Iterable[str]) -> None:
        """path: ``-`` for stdin; what cannot be read twice is kept in a file without a name meanwhile. known: as
        ``rows.csv_rows`` has it."""
        self._path, self._format, self._known = path, format, frozenset(known)
        self._whole: list[Row] | None = None  # of a form that is understood as one piece
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            file = _opened(stack, self._path)
            if not file.seekable():
                kept = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(file, kept)
                file = kept
                file.seek(0)
            self._file, self._start = file, file.tell()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[Row]:
        if self._format in _LINE_ENDS:
            return self._by_line(_LINE_ENDS[self._format])
        if self._whole is None:
            text = text_of(self._file, self._path, FILE_BYTES_MAX, _BEYOND)
            self._whole = list(yaml_rows(text) if self._format == "yaml" else json_rows(text))
        return iter(self._whole)

    def _by_line(self, end: str) -> Iterator[Row]:
        self._file.seek(self._start)
        lines = io.TextIOWrapper(self._file, "utf-8-sig", newline=end)
        try:
            yield from csv_rows(_bounded(lines), self._known) if self._format == "csv" else json_lines(_bounded(lines))
        except UnicodeDecodeError:
            raise bad(self._path, "must be UTF-8") from None
        finally:
            if not self._file.closed:  # by the end of the block, before all of it was read
                lines.detach()


def _opened(stack: ExitStack, path: str) -> IO[bytes]:
    if path == "-":
        return sys.stdin.buffer
    try:
        return stack.enter_context(Path(path).open("rb"))
    except OSError as error:
        raise bad(path, f"must be a readable file: {error.strerror}") from None


def _bounded(lines: IO[str]) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: lines.readline(LINE_CHARACTERS_MAX + 1), ""), 1):
        if len(line) > LINE_CHARACTERS_MAX:
            raise bad(f"line {number}", f"must be at most {LINE_CHARACTERS_MAX:,} characters", "more")
        yield line
