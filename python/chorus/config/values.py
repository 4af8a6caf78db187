"""Dataclasses as JSON and back, by the types that their fields are declared with.

So the processes of one agent hand each other settings and notes. What others say is checked by a schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from chorus.config.masked import Masked, SecretData, SecretText

T = TypeVar("T")


def as_json(value: Any, *, secrets: bool = False) -> Any:
    """What `json` can write of a dataclass; secrets are masked unless they are asked for."""
    if is_dataclass(value):
        return {field.name: as_json(getattr(value, field.name), secrets=secrets) for field in fields(value)}
    if isinstance(value, Masked):
        known = value.get_secret_value()
        return (known.hex() if isinstance(known, bytes) else known) if secrets else str(value)
    if isinstance(value, dict):
        return {key: as_json(item, secrets=secrets) for key, item in value.items()}
    if isinstance(value, tuple):
        return [as_json(item, secrets=secrets) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_json(kind: type[T], said: Any) -> T:
    """The dataclass that `as_json` wrote with its secrets. A field that is not named has its default.

    Raises ValueError, which names the field; never its value, which may be a secret.
    """
    known: Any = kind
    if not isinstance(said, dict):
        raise ValueError("expected an object")
    needed = {field.name for field in fields(known) if field.default is field.default_factory is MISSING}
    if missing := needed - said.keys():
        raise ValueError(f"{', '.join(sorted(missing))}: expected a value")
    return kind(**typed(kind, said))


def typed(kind: Any, said: Mapping[str, Any]) -> dict[str, Any]:
    """Values for fields of a dataclass, each of the type that its field is declared with. Raises ValueError
    as `from_json` does.
    """
    hints = _hints(kind)
    if unknown := said.keys() - {field.name for field in fields(kind)}:
        raise ValueError(f"{', '.join(sorted(map(str, unknown)))}: unknown")
    values = {}
    for name, value in said.items():
        try:
            values[name] = _value(hints[name], value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return values


@cache
def _hints(kind: Any) -> dict[str, Any]:
    # Each of them is text that has to be compiled.
    return get_type_hints(kind)


def _value(kind: Any, said: Any) -> Any:
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin is UnionType:
        (present,) = set(parts) - {NoneType}
        return None if said is None else _value(present, said)
    if is_dataclass(origin):
        return from_json(kind, said)
    if origin is dict and isinstance(said, dict):
        return {_value(parts[0], key): _value(parts[1], item) for key, item in said.items()}
    if origin is tuple and isinstance(said, list | tuple):
        kinds = parts[:1] * len(said) if parts[-1] is ... else parts
        if len(kinds) == len(said):
            return tuple(map(_value, kinds, said))
    if origin is SecretData and isinstance(said, str):
        return SecretData(bytes.fromhex(said))
    if origin is SecretText and isinstance(said, str):
        return SecretText(said)
    if origin is Path and isinstance(said, str | Path):
        return Path(said)
    if origin is float and type(said) is int:
        return float(said)
    if said in parts if origin is Literal else type(said) is origin:
        return said
    raise ValueError(f"expected {kind.__name__ if isinstance(kind, type) else kind}")
