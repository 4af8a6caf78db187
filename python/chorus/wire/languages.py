"""The one name that each programming language has here, whatever people call it. Pure."""

from __future__ import annotations

import re

# The image for everything that needs no language beside the shell.
BASE = "base"

_NAMES = {
    "python": "python", "py": "python", "cpython": "python",
    "node": "node", "nodejs": "node", "node.js": "node", "javascript": "node", "js": "node",
    "ecmascript": "node", "typescript": "node", "ts": "node", "jsx": "node", "tsx": "node",
    "rust": "rust", "rs": "rust", "rustlang": "rust",
    "go": "go", "golang": "go",
    "java": "java", "jvm": "java", "kotlin": "java", "kt": "java",
    "c": "cpp", "c++": "cpp", "cpp": "cpp", "cxx": "cpp", "cc": "cpp",
    "c#": "csharp", "cs": "csharp", "csharp": "csharp", "dotnet": "csharp", ".net": "csharp",
    "ruby": "ruby", "rb": "ruby",
    "php": "php",
    "base": BASE, "bash": BASE, "sh": BASE, "shell": BASE, "zsh": BASE, "dash": BASE, "posix": BASE,
}  # fmt: skip
# What needs an image or an expertise of its own.
LANGUAGES = frozenset(_NAMES.values()) - {BASE}
_VERSION = re.compile(r"[ ._-]?v?[0-9][0-9.x]*$")

_SEPARATORS = re.compile(r"[\s._-]+")


def canonical(name: str) -> str:
    """`Python`, `py` and `python3.12` are `python`; a name that is not known stays, in small letters."""
    word = name.strip().lower()
    for said in (word, _VERSION.sub("", word), _SEPARATORS.sub("", word)):
        if known := _NAMES.get(said):
            return known
    return word
