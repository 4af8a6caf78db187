"""The file of an operator's rules and exceptions for SHHH, the sentinel: YAML in, out comes the JSON that the
core reads.

What is wrong with the file's form is said here; what is wrong with a rule, the core says.
"""

from __future__ import annotations

import json
from pathlib import Path

# Thousands of rules fit into this.
RULES_FILE_MAX_BYTES = 1024 * 1024


class RulesError(Exception):
    """What is wrong with a rule file: a sentence per mistake, naming the rule and the field."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read_rules(path: Path) -> str:
    """The JSON form of a rule file; raises `RulesError` with all that is wrong with it."""
    try:
        with path.open("rb") as file:
            content = file.read(RULES_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise RulesError([str(error.strerror)]) from None
    # PyYAML takes 1 MB, and few agents have such a file.
    from chorus.config import plain_yaml

    try:
        document = plain_yaml.load(content, bytes_max=RULES_FILE_MAX_BYTES)
    except plain_yaml.YamlInvalid as invalid:
        raise RulesError([str(invalid)]) from None
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
