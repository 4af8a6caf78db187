"""Each wall in docs/security.md names the test that shows it; this keeps the names true."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`((?:tests|rust)/[\w/.]+\.(?:py|rs))(?:::(\w+))?`")


def test_every_named_test_exists_and_every_wall_names_one() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    walls = page[page.index("## Threats and walls") : page.index("## What is not defended")]
    rows = [line for line in walls.splitlines() if line.startswith("| ") and not line.startswith("| threat")]
    assert rows
    for row in rows:
        assert NAMED.search(row), f"no test is named: {row}"
    for path, name in NAMED.findall(page):
        assert (ROOT / path).is_file(), path
        assert not name or re.search(rf"(?:def|fn) {name}\(", (ROOT / path).read_text()), f"{path}::{name}"
