"""What it takes to declare a setting, once: its variable's name, form, default, secrecy and help, beside the
field that holds its value. All else that knows of settings reads these declarations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, get_args, get_type_hints


@dataclass(frozen=True, slots=True)
class Form:
    """How a value is written, in words, and how it is read."""

    words: str
    # Raises ValueError for a text of another form.
    parse: Callable[[str], Any]
    # The value of a setting that is not set and has no default.
    empty: Any = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable. An empty value counts as unset."""

    name: str
    written: Form
    # As an operator would write it; "" when there is none, or `otherwise` says what counts then.
    default: str = ""
    help: str = ""
    otherwise: str = ""
    # Shown nowhere, given to no process by its environment, and also read from the file that NAME_FILE names.
    secret: bool = False
    # Accepted and checked, but without effect in this version.
    later: bool = False

    @property
    def form(self) -> str:
        """The form that is expected, in words."""
        return self.written.words

    def parse(self, text: str) -> Any:
        """The value that is written so; ValueError when it has not that form."""
        return self.written.parse(text)

    @property
    def unset(self) -> Any:
        """The value where nothing is set."""
        return self.written.parse(self.default) if self.default else self.written.empty

    @property
    def brief(self) -> str:
        """What counts where nothing is set, or the form: in the words of the agent's help."""
        if self.default:
            return f"default {self.default}"
        return self.otherwise or self.form.partition(" such as ")[0]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Settings that belong together. A field with a `Setting` in its annotation is declared by it."""

    title: ClassVar[str] = ""


def declared(group: type[Group]) -> Iterator[tuple[str, Setting]]:
    """The fields of a group that are settings, in their order."""
    for field, hint in get_type_hints(group, include_extras=True).items():
        for found in get_args(hint):
            if isinstance(found, Setting):
                yield field, found
