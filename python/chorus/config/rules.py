"""The file of an operator's rules and exceptions for SHHH, the sentinel: YAML in, out comes the JSON that the
core reads.

What is wrong with the file's form is said here; what is wrong with a rule, the core says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

# Thousands of rules fit into this.
RULES_FILE_MAX_BYTES = 1024 * 1024
# Brackets within brackets; a rule file has four levels.
DEPTH_MAX = 20


class RulesError(Exception):
    """What is wrong with a rule file: a sentence per mistake, naming the rule and the field."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _PlainLoader(yaml.SafeLoader):
    """Plain values only: no aliases, with which a few lines can mean gigabytes, and no name given twice."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise self._refused("aliases are not read")
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._refused("nested too deeply")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def _refused(self, problem: str) -> yaml.MarkedYAMLError:
        reader: Any = self  # the stubs leave out what it is peeking at
        return yaml.MarkedYAMLError(problem=problem, problem_mark=reader.peek_event().start_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = []
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.append(key.value)
        return super().construct_mapping(node, deep)


def read_rules(path: Path) -> str:
    """The JSON form of a rule file; raises `RulesError` with all that is wrong with it."""
    try:
        with path.open("rb") as file:
            content = file.read(RULES_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise RulesError([str(error.strerror)]) from None
    if len(content) > RULES_FILE_MAX_BYTES:
        raise RulesError([f"it is larger than {RULES_FILE_MAX_BYTES} bytes"])
    try:
        document = yaml.load(content.decode("utf-8"), _PlainLoader)
    except UnicodeDecodeError:
        raise RulesError(["it is not text"]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise RulesError([f"{where}not YAML: {error.problem}"]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise RulesError([f"not YAML: {error}"]) from None
    # A date or a number in a text's place is told as such by the core.
    rules = json.dumps({} if document is None else document, default=str)
    if problems := _check(rules):
        raise RulesError(problems)
    return rules


def _check(rules: str) -> list[str]:
    try:
        from chorus._core import Scanner
    except ImportError:
        return []  # without the core nothing starts; it says so itself
    return Scanner.check_rules(rules)
