"""What it takes to declare a setting, once: its variable's name, form, default, secrecy and help, beside the
field of the model that holds its value. All else that knows of settings reads these declarations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SecretBytes,
    SecretStr,
    SerializationInfo,
)

# The context of a dump that has secrets in the clear: the hand-over to the agent's own processes.
WITH_SECRETS: Final = {"secrets": True}


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


class Group(BaseModel):
    """Settings that belong together. A field with a `Setting` in its annotation is declared by it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: ClassVar[str] = ""


def declared(group: type[Group]) -> Iterator[tuple[str, Setting]]:
    """The fields of a group that are settings, in their order."""
    for field, info in group.model_fields.items():
        for found in info.metadata:
            if isinstance(found, Setting):
                yield field, found


def _text(value: SecretStr, info: SerializationInfo) -> str:
    return value.get_secret_value() if info.context == WITH_SECRETS else str(value)


def _hex(value: SecretBytes, info: SerializationInfo) -> str:
    return value.get_secret_value().hex() if info.context == WITH_SECRETS else str(value)


def _of_hex(value: Any) -> Any:
    return bytes.fromhex(value) if isinstance(value, str) else value


# Masked in every dump but the hand-over.
SecretText = Annotated[SecretStr, PlainSerializer(_text, when_used="json")]
# Hexadecimal where it is handed over.
SecretData = Annotated[SecretBytes, BeforeValidator(_of_hex), PlainSerializer(_hex, when_used="json")]
