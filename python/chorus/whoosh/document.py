"""WHOOSH's document: what an agent is told to be. It is read as a whole, or refused with each wrong field
named. Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Final

from chorus.config.forms import A_NAME
from chorus.config.groups.assignment import Assignment
from chorus.config.setting import Setting, declared

# A fleet that starts together is spread over ten minutes at most.
STAGGER_MAX_MS: Final = 600_000
ADMIN: Final = "admin"
# What a message repeats of a value.
_SHOWN_CHARS: Final = 60


class DocumentRefused(Exception):
    """What is wrong with a document: a sentence per field, with what is expected."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Document:
    """A document that can be used. Fields that it does not name are left to the environment."""

    agent_id: str = ""
    join_stagger_ms: int = 0
    fields: dict[str, Any] = field(default_factory=dict)

    def over(self, environment: Assignment) -> Assignment:
        """The assignment, with the environment's where the document is silent."""
        return replace(environment, **self.fields)


def read_document(content: bytes, *, trusted: bool) -> Document:
    """Reads a document; raises `DocumentRefused` with all that is wrong with it.

    `trusted`: whether nobody on the way could have changed it. Otherwise it gives out no role `admin`.
    """
    try:
        said = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DocumentRefused([f"not JSON: {str(error)[:200]}"]) from None
    if not isinstance(said, dict):
        raise DocumentRefused(["expected a JSON object"])
    settings = dict(declared(Assignment))
    problems: list[str] = []
    fields: dict[str, Any] = {}
    for name, value in said.items():
        try:
            if name in settings:
                fields[name] = _value(name, settings[name], value)
            elif name not in ("agent_id", "join_stagger_ms"):
                known = ", ".join(("agent_id", *settings, "join_stagger_ms"))
                problems.append(f"{str(name)[:_SHOWN_CHARS]!r}: not a field; known are {known}")
        except ValueError:
            problems.append(f"{name}: expected {_expected(name, settings[name])}; it is {_shown(value)}")
    if fields.get("role") == ADMIN and not trusted:
        problems.append(
            "role: admin is not taken over plain http from another machine; use https in ASSIGN_URL"
        )
    agent_id, stagger = said.get("agent_id", ""), said.get("join_stagger_ms", 0)
    try:
        if not isinstance(agent_id, str) or (agent_id and A_NAME.parse(agent_id) != agent_id):
            raise ValueError
    except ValueError:
        problems.append(f"agent_id: expected {A_NAME.words}; it is {_shown(agent_id)}")
    if type(stagger) is not int or not 0 <= stagger <= STAGGER_MAX_MS:
        problems.append(
            f"join_stagger_ms: expected a whole number from 0 to {STAGGER_MAX_MS}; it is {_shown(stagger)}"
        )
    if problems:
        raise DocumentRefused(problems)
    return Document(agent_id, stagger, fields)


def _value(name: str, setting: Setting, value: Any) -> Any:
    """The value of a field, by the form that its variable has. Raises ValueError."""
    if _is_list(name):
        if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
            raise ValueError(value)
        if any("," in item for item in value):
            raise ValueError(value)
        return setting.parse(",".join(value))
    if _is_number(name):
        if type(value) is not int:
            raise ValueError(value)
        return setting.parse(str(value))
    if not isinstance(value, str):
        raise ValueError(value)
    return setting.parse(value) if value else setting.unset


def _is_list(name: str) -> bool:
    return isinstance(getattr(Assignment(), name), tuple)


def _is_number(name: str) -> bool:
    return isinstance(getattr(Assignment(), name), int)


def _expected(name: str, setting: Setting) -> str:
    if _is_list(name):
        return "a list of texts: " + setting.form.removeprefix("comma-separated ").removeprefix(", ")
    return setting.form


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text[:_SHOWN_CHARS] + ("…" if len(text) > _SHOWN_CHARS else "")
