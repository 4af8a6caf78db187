"""Which image a task runs in: the language that it names, else what its files show, else what its words say,
else base. Pure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from chorus.wire.languages import BASE, canonical

_MANIFESTS = {
    "pyproject.toml": "python", "setup.py": "python", "setup.cfg": "python", "requirements.txt": "python",
    "tox.ini": "python", "pytest.ini": "python", "pipfile": "python",
    "package.json": "node", "tsconfig.json": "node",
    "cargo.toml": "rust",
    "go.mod": "go",
    "pom.xml": "java", "build.gradle": "java", "build.gradle.kts": "java",
    "cmakelists.txt": "cpp", "meson.build": "cpp", "configure.ac": "cpp",
}  # fmt: skip
_EXTENSIONS = {
    ".py": "python",
    ".js": "node", ".mjs": "node", ".ts": "node", ".tsx": "node",
    ".rs": "rust",
    ".go": "go",
    ".java": "java", ".kt": "java",
    ".c": "cpp", ".cc": "cpp", ".cpp": "cpp", ".cxx": "cpp", ".h": "cpp", ".hpp": "cpp",
}  # fmt: skip
# Words that also mean other things in prose ("go", "c", "node") need a neighbour to count.
_WORDS = re.compile(
    r"\b(python3?|pytest|pip|node\.?js|npm|javascript|typescript|rust|cargo"
    r"|golang|go (?:program|module|code|test)|java|maven|gradle|kotlin|cpp|cmake)\b|(c\+\+)",
    re.IGNORECASE,
)
# Words that name a language's tools; others are its names.
_TOOLS = {
    "pytest": "python",
    "pip": "python",
    "npm": "node",
    "cargo": "rust",
    "maven": "java",
    "gradle": "java",
    "cmake": "cpp",
}


@dataclass(frozen=True, slots=True)
class ImageChoice:
    """The image, the language it is for, and why, in words. `next` is taken when the image cannot be had: a
    guess has one, a language that the task names has none.
    """

    image: str
    language: str
    why: str
    next: ImageChoice | None = None


class ImageRefused(Exception):
    """No image of the table is for this task."""


def choose(language: str, files: Iterable[str], words: str, table: Mapping[str, str]) -> ImageChoice:
    """The image for a task by the language that it names; else for the most likely language, with the others
    that the source or the words suggest after it, and base as the last.

    `table` has the image of each language by its canonical name. Raises ImageRefused.
    """
    if language.strip():
        known = canonical(language)
        if known not in table:
            raise ImageRefused(f"no sandbox image for language {language!r}")
        return ImageChoice(table[known], known, f"the task names {language}")
    names = list(files)
    guesses: dict[str, str] = {}
    for guess, why in (*_by_manifests(names), *_by_endings(names), *_by_words(words)):
        if guess in table:
            guesses.setdefault(guess, why)
    if BASE in table:
        guesses.setdefault(BASE, "nothing else is suggested" if guesses else "nothing names a language")
    choice: ImageChoice | None = None
    for guess, why in reversed(guesses.items()):
        choice = ImageChoice(table[guess], guess, why, choice)
    if choice is None:
        raise ImageRefused("no base image is configured")
    return choice


def instead(choice: ImageChoice, reason: str) -> ImageChoice | None:
    """What is taken for an image that cannot be had for a reason; None when nothing is."""
    following = choice.next
    return following and replace(following, why=f"{choice.why}, but {reason}; {following.why}")


def allowed(image: str, table: Mapping[str, str], allow: Iterable[str]) -> bool:
    """Only images of the table and of the allow list may run."""
    return image in table.values() or image in set(allow)


def _by_manifests(names: list[str]) -> Iterator[tuple[str, str]]:
    # A manifest near the root says more than one in a folder of examples.
    for name in sorted(names, key=lambda name: (name.count("/"), name)):
        base = name.rpartition("/")[2]
        if base.lower() in _MANIFESTS and name.count("/") <= 1:
            yield _MANIFESTS[base.lower()], f"the source has {base}"


def _by_endings(names: list[str]) -> Iterator[tuple[str, str]]:
    counts = Counter(
        language for name in names if (language := _EXTENSIONS.get(PurePosixPath(name).suffix.lower()))
    )
    for language, number in counts.most_common():
        yield language, f"{number} source files are {language}"


def _by_words(words: str) -> Iterator[tuple[str, str]]:
    for match in _WORDS.finditer(words):
        word = match[0].lower()
        for ending in (" program", " module", " code", " test"):
            word = word.removesuffix(ending)
        yield _TOOLS.get(word) or canonical(word), f"its text mentions {match[0]}"
