"""Secrets that are easy to find again, and the search for them in everything that a run leaves behind."""

import base64
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil


def forms(secret: str) -> Iterator[bytes]:
    """How it may be written: as it is, reversed, in hexadecimal digits, and in Base64 at any of its alignments."""
    clear = secret.encode()
    yield clear
    yield clear[::-1]
    yield clear.hex().encode()
    yield clear.hex().upper().encode()
    for before in range(3):
        # Only the groups of four that the secret alone decides.
        whole = base64.b64encode(bytes(before) + clear)
        inner = whole[4 if before else 0 : len(whole) - 4]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


class Search:
    """secrets: what each is called -> the secret. Finds them in texts and files; says where, never what."""

    def __init__(self) -> None:
        self._secrets: dict[str, list[bytes]] = {}
        self.looked_at = 0

    def plant(self, name: str, secret: str) -> None:
        assert len(secret) >= 12, f"{name} is too short to be told from chance"
        self._secrets[name] = [form for form in forms(secret) if len(form) >= 8]

    @property
    def planted(self) -> Mapping[str, list[bytes]]:
        return self._secrets

    def in_text(self, where: str, text: str | bytes) -> list[str]:
        data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        self.looked_at += len(data)
        return [f"{name} in {where}" for name, found in self._secrets.items() if any(form in data for form in found)]

    def in_files(self, folder: Path, *, but: frozenset[str]) -> list[str]:
        """but: paths below the folder that are meant to hold secrets."""
        found = []
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if path.is_file() and name not in but:
                found += self.in_text(name, path.read_bytes())
        return found


class ProcessWatch:
    """What every process of this machine shows of itself to others, looked at all the time."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._ended = threading.Event()

    @contextmanager
    def watching(self) -> Iterator["ProcessWatch"]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            for pid in psutil.pids():
                try:
                    self.seen.add(Path(f"/proc/{pid}/cmdline").read_bytes())
                except OSError:
                    continue  # it has ended
