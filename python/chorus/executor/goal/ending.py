"""What a goal's run leaves, whatever ended it: its patch, its transcript, and the report for its result."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Final

from chorus.archives.errors import ArchiveRefused
from chorus.executor.backend import SandboxError
from chorus.executor.driver import Work
from chorus.executor.goal.earlier_run import PATCH_FILE
from chorus.executor.goal.report import goal_report
from chorus.executor.goal.run import End, GoalRun
from chorus.executor.goal.transcript import FILE
from chorus.executor.patch import LeftOut, Patch

_NOTE_CHARS: Final = 4_000


async def leave(work: Work, goal: GoalRun, end: End) -> None:
    """Fills the facts, and writes the files that become artifacts. Raises OSError."""
    facts = work.facts
    patch = goal.patch if end.ended_by == "finished" else None
    note = ""
    if patch is None:
        try:
            patch = await goal.checking.patch(work.sandbox)
        except (SandboxError, ArchiveRefused, OSError) as error:
            # What was found at the last `finish` is better than nothing.
            note = f"the files could not be compared at the end: {error}"
            patch = goal.patch or Patch(b"", 0, (), complete=True)
            patch = Patch(patch.text, patch.files, (LeftOut("", note), *patch.left_out), patch.complete)
    facts.ended_by = end.ended_by
    facts.note = "; ".join(part for part in (end.reason[:_NOTE_CHARS], note) if part)
    if end.ended_by == "finished":
        facts.note, facts.exit_code = "", 0
    elif goal.checked is not None and goal.checked.commands:
        facts.exit_code = next((one["exit_code"] for one in goal.checked.commands if one["exit_code"]), None)
    goal.tell(goal.transcript.add("end", ended_by=end.ended_by, reason=end.reason))
    patch_file = work.job.folder / PATCH_FILE
    await asyncio.to_thread(_write, patch_file, patch.text)
    await asyncio.to_thread(goal.transcript.sync)
    work.made = [(PATCH_FILE, patch_file), (FILE, goal.transcript.path)]
    facts.goal_summary = goal.tally.summary
    facts.goal = goal_report(
        goal.tally,
        unchecked=end.ended_by == "finished" and goal.checked is None,
        checks=[] if goal.checked is None else goal.checked.checks,
        patch=patch,
        patch_sha256=hashlib.sha256(patch.text).hexdigest(),
        transcript_sha256=await asyncio.to_thread(goal.transcript.sha256),
        discussion=goal.discussion,
    )


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
