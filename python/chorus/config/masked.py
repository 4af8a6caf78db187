"""Secrets among the settings: values that no message, dump or traceback shows by accident. Pure."""

from __future__ import annotations

from typing import Generic, TypeVar

_MASK = "*" * 10

T = TypeVar("T", bound=str | bytes)


class Masked(Generic[T]):
    """A secret. It is false where there is none, and equals another one of the same value."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def get_secret_value(self) -> T:
        """The secret in the clear."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._value == other._value

    def __str__(self) -> str:
        return _MASK if self else ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class SecretText(Masked[str]):
    """A secret that is text."""


class SecretData(Masked[bytes]):
    """A secret of raw bytes; hexadecimal where it is handed over."""
