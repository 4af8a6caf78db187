"""The commands of deploy/README.md and docs/operations.md, each block under the name in its first line."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Final

from .conftest import DEPLOY, ROOT

PAGES: Final = (DEPLOY / "README.md", ROOT / "docs" / "operations.md")
# What the operator alone can run: it is on other machines, or fetches from a registry.
YOURS: Final = "Yours"
_BLOCK: Final = re.compile(r"^ *```bash\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_NAME: Final = re.compile(r"# (.+?)[.:;,\n]")


def blocks() -> dict[str, str]:
    """All of them by name, without those that are the operator's own."""
    named: dict[str, str] = {}
    for name, block in _all():
        if name != YOURS:
            assert name not in named, f"two are called {name!r}"
            named[name] = block
    return named


def _all() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for text in _BLOCK.findall(page.read_text()):
            block = textwrap.dedent(text)
            match = _NAME.match(block)
            assert match, f"{page.name}: the first line of a block of commands is its name: {block}"
            yield match[1], block


def commands(name: str) -> str:
    """One of them."""
    return blocks()[name]
