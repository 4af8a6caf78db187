"""Keeps secrets out of the mesh's log: every entry that this agent proposes passes here first.

Which field is free text, which is a name and which passes as it is stands in `chorus.coordinator.treatment`;
what a secret is, the sentinel says. Entries that other agents made are theirs to clean.
"""

from __future__ import annotations

import re
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, Final, assert_never

from chorus.coordinator.treatment import ENTRIES, TASK, Leaf, Named, Text, Treatment
from chorus.hub import HubInvalid
from chorus.process.logs import Logger
from chorus.process.sentinel import record
from chorus.wire.secrets import SEALED_PREFIX

if TYPE_CHECKING:
    from chorus.core import Finding, Scanner

_LOOKS: Final = "holds what looks like a secret"
# A redaction can make a text that is found anew; the built-in rules never do so twice.
_ROUNDS_MAX: Final = 4
# Words at the end of a command that are tried together with words at the beginning of the next one, and how
# much of a word: the tokens that people cut in two are short, and a task must not cost seconds.
_WORDS_MAX: Final = 8
_WORD_CHARS_MAX: Final = 256
_BETWEEN_WORDS: Final = re.compile(r"[\s'\"=;|&()<>`$]+")


class Redaction:
    """Cleans entries with this agent's rules."""

    def __init__(self, scanner: Scanner, log: Logger) -> None:
        self._scanner, self._log = scanner, log

    def entry(self, type: str, body: dict[str, Any]) -> dict[str, Any]:
        """The body as it may be proposed.

        Raises HubInvalid naming the field whose name holds a secret, and for types that no process proposes.
        """
        treatment = ENTRIES.get(type)
        if treatment is None:
            raise HubInvalid(f"entries of type {type!r} are not proposed by an agent's processes")
        cleaned: dict[str, Any] = self._clean(body, treatment, "")
        return cleaned

    def task(self, body: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """A task as it may be stored, and what its submitter should know.

        Variables that hold a secret are among its `secrets` then, not yet sealed.
        Raises HubInvalid naming the field whose name holds a secret.
        """
        for field in ("env", "secrets"):
            for name in body[field]:
                self._check_name(name, field)
        env, moved, notices = {}, {}, []
        for name, value in body["env"].items():
            rule = self._rule_in_variable(name, value)
            if rule is None:
                env[name] = value
                continue
            moved[name] = value
            notices.append(f"env.{name}: {_LOOKS} (rule {rule}); it was sealed and moved to secrets")
        cleaned: dict[str, Any] = self._clean({**body, "env": env, "secrets": {}}, TASK, "")
        cleaned["secrets"] = {**body["secrets"], **moved}
        return cleaned, [*notices, *self._look_at_inputs(cleaned)]

    def text(self, text: str) -> str:
        """Free text without secrets."""
        for _ in range(_ROUNDS_MAX):
            data = text.encode("utf-8", "replace")
            found = self._scanner.scan(data)
            if not found:
                break
            self._record(found)
            text = self._scanner.redact(data).decode("utf-8", "replace")
        return text

    def _clean(self, value: Any, treatment: Treatment, field: str) -> Any:
        match treatment:
            case Text():
                return self._clean_text(value, treatment)
            case Leaf.OPAQUE | Leaf.WHOLE:
                return value
            case Leaf.NAME:
                self._check_name(value, field)
                return value
            case Leaf.VARIABLE:
                name = field.rpartition(".")[2]
                if (rule := self._rule_in_variable(name, str(value))) is not None:
                    raise HubInvalid(f"{field}: {_LOOKS} (rule {rule}); give it in secrets")
                return value
            case Leaf.SEALED:
                if not str(value).startswith(SEALED_PREFIX):
                    raise HubInvalid(f"{field}: is not sealed")
                return value
            case Named():
                if not isinstance(value, dict):
                    return self._clean_text(value, Text())
                for name in value:
                    self._check_name(name, field)
                inner = treatment.values
                return {name: self._clean(item, inner, f"{field}.{name}") for name, item in value.items()}
            case list():
                if not isinstance(value, list | tuple):
                    return self._clean_text(value, Text())
                each = treatment[0]
                return [self._clean(item, each, f"{field}.{place}") for place, item in enumerate(value)]
            case dict():
                if not isinstance(value, dict):
                    return self._clean_text(value, Text())
                return {
                    name: self._clean(item, treatment.get(name, Text()), f"{field}.{name}" if field else name)
                    for name, item in value.items()
                }
            case _:
                assert_never(treatment)

    def _clean_text(self, value: Any, treatment: Text) -> Any:
        """A text, or whatever stands where one is expected: all texts and names in it."""
        if isinstance(value, dict):
            return {self.text(str(name)): self._clean_text(item, Text()) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean_text(item, Text()) for item in value]
        if not isinstance(value, str):
            return value
        text = self.text(value)
        if text == value:
            return value
        if treatment.bytes_max is not None:
            text = text.encode()[: treatment.bytes_max].decode("utf-8", "ignore")
        return text[: treatment.chars_max]

    def _check_name(self, value: Any, field: str) -> None:
        if not isinstance(value, str):
            return
        found = self._scanner.scan(value.encode("utf-8", "replace"))
        if found:
            self._record(found)
            rule = found[0].rule
            raise HubInvalid(
                f"{field}: {_LOOKS} (rule {rule}); every agent keeps it in clear: choose another"
            )

    def _rule_in_variable(self, name: str, value: str) -> str | None:
        """The rule that finds a secret in a variable's value; its name counts, but does not itself."""
        before = f"{name}=".encode("utf-8", "replace")
        found = [
            finding
            for finding in self._scanner.scan(before + value.encode("utf-8", "replace"))
            if finding.end > len(before)
        ]
        self._record(found)
        return found[0].rule if found else None

    def _look_at_inputs(self, task: dict[str, Any]) -> list[str]:
        """What is said of secrets in what a task needs to run, which stays whole."""
        source = task.get("source") or {}
        scripts = {name: task.get(name) or () for name in ("commands", "setup", "checks")}
        inputs = {
            f"{name}.{number}": text
            for name, commands in scripts.items()
            for number, text in enumerate(commands)
        }
        inputs |= {f"source.files.{path}": text for path, text in source.get("files", {}).items()}
        inputs["stdin"] = task["stdin"]
        notices = []
        for field, text in inputs.items():
            if found := self._scanner.scan(text.encode("utf-8", "replace")):
                self._record(found)
                notices.append(_stays(field, found[0].rule))
        for name, commands in scripts.items():
            for number, (before, after) in enumerate(pairwise(commands)):
                if (rule := self._rule_across(before, after)) is not None:
                    notices.append(_stays(f"{name}.{number} and {name}.{number + 1} together", rule))
        return notices

    def _rule_across(self, before: str, after: str) -> str | None:
        """The rule that finds a secret whose two parts end one command and begin the next."""
        ends = [word[-_WORD_CHARS_MAX:] for word in _BETWEEN_WORDS.split(before) if word][-_WORDS_MAX:]
        begins = [word[:_WORD_CHARS_MAX] for word in _BETWEEN_WORDS.split(after) if word][:_WORDS_MAX]
        for end, begin in product(ends, begins):
            border = len(end.encode("utf-8", "replace"))
            found = self._scanner.scan((end + begin).encode("utf-8", "replace"))
            across = [finding for finding in found if finding.start < border < finding.end]
            if across:
                self._record(across)
                return across[0].rule
        return None

    def _record(self, found: list[Finding]) -> None:
        record(found, "entry", self._log)


def _stays(field: str, rule: str) -> str:
    return f"{field}: {_LOOKS} (rule {rule}); it stays as it is, for every agent to read: give it in secrets"
