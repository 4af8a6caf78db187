"""What the sandbox images are made of: lists of Debian's packages, a hook for some, and a last layer.

`recipes/NAME.packages` lists packages, one a line; each image has those of `base` as well. Where there is a
`recipes/NAME.hook`, a shell runs it in the root file system. `recipes/Dockerfile` is the last layer of all.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chorus.config.groups.sandbox import DEFAULT_IMAGES
from chorus.ctl.problems import USAGE, CtlError
from chorus.wire.languages import canonical

FOLDER: Final = Path(__file__).parent / "recipes"
SUITE: Final = "bookworm"
LANGUAGES: Final = tuple(language for language in DEFAULT_IMAGES if canonical(language) == language)
# What a mesh needs at least; the others take minutes and up to 1 GB each.
USUAL: Final = ("base", "python")
ALL: Final = "all"
_HASH_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image: its name, packages and hook, and where the packages come from."""

    name: str
    packages: tuple[str, ...]
    hook: str
    suite: str = SUITE
    # Empty: what mmdebstrap takes by itself.
    mirror: str = ""

    @property
    def image(self) -> str:
        """The name that agents know the image by."""
        return f"anthonyrawlins/chorus-{self.name}:latest"

    @property
    def key(self) -> str:
        """Changes with everything that goes into the image; its label says which one it was built from."""
        packages = ",".join(self.packages)
        content = f"{self.suite}\n{self.mirror}\n{packages}\n{dockerfile()}{self.hook}"
        return hashlib.sha256(content.encode()).hexdigest()[:_HASH_LENGTH]


def dockerfile() -> str:
    """The last layer of each image."""
    return (FOLDER / "Dockerfile").read_text(encoding="utf-8")


def names() -> list[str]:
    """The recipes there are."""
    return sorted(path.stem for path in FOLDER.glob("*.packages"))


def languages(words: list[str]) -> list[str]:
    """The languages that are asked for, each once under its one name; the usual ones where none is.

    Names of recipes do as well (`python-dev`). Raises CtlError for what has no image.
    """
    if ALL in words:
        return list(LANGUAGES)
    found: dict[str, None] = {}
    for word in words or USUAL:
        language = canonical(word.removesuffix("-dev"))
        if language not in LANGUAGES:
            known = ", ".join(LANGUAGES)
            raise CtlError(f"there is no image for {word!r}; there are: {known}, and {ALL}", USAGE)
        found[language] = None
    return list(found)


def recipe(language: str, suite: str = SUITE, mirror: str = "") -> Recipe:
    """The recipe of the image of one of the languages here."""
    name = DEFAULT_IMAGES[language].rpartition("/chorus-")[2].partition(":")[0]
    packages = _packages("base") + (_packages(name) if name != "base" else ())
    hook = FOLDER / f"{name}.hook"
    text = hook.read_text(encoding="utf-8").rstrip("\n") if hook.exists() else ""
    return Recipe(name, packages, text, suite, mirror)


def _packages(name: str) -> tuple[str, ...]:
    lines = (FOLDER / f"{name}.packages").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))
