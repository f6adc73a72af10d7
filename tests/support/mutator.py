"""Bytes that are almost right: small random damage to samples, the same damage again for the same seed."""

from collections.abc import Callable, Sequence
from random import Random

_EDGES = (b"\x00", b"\x7f", b"\x80", b"\xff", b"\xff\xff", b"\x80\x80\x80\x80", b"\xff\xff\xff\x7f", b"\xff" * 10)
_TOKENS = (b'"', b"{", b"[", b"null", b"1e400", b"NaN", b"\\ud800", b"\x1f\x8b", b"#", b"+", b"/", b"$", b"\xc3\x28")


class Mutator:
    """Damages one of ``samples`` at a time, in one to eight places; once in a while not at all."""

    def __init__(self, seed: int | str, samples: Sequence[bytes]) -> None:
        self.chance = Random(seed)
        self._samples = samples
        self._ways: Sequence[Callable[[bytearray], None]] = (
            self._flip, self._overwrite, self._insert, self._delete, self._repeat, self._cut, self._splice,
        )  # fmt: skip

    def next(self) -> bytes:
        """One sample, damaged."""
        return self.damaged(self.chance.choice(self._samples))

    def damaged(self, sample: bytes) -> bytes:
        data = bytearray(sample)
        for _ in range(self.chance.choice((0, 1, 1, 1, 2, 3, 5, 8))):
            self.chance.choice(self._ways)(data)
        return bytes(data)

    def _at(self, data: bytearray) -> int:
        return self.chance.randrange(len(data) + 1)

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)

    def _overwrite(self, data: bytearray) -> None:
        at, edge = self._at(data), self.chance.choice(_EDGES)
        data[at : at + len(edge)] = edge

    def _insert(self, data: bytearray) -> None:
        at = self._at(data)
        data[at:at] = self.chance.choice((self.chance.choice(_TOKENS), self.chance.randbytes(self.chance.randrange(9))))

    def _delete(self, data: bytearray) -> None:
        at = self._at(data)
        del data[at : at + self.chance.randrange(1, 17)]

    def _repeat(self, data: bytearray) -> None:
        at = self._at(data)
        data[at:at] = data[at : at + self.chance.randrange(1, 33)] * self.chance.randrange(1, 9)

    def _cut(self, data: bytearray) -> None:
        del data[self._at(data) :]

    def _splice(self, data: bytearray) -> None:
        other = self.chance.choice(self._samples)
        data[self._at(data) :] = other[self.chance.randrange(len(other) + 1) :]
