"""System prompts by role: the package's own, and the operator's on top of them.

A file `*.yaml` holds `roles:`, a mapping from role to an object whose `system_prompt` is the role's text; a
role in a later file, by name, takes the place of one before. The prompt is that text, an empty line, and
`defaults.md`. Files are looked at again for each task; one that cannot be used is named, and what it said
when it last could be counts on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode

PACKAGE_FOLDER: Final = Path(__file__).with_name("prompts")
DEFAULT_ROLE: Final = "developer"
DEFAULTS: Final = "defaults.md"
# A prompt of more leaves a model no room to work in.
FILE_MAX_BYTES: Final = 64 * 1024
FILES_MAX: Final = 200
# A short text with aliases can stand for gigabytes.
_ALIASES: Final = "aliases and anchors are not used here"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is told first, and the SHA-256 of that text."""

    text: str
    sha256: str


class PromptFileInvalid(Exception):
    """A file of prompts that cannot be used, and why."""


class RolePrompts:
    """The prompts of one agent. `problems` names the files that cannot be used now, and why."""

    def __init__(self, folder: Path, package: Path = PACKAGE_FOLDER) -> None:
        self._folder = folder
        self._roles = _roles_of(package)
        self._defaults = (package / DEFAULTS).read_text(encoding="utf-8")
        self._good: dict[Path, Any] = {}
        self.problems: tuple[str, ...] = ()

    def prompt(self, role: str) -> Prompt:
        """The prompt of a role, as the files are now. A role that no file knows is a developer's."""
        text = "\n\n".join(self._looked_up(role)) + "\n"
        return Prompt(text, hashlib.sha256(text.encode()).hexdigest())

    def _looked_up(self, role: str) -> tuple[str, str]:
        """The role's text and that of `defaults.md`."""
        roles, defaults = dict(self._roles), self._defaults
        problems = list[str]()
        for path in self._files(problems):
            said = self._read(path, problems)
            if isinstance(said, dict):
                roles.update(said)
            elif said is not None:
                defaults = said
        self.problems = tuple(problems)
        return roles.get(role, roles[DEFAULT_ROLE]).strip(), defaults.strip()

    def role(self, role: str) -> str:
        """The text of a role alone, without what `defaults.md` says about working on a goal."""
        return self._looked_up(role)[0]

    def _files(self, problems: list[str]) -> list[Path]:
        try:
            found = sorted(path for path in self._folder.iterdir() if _is_ours(path))
        except FileNotFoundError:
            found = []  # most operators have none
        except OSError as error:
            problems.append(f"{self._folder}: {error.strerror}")
            found = sorted(self._good)
        if len(found) > FILES_MAX:
            problems.append(f"{self._folder}: only the first {FILES_MAX} of {len(found)} files are read")
        # A file that is gone counts no more.
        self._good = {path: said for path, said in self._good.items() if path in found}
        return found[:FILES_MAX]

    def _read(self, path: Path, problems: list[str]) -> dict[str, str] | str | None:
        """Roles, or the text of `defaults.md`; what they last were when the file cannot be used now."""
        try:
            text = _text_of(path)
            self._good[path] = text if path.name == DEFAULTS else read_roles(text)
        except PromptFileInvalid as error:
            kept = "; what it said before counts on" if path in self._good else ""
            problems.append(f"{path}: {error}{kept}")
        said: dict[str, str] | str | None = self._good.get(path)
        return said


def read_roles(text: str) -> dict[str, str]:
    """Role to `system_prompt`. Raises PromptFileInvalid."""
    try:
        if any(isinstance(token, yaml.AnchorToken | yaml.AliasToken) for token in yaml.scan(text)):
            raise PromptFileInvalid(_ALIASES)
        said = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise PromptFileInvalid(f"{where}{getattr(error, 'problem', None) or 'no YAML'}") from None
    except (ValueError, RecursionError) as error:
        raise PromptFileInvalid(f"no YAML: {error}") from None
    roles = said.get("roles") if isinstance(said, dict) else None
    if not isinstance(roles, dict):
        raise PromptFileInvalid("roles: expected a mapping from role to its system_prompt")
    prompts: dict[str, str] = {}
    for role, one in roles.items():
        prompt = one.get("system_prompt") if isinstance(one, dict) else None
        if not isinstance(role, str) or not isinstance(prompt, str) or not prompt.strip():
            raise PromptFileInvalid(f"roles.{role}.system_prompt: expected a text")
        prompts[role] = prompt
    return prompts


class _Loader(yaml.SafeLoader):
    """YAML without a key that is given twice: the second would win in silence."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in YAML 1.2."""
        seen = set()
        for key, _ in node.value:
            name = key.value if isinstance(key.value, str) else ""
            if name and name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _roles_of(folder: Path) -> dict[str, str]:
    roles: dict[str, str] = {}
    for path in sorted(folder.glob("*.yaml")):
        roles.update(read_roles(_text_of(path)))
    return roles


def _is_ours(path: Path) -> bool:
    return path.name == DEFAULTS or (path.suffix == ".yaml" and not path.name.startswith("."))


def _text_of(path: Path) -> str:
    """Raises PromptFileInvalid."""
    try:
        if not path.is_file():
            raise PromptFileInvalid("not a file")
        with path.open("rb") as file:
            content = file.read(FILE_MAX_BYTES + 1)
        if len(content) > FILE_MAX_BYTES:
            raise PromptFileInvalid(f"larger than {FILE_MAX_BYTES} bytes")
        return content.decode()
    except OSError as error:
        raise PromptFileInvalid(error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise PromptFileInvalid("not UTF-8 text") from None
