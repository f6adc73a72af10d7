"""A string that must not be seen: every way of printing it shows asterisks."""

from typing import Final


class Secret:
    """Holds a secret text. ``reveal()`` is the only way to the clear text, so that each use can be found."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text: Final = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __len__(self) -> int:
        return len(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        # Plain equality serves tests and value objects only; verification goes through vault.keyring,
        # which compares digests in constant time.
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")
