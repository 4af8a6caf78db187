"""Source and workspace of a goal as trees: the workspace fetched, and a source with changes packed."""

from __future__ import annotations

import asyncio
import tarfile
from pathlib import Path
from typing import BinaryIO

from chorus.executor.backend import FileEntry, Sandbox
from chorus.executor.globs import Globs
from chorus.executor.patch import File, Ignored, Tree, tree_of_tar
from chorus.executor.patch.ignoring import built_folder
from chorus.executor.patch.names import why_refused
from chorus.executor.patch.tree import LINK, NOT_FETCHED, folders_of

# The files of a workspace together, on their way to be compared.
WORKSPACE_BYTES_MAX = 1024 * 1024 * 1024


async def workspace_tree(sandbox: Sandbox, before: Tree, scratch: Path) -> tuple[Tree, list[tuple[str, str]]]:
    """The workspace as it is now, and what of it could not be had, with reasons.

    Its contents lie in `scratch` while the tree is used. Raises SandboxError, ArchiveRefused, OSError.
    """
    entries = await sandbox.files()
    tree, wanted, missing = await asyncio.to_thread(_choose, entries, before)
    if wanted:
        await asyncio.to_thread(scratch.mkdir, parents=True, exist_ok=True)
        packed = scratch / "workspace.tar"
        await sandbox.get(wanted, packed, bytes_max=WORKSPACE_BYTES_MAX)
        fetched = await tree_of_tar(packed)
        tree.update(fetched)
        missing += [(path, "it could not be read") for path in wanted if path not in fetched]
    # What could not be read counts as unchanged.
    tree.update({path: before[path] for path, _ in missing if path in before})
    return tree, missing


def _choose(
    entries: list[FileEntry], before: Tree
) -> tuple[dict[str, File], list[str], list[tuple[str, str]]]:
    ignored = Ignored(before)
    had = _folders(before)
    # Whether a folder is a build's is told by the names beside it: by those that the tree will have, as the
    # patch decides by them too.
    names = {entry.path: NOT_FETCHED for entry in entries if _in_tree(entry, before)}
    tree: dict[str, File] = {}
    wanted: list[str] = []
    missing: list[tuple[str, str]] = []
    for entry in entries:
        path = entry.path
        if entry.kind == "directory":
            if not entry.readable and why_refused(path) == "":
                missing.append((path, "a folder that cannot be read"))
        elif path not in before and _no_work(path, names, had, ignored):
            tree[path] = NOT_FETCHED
        elif entry.kind == "link":
            tree[path] = File.of(LINK, entry.target.encode("utf-8", "surrogateescape"))
        elif entry.kind != "file":
            missing.append((path, "neither file, folder nor link"))
        elif not entry.readable:
            missing.append((path, "it cannot be read"))
        else:
            wanted.append(path)
    return tree, wanted, missing


def of_the_work(paths: list[str], before: Tree) -> list[str]:
    """Of files that changed, those that may come into the patch."""
    ignored, had = Ignored(before), _folders(before)
    names = {**before, **dict.fromkeys(paths, NOT_FETCHED)}
    return [path for path in paths if path in before or not _no_work(path, names, had, ignored)]


def _no_work(path: str, names: Tree, had: set[str], ignored: Ignored) -> bool:
    """Whether a new file stays out of the patch: its name, a build's folder or an ignore rule says so."""
    built = built_folder(path, names)
    return bool(why_refused(path) or (built is not None and built not in had) or ignored.covering(path))


def _in_tree(entry: FileEntry, before: Tree) -> bool:
    """Whether the tree of the workspace has it; what cannot be read is there as it was sent."""
    if entry.kind == "directory":
        return False
    return entry.kind == "link" or (entry.kind == "file" and entry.readable) or entry.path in before


def with_protected(before: Tree, after: Tree, globs: tuple[str, ...]) -> Tree:
    """The changed tree with the files that the globs name as they were sent. Raises TooMuchWork."""
    if not globs:
        return after
    patterns = Globs(globs)
    tree = {path: file for path, file in after.items() if not patterns.match(path)}
    for path, file in before.items():
        if patterns.match(path):
            tree[path] = file
            # A file of the change may stand where a protected one needs a folder.
            for folder in folders_of(path):
                tree.pop(folder, None)
    return tree


def pack_changed(source: Path | None, before: Tree, after: Tree, into: Path) -> None:
    """Writes the tar of a source with its changes: folders and times stay as they were sent.

    For a thread. Raises OSError.
    """
    changed = {path: file for path, file in after.items() if before.get(path) != file}
    gone = {path for path in before if path not in after}
    with tarfile.open(into, "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as out:
        # First: the folders of the source may be closed to writing, and are so once they are unpacked.
        for path, file in sorted(changed.items()):
            _add(out, path, file)
        if source is None:
            return
        emptied = _folders(before) - _folders(after)
        with tarfile.open(source, "r:", errors="surrogateescape") as sent:
            for member in sent:
                path = member.name.rstrip("/")
                if path in changed or path in gone or not changed.keys().isdisjoint(folders_of(path)):
                    continue
                # A folder goes with the last file in it; one that was sent empty stays.
                if member.isdir() and path in emptied:
                    continue
                if member.islnk():
                    # What it is another name of may be changed.
                    if path in after:
                        _add(out, path, after[path])
                    continue
                content = sent.extractfile(member) if member.isreg() else None
                out.addfile(member, content)


def _folders(tree: Tree) -> set[str]:
    return {folder for path in tree for folder in folders_of(path)}


class _Content:
    """What tarfile reads a file's bytes from."""

    def __init__(self, file: File) -> None:
        self._pieces = file.pieces()
        self._held = b""

    def read(self, size: int) -> bytes:
        while len(self._held) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._held += piece
        data, self._held = self._held[:size], self._held[size:]
        return data


def _add(out: tarfile.TarFile, path: str, file: File) -> None:
    info = tarfile.TarInfo(path)
    if file.mode == LINK:
        info.type, info.mode = tarfile.SYMTYPE, 0o777
        info.linkname = file.read().decode("utf-8", "surrogateescape")
        out.addfile(info)
        return
    info.size = file.size
    info.mode = 0o755 if file.mode == "100755" else 0o644
    content: BinaryIO = _Content(file)  # type: ignore[assignment]
    out.addfile(info, content)
