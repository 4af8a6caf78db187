"""Writes the licence texts of the crates that are compiled into the wheel, each text once with its crates.

`python3 scripts/notices.py FILE`; most of these licences ask for their text in every copy.
"""

from __future__ import annotations

import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from crates import Crate, linked

NAMES = ("licen", "copying", "notice", "copyright", "unlicense", "authors")
RULE = "=" * 78


def texts(crate: Crate) -> Iterator[str]:
    """The licence files that came with a crate, and with sources in C that it holds as an archive."""
    for path in sorted(crate.folder.iterdir()):
        if path.is_file() and path.name.lower().startswith(NAMES):
            yield _text(path.read_bytes())
        elif path.name.endswith(".tar.gz"):
            yield from _archived(path)


def _archived(path: Path) -> Iterator[str]:
    """The licence files at the top of an archive's one folder."""
    with tarfile.open(path) as archive:
        for member in archive:
            folder, _, name = member.name.partition("/")
            if folder and "/" not in name and name.lower().startswith(NAMES):
                content = archive.extractfile(member)
                if content is not None:
                    yield _text(content.read())


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace").replace("\r\n", "\n").strip()


def main() -> int:
    """Writes the file and returns the exit code."""
    by_text: dict[str, list[str]] = defaultdict(list)
    without: list[str] = []
    for crate in linked():
        if not crate.checksum:
            continue
        found = list(texts(crate))
        for text in found:
            by_text[text].append(crate.id)
        if not found:
            without.append(f"{crate.id}: {crate.licence}, {', '.join(crate.authors) or 'no author named'}")
    lines = ["The wheel holds code of the following crates, under the licences that follow their names."]
    for text, names in sorted(by_text.items(), key=lambda pair: pair[1]):
        lines += [RULE, *names, RULE, text]
    if without:
        lines += [RULE, "These crates come without a licence text; what they say of it is this:", *without]
    Path(sys.argv[1]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
