"""Applies a goal's patch to the folder that was sent with it: all of it, or nothing.

git applies it to a copy of what was sent. What it changed there is then done to the folder, if all that was
sent is still there as it was. Somebody else's patch so never meets the folder's own repository.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final

from chorus.archives.errors import ArchiveRefused
from chorus.archives.paths import PathRules
from chorus.ctl import trees
from chorus.ctl.problems import CtlError
from chorus.ctl.replace import Replaced, replace
from chorus.ctl.trees import Entries
from chorus.wire.visible import visible

GIT_TIMEOUT_S: Final = 120
# What git may take for a patch that swells: memory, and the largest file.
_LIMITS: Final = (
    (resource.RLIMIT_AS, 4 * 1024**3),
    (resource.RLIMIT_FSIZE, 1024**3),
    (resource.RLIMIT_CORE, 0),
)
NAMES_MAX: Final = 5
# The folder's own attributes would have git change line ends or run filters.
_NO_ATTRIBUTES: Final = "* -text -eol -filter -ident -working-tree-encoding -whitespace\n"


class PatchRefused(CtlError):
    """The folder is as it was. The message says why, and what to do."""


def apply_patch(patch: bytes, archive: IO[bytes], root: Path) -> list[str]:
    """Changes the folder `root`, which was packed into `archive`; returns the paths that were changed.

    Raises PatchRefused when git is not there or does not take the patch, when something that was sent is
    not as it was, when something is in the way, and when the folder cannot be written.
    """
    try:
        before = trees.packed(archive)
        with tempfile.TemporaryDirectory(prefix="chorusctl-") as made:
            after_root = Path(made) / "tree"
            after_root.mkdir()
            trees.unpack(archive, after_root)
            _git_apply(patch, Path(made), after_root)
            after = trees.below(after_root)
            changed = sorted(path for path in before.keys() | after if before.get(path) != after.get(path))
            _check_names(changed)
            _check_links(changed, after)
            _check_unchanged(before, root)
            _check_room(changed, before, root)
            replace([Replaced(path, before.get(path), after.get(path)) for path in changed], after_root, root)
    except OSError as error:
        where = f"{visible(os.fsdecode(error.filename))}: " if error.filename else ""
        raise PatchRefused(f"nothing was changed: {where}{error.strerror}") from None
    return changed


def _git_apply(patch: bytes, aside: Path, tree: Path) -> None:
    """Has git apply the patch to the copy, in a repository of its own without anybody's settings."""
    if shutil.which("git") is None:
        raise PatchRefused("git is not installed, and --apply needs it: apt-get install git, or the like")
    given = aside / "patch.diff"
    given.write_bytes(patch)
    repository = aside / "git"
    _git(["init", "--quiet", "--bare", "--template=", str(repository)], aside)
    (repository / "info").mkdir()
    (repository / "info" / "attributes").write_text(_NO_ATTRIBUTES)
    apply = ["--git-dir", str(repository), "--work-tree", str(tree), "-c", "core.fileMode=true"]
    apply += ["-c", "core.symlinks=true", "-c", "core.autocrlf=false", "apply", "--whitespace=nowarn"]
    for checks_only in (["--check"], []):
        _git([*apply, *checks_only, str(given)], tree)


def _git(words: list[str], folder: Path) -> None:
    environ = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": os.devnull}
    environ |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    nothing, said_here = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(
        ["git", *words], cwd=folder, env=environ, stdin=nothing, stdout=nothing, stderr=said_here
    ) as git:
        try:
            for limit, most in _LIMITS:
                # It may have ended already.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    resource.prlimit(git.pid, limit, (most, most))
            _, said = git.communicate(timeout=GIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise PatchRefused(f"nothing was changed: git took more than {GIT_TIMEOUT_S} s") from None
        finally:
            git.kill()
    if git.returncode:
        lines = said.decode("utf-8", "replace").strip().splitlines()[:NAMES_MAX]
        why = visible("; ".join(lines)) or f"git ended with {git.returncode}"
        raise PatchRefused(f"nothing was changed, the patch does not fit what was sent: {why}")


def _check_names(changed: Iterable[str]) -> None:
    """Refuses what would change a repository, whose files can run commands. git refuses it too."""
    wrong = [path for path in changed if any(part.lower() == ".git" for part in path.split("/"))]
    if wrong:
        raise PatchRefused(f"nothing was changed: the patch reaches into a repository ({_named(wrong)})")


def _check_links(changed: Iterable[str], after: Entries) -> None:
    """Refuses links that lead out of the folder: what is written through them later would lie elsewhere."""
    wrong, rules, made = [], PathRules(), set(changed)
    for path, entry in after.items():
        if entry.kind == "link":
            try:
                rules.link(path, entry.content)
                leads_out = entry.content.startswith("/")
            except ArchiveRefused:
                leads_out = True
            wrong += [path] * (leads_out and path in made)
    if wrong:
        raise PatchRefused(f"nothing was changed: the patch makes links out of the folder ({_named(wrong)})")


def _check_unchanged(before: Entries, root: Path) -> None:
    changed = [path for path, entry in before.items() if trees.at(root, path) != entry]
    if changed:
        raise PatchRefused(
            f"nothing was changed: {_named(changed)} changed since the folder was sent, and the checks "
            "passed on the files as they were"
        )


def _check_room(changed: Iterable[str], before: Entries, root: Path) -> None:
    """Refuses what would lie where something is that was not sent, or beyond a link."""
    taken = []
    for path in changed:
        if path in before:
            continue
        place = root
        *parents, name = path.split("/")
        inside = ""
        for parent in parents:
            place, inside = place / parent, f"{inside}{parent}"
            if inside not in before and os.path.lexists(place) and (place.is_symlink() or not place.is_dir()):
                taken.append(inside)
            inside += "/"
        # A folder that the patch empties makes room; any other is in the way.
        place = place / name
        if os.path.lexists(place) and not any(each.startswith(f"{path}/") for each in before):
            taken.append(path)
    if taken:
        raise PatchRefused(
            f"nothing was changed: {_named(sorted(set(taken)))} would be written, and something that was "
            "not sent is there; move it away"
        )


def _named(paths: list[str]) -> str:
    more = f" and {len(paths) - NAMES_MAX} more" if len(paths) > NAMES_MAX else ""
    # Names that are not UTF-8 are shown by their bytes.
    shown = (os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths[:NAMES_MAX])
    return f"{', '.join(visible(path) for path in shown)}{more}"
