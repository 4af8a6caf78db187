"""The commands that deploy/README.md gives for a Swarm, each under the name that its first line has."""

from __future__ import annotations

import re
import textwrap

from .conftest import DEPLOY

# What the operator alone can run: it is on other machines.
YOURS = "Yours: "
_SECTION = re.compile(r"^## On a Swarm$(.*?)^## ", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^ *```bash\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def blocks() -> dict[str, str]:
    """All of them by name."""
    section = _SECTION.search((DEPLOY / "README.md").read_text())
    assert section is not None
    found = [textwrap.dedent(block) for block in _BLOCK.findall(section[1])]
    named = {block.splitlines()[0].removeprefix("# ").removesuffix("."): block for block in found}
    assert len(named) == len(found), "two have the same name"
    return named


def commands(name: str) -> str:
    """One of them."""
    return blocks()[name]
