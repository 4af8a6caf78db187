"""Makes a large task fit an entry: inline files and stdin above the limit become blobs.

Storing them is left to others.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass

from chorus.wire.source import INLINE_MAX_BYTES, Source
from chorus.wire.task import STDIN_MAX_BYTES, TaskSubmission


@dataclass(frozen=True, slots=True)
class Offloaded:
    """A task that fits an entry, and the blobs that have to be stored before it is submitted."""

    task: TaskSubmission
    blobs: tuple[bytes, ...]


def offload(task: TaskSubmission) -> Offloaded:
    """The task with its large parts replaced by their hashes. The same files always give the same blob."""
    blobs = []
    changes: dict[str, object] = {}
    source = task.source
    if source is not None and source.kind == "inline" and source.size > INLINE_MAX_BYTES:
        blobs.append(archive_of(source.files))
        changes["source"] = Source(kind="blob", sha256=hashlib.sha256(blobs[-1]).hexdigest())
    if len(task.stdin.encode()) > STDIN_MAX_BYTES:
        blobs.append(task.stdin.encode())
        changes["stdin"] = ""
        changes["stdin_sha256"] = hashlib.sha256(blobs[-1]).hexdigest()
    return Offloaded(task.model_copy(update=changes) if changes else task, tuple(blobs))


def source_sha256(source: Source | None) -> str:
    """The hash of a task's files, the same whether they travel inline or as a blob; empty without any."""
    if source is None:
        return ""
    return source.blob or hashlib.sha256(archive_of(source.files)).hexdigest()


def archive_of(files: dict[str, str]) -> bytes:
    """Inline files as a tar; the same files give the same bytes."""
    buffer = io.BytesIO()
    # No times and owners: they would make another blob of the same files.
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(files):
            data = files[path].encode()
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            # As for those that stay inline: a script that comes as text could not say that it may be run.
            entry.mode = 0o755 if data.startswith(b"#!") else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
