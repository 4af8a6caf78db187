"""After a goal's end: its account, its files, and its patch applied to the folder that was sent."""

from __future__ import annotations

import hashlib
import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

import httpx

from chorus.ctl.apply import PatchRefused, apply_patch
from chorus.ctl.artifacts import after_run
from chorus.ctl.client import Client
from chorus.ctl.display import Display, Json
from chorus.ctl.patch_text import patched_files
from chorus.ctl.problems import FAILED, MESH_FAILED, CtlError
from chorus.ctl.report import goal_of, unchecked
from chorus.ctl.story import Line
from chorus.ctl.terminal import note
from chorus.wire.counts import counted

PATCH: Final = "patch.diff"
# A patch holds at most 16 MiB.
PATCH_MAX_BYTES: Final = 17 * 1024 * 1024
_PIECE_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """A goal that has ended. `task` is it as the API shows it, `source` the archive that was sent with it."""

    client: Client
    arguments: Namespace
    task: dict[str, Any]
    source: BinaryIO | None

    def tell(self, display: Display, code: int) -> int:
        """Shows how the goal ended, saves and applies what is asked for; the exit code, `code` at first."""
        applies = self.arguments.apply or self.arguments.apply_unchecked
        try:
            patch = self._patch()
        except CtlError as error:
            if applies and not code:
                raise
            note(f"chorusctl: {error}")
            patch = None
        display.result(self.task, None if patch is None else patched_files(patch))
        saved = 0
        if self.arguments.artifact or self.arguments.output:
            saved = after_run(self.client, self._task_id, self.arguments)
        if applies:
            if code:
                note("chorusctl: --apply: nothing was changed, as the goal was not reached")
            elif patch is None:
                note("chorusctl: --apply: there is nothing to change")
            else:
                self._apply(patch, display)
        return code or saved

    @property
    def _task_id(self) -> str:
        return str(self.task["task_id"])

    def _apply(self, patch: bytes, display: Display) -> None:
        """Raises CtlError when the folder was not changed, and says where the patch is."""
        assert self.source is not None
        folder = self.arguments.dir
        try:
            if unchecked(goal_of(self.task)) and not self.arguments.apply_unchecked and not self._wanted():
                raise PatchRefused(
                    "nothing was changed, as there were no checks; read the patch and apply it by hand, or "
                    "ask again with --check or --apply-unchecked"
                )
            changed = apply_patch(patch, self.source, Path(folder))
        except PatchRefused as error:
            raise CtlError(f"--apply: {error}; {self._kept(patch)}", FAILED) from None
        if isinstance(display, Json):
            display.told("applied", {"files": changed})
        display.line(Line("good", f"applied to {folder}: {counted(len(changed), 'file')} changed"))

    def _wanted(self) -> bool:
        """Whether a person at the terminal says yes."""
        if self.arguments.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        note("There were no checks: only the model's word says that this is right.")
        note(f"Change {self.arguments.dir}? yes or no:")
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def _kept(self, patch: bytes) -> str:
        """Saves a patch that was not applied in the present folder; says where it is."""
        place = Path(f"{self._task_id}.patch")
        try:
            place.write_bytes(patch)
        except OSError:
            return f"chorusctl artifacts {self._task_id} {PATCH} -o FOLDER saves the patch"
        return f"the patch is in {place}; git apply {place} applies it by hand"

    def _patch(self) -> bytes | None:
        """The patch as the result names it by its hash; None when there is none. Raises CtlError."""
        said = goal_of(self.task).get("patch")
        if not isinstance(said, dict) or not said.get("size"):
            return None
        content = bytearray()
        path = f"/api/v1/tasks/{quote(self._task_id, safe='')}/artifacts/{PATCH}"
        try:
            with self.client.stream(path) as response:
                for piece in response.iter_raw(_PIECE_BYTES):
                    content += piece
                    if len(content) > PATCH_MAX_BYTES:
                        raise CtlError(f"the patch has more than {PATCH_MAX_BYTES} bytes", MESH_FAILED)
        except (httpx.HTTPError, httpx.StreamError) as error:
            why = str(error) or type(error).__name__
            raise CtlError(f"the patch broke off: {why}; chorusctl artifacts saves it", MESH_FAILED) from None
        if hashlib.sha256(content).hexdigest() != said.get("sha256"):
            raise CtlError("the patch arrived damaged; chorusctl artifacts saves it", MESH_FAILED)
        return bytes(content)
