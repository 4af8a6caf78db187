"""Which image a task runs in: the language named, else what the source shows, else what its words say,
else base.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
    """The image, the language it is for, and why, in words; `guessed` when the task does not name it."""

    image: str
    language: str
    why: str
    guessed: bool = False


class ImageRefused(Exception):
    """No image of the table is for this task."""


def choose(language: str, files: Iterable[str], words: str, table: Mapping[str, str]) -> ImageChoice:
    """Four tiers; a language that only the source or the words suggest falls back to base when it has no
    image.

    `table` has the image of each language by its canonical name. Raises ImageRefused.
    """
    if language.strip():
        known = canonical(language)
        if known not in table:
            raise ImageRefused(f"no sandbox image for language {language!r}")
        return ImageChoice(table[known], known, f"the task names {language}")
    for found in (_by_files(list(files)), _by_words(words)):
        if found and found[0] in table:
            return ImageChoice(table[found[0]], *found, guessed=True)
    if BASE not in table:
        raise ImageRefused("no base image is configured")
    return ImageChoice(table[BASE], BASE, "nothing names a language")


def base_instead(choice: ImageChoice, table: Mapping[str, str], reason: str) -> ImageChoice | None:
    """The base image for a language that was only guessed and whose image cannot be had; else None."""
    if not choice.guessed or BASE not in table:
        return None
    return ImageChoice(table[BASE], BASE, f"{choice.why}, but {reason}")


def allowed(image: str, table: Mapping[str, str], allow: Iterable[str]) -> bool:
    """Only images of the table and of the allow list may run."""
    return image in table.values() or image in set(allow)


def _by_files(names: list[str]) -> tuple[str, str] | None:
    # A manifest near the root says more than one in a folder of examples.
    for name in sorted(names, key=lambda name: (len(PurePosixPath(name).parts), name)):
        base = PurePosixPath(name).name.lower()
        if base in _MANIFESTS and len(PurePosixPath(name).parts) <= 2:
            return _MANIFESTS[base], f"the source has {PurePosixPath(name).name}"
    counts = Counter(
        language for name in names if (language := _EXTENSIONS.get(PurePosixPath(name).suffix.lower()))
    )
    if not counts:
        return None
    language, number = counts.most_common(1)[0]
    return language, f"{number} source files are {language}"


def _by_words(words: str) -> tuple[str, str] | None:
    match = _WORDS.search(words)
    if match is None:
        return None
    word = match.group(0).lower().removesuffix(" program").removesuffix(" module")
    word = word.removesuffix(" code").removesuffix(" test")
    return _TOOLS.get(word) or canonical(word), f"its text mentions {match.group(0)}"
