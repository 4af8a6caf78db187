"""Packs the folder that goes with a task; says what stays behind, and what looks secret in what is sent."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import IO, BinaryIO, Final, cast

from chorus.ctl.credentials import FINDINGS_MAX, credentials, findings
from chorus.ctl.left_out import in_short
from chorus.ctl.pack import pack
from chorus.ctl.problems import CtlError
from chorus.ctl.terminal import note, say_json
from chorus.ctl.tree import IGNORED, REPOSITORY, walk

# Archives up to this size are packed in memory.
SPOOL_MAX_BYTES: Final = 16 * 1024 * 1024


def spool() -> BinaryIO:
    """A file for what is sent, which goes when it is closed."""
    return cast("BinaryIO", tempfile.SpooledTemporaryFile(SPOOL_MAX_BYTES))


def pack_folder(arguments: Namespace, archive: IO[bytes]) -> None:
    """Packs --dir; says what stays behind, and what looks secret in the files that are sent."""
    tree = walk(Path(arguments.dir))
    secret = [] if arguments.include_secrets else credentials(tree.root, tree.files)
    behind = {each.file for each in secret}
    files = [path for path in tree.files if path not in behind]
    try:
        others = pack(tree.root, [*tree.folders, *files], archive)
    except OSError as error:
        where = f"free space in {tempfile.gettempdir()}, or set TMPDIR"
        raise CtlError(f"--dir: the archive cannot be written: {error.strerror}; {where}") from None
    behind = {each.file for each in others}
    found = findings(tree.root, (path for path in files if path not in behind))
    left_out = [*tree.left_out, *others]
    if arguments.json:
        said = {
            "left_out": [asdict(each) for each in (*secret, *left_out)],
            "findings": [asdict(each) for each in found],
        }
        say_json({"id": None, "event": "packed", "data": said}, flush=True)
        return
    for each in secret:
        note(f"chorusctl: left out {each.file}: {each.why}; --include-secrets sends it")
    if short := in_short([each for each in left_out if each.why != REPOSITORY], frozenset({IGNORED})):
        note(f"chorusctl: left out {short}")
    if tree.unused_ignore_file:
        note(f"chorusctl: {arguments.dir} is in no git repository, so its .gitignore leaves nothing out")
    for one in found[:FINDINGS_MAX]:
        note(f"chorusctl: warning: {one.file}:{one.line} is sent and looks like a secret ({one.rule})")
    if len(found) > FINDINGS_MAX:
        note(f"chorusctl: warning: {len(found) - FINDINGS_MAX} more; chorusctl scan lists them")
