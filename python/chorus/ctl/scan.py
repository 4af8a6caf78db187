"""`chorusctl scan`: looks for secrets in files or in what comes in, with the agents' sentinel and no agent.

It tells the rule, the place and a keyed hash, never the secret.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import stat
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from chorus.config.rules import RulesError, read_rules
from chorus.ctl.problems import USAGE, CtlError
from chorus.ctl.terminal import note, say, say_json, write_bytes

if TYPE_CHECKING:
    from chorus.core import Scanner

SEVERITIES: Final = ("low", "medium", "high", "critical")
# A zero byte this early makes a file binary, as git sees it.
BINARY_LOOK_BYTES: Final = 8000
# UTF-32 with the low byte first begins with the mark of UTF-16.
_WIDE_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
PIECE_BYTES: Final = 1024 * 1024
STDIN: Final = "-"
# Parts of the exit code.
FOUND: Final = 1
UNREAD: Final = 2


@dataclass(frozen=True, slots=True)
class Found:
    """One secret: line and column count from 1, the column in bytes."""

    file: str
    line: int
    column: int
    rule: str
    severity: str
    action: str
    audit: str


def scan(arguments: Namespace) -> int:
    """Scans. The exit code is the sum of FOUND, when something of the severity asked for or above was found,
    and of UNREAD, when something could not be read; what can be is looked at all the same.
    """
    try:
        return _scan(arguments)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CtlError(f"{arguments.path}: {error.strerror}", UNREAD) from None


def _scan(arguments: Namespace) -> int:
    scanner = _scanner(arguments)
    if arguments.redact:
        if arguments.path != STDIN:
            raise CtlError("--redact takes what comes in: chorusctl scan --redact -", USAGE)
        return _redact(scanner, arguments)
    least = SEVERITIES.index(arguments.severity)
    unread: list[str] = []
    too_large: list[str] = []
    worst = -1
    found_all: list[dict[str, Any]] = []
    count = 0
    for name, content in _contents(arguments, unread, too_large):
        count += 1
        for found in _look(scanner, name, content):
            severity = SEVERITIES.index(found.severity)
            if severity < least:
                continue
            worst = max(worst, severity)
            if arguments.json:
                found_all.append(asdict(found))
            else:
                say(
                    f"{found.file}:{found.line}:{found.column}: {found.rule} ({found.severity}) {found.audit}"
                )
    if arguments.json:
        say_json({"findings": found_all, "files": count, "unread": unread + too_large})
    for problem in unread + too_large:
        note(f"chorusctl: {problem}")
    return (FOUND if worst >= 0 else 0) + (UNREAD if unread else 0)


def _scanner(arguments: Namespace) -> Scanner:
    from chorus.core import CoreError, Scanner

    document: dict[str, list[Any]] = {"rules": [], "allow": []}
    for option in ("rules", "allow"):
        path = getattr(arguments, option)
        if path is None:
            continue
        try:
            content = json.loads(read_rules(Path(path)))
        except RulesError as error:
            raise CtlError("\n".join(f"--{option}: {path}: {why}" for why in error.problems), USAGE) from None
        for name, items in content.items():
            document[name] += items or []
    try:
        return Scanner(rules=json.dumps(document))
    except CoreError as error:
        # Each file is right by itself; together, an id may be there twice.
        raise CtlError(str(error), USAGE) from None


def _contents(arguments: Namespace, unread: list[str], too_large: list[str]) -> Iterator[tuple[str, bytes]]:
    """Names and contents. What cannot be read goes into `unread`, files above the limit into `too_large`."""
    if arguments.path == STDIN:
        content = sys.stdin.buffer.read(arguments.max_size + 1)
        if len(content) > arguments.max_size:
            unread.append(
                f"{STDIN}: only its first {arguments.max_size} bytes were looked at; --max-size takes more"
            )
        yield STDIN, content[: arguments.max_size]
        return
    root = Path(arguments.path)
    try:
        os.lstat(root)
    except OSError as error:
        raise CtlError(f"{root}: {error.strerror}", USAGE) from None
    for path in _files(root, arguments.git, unread):
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                head = file.read(BINARY_LOOK_BYTES)
                if is_data(head) and not arguments.binary:
                    continue
                if size > arguments.max_size:
                    too_large.append(
                        f"{path}: left out, it is larger than {arguments.max_size} bytes (--max-size)"
                    )
                    continue
                content = head + file.read(max(0, size - len(head)))
        except OSError as error:
            unread.append(f"{path}: {error.strerror}")
        else:
            yield str(path), content


def is_data(head: bytes) -> bool:
    """Whether a file that begins so is no text. UTF-16 and UTF-32 have zeros too, at equal distances."""
    if b"\0" not in head or head.startswith(_WIDE_MARKS):
        return False
    for width in (2, 4):
        for place in (0, width - 1):
            characters = head[place::width]
            others = len(head) - len(characters)
            zeros = characters.count(0)
            if zeros * 50 <= len(characters) and (head.count(0) - zeros) * 2 >= others:
                return False
    return True


def _files(root: Path, git: bool, unread: list[str]) -> Iterator[Path]:
    """Plain files below `root` in their order; links are not followed, nothing that could block is opened."""
    if not root.is_dir():
        # A link that leads nowhere raises OSError here.
        if stat.S_ISREG(root.stat().st_mode):
            yield root
        else:
            unread.append(f"{root}: not a plain file")
        return

    def failed(error: OSError) -> None:
        unread.append(f"{os.fsdecode(error.filename)}: {error.strerror}")

    for folder, folders, files in os.walk(root, onerror=failed):
        here = Path(folder)
        if not git and here.name == ".git":
            # Configuration and hooks may hold secrets in the clear; objects are packed.
            folders[:] = [name for name in folders if name not in ("objects", "lfs")]
        folders.sort()
        for name in sorted(files):
            path = here / name
            try:
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path
            except OSError as error:
                unread.append(f"{path}: {error.strerror}")


def _look(scanner: Scanner, name: str, content: bytes) -> Iterator[Found]:
    # Rules look at names as text; a name that is no text is shown to them as near to it as can be.
    path = None if name == STDIN else os.path.normpath(name).encode("utf-8", "replace").decode()
    line, place = 1, 0
    for finding in scanner.scan(content, path):
        line += content.count(b"\n", place, finding.start)
        place = finding.start
        column = place - (content.rfind(b"\n", 0, place) + 1) + 1
        yield Found(name, line, column, finding.rule, finding.severity, finding.action, finding.audit)


def _redact(scanner: Scanner, arguments: Namespace) -> int:
    from chorus.core import Redactor

    redactor = Redactor(scanner)
    source = cast("io.BufferedReader", sys.stdin.buffer)
    least = SEVERITIES.index(arguments.severity)
    hit = False
    ended = False
    while not ended:
        # Whatever is there: a pipe that is followed must not wait for a whole piece.
        piece = source.read1(PIECE_BYTES)
        ended = not piece
        write_bytes(redactor.finish() if ended else redactor.push(piece))
        hit = any(SEVERITIES.index(found.severity) >= least for found in redactor.take_findings()) or hit
    return 1 if hit else 0
