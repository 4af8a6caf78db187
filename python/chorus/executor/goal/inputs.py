"""What a goal begins with: its source as it was sent, what the source's project file says, and the changes of
an earlier run that it continues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chorus.archives.errors import ArchiveRefused
from chorus.executor.globs import Globs
from chorus.executor.goal.earlier_run import EarlierRun, EarlierRuns
from chorus.executor.goal.trees import pack_changed
from chorus.executor.patch import PatchRefused, Tree, apply_patch, tree_of_tar
from chorus.executor.project import ProjectInvalid, merge, project_of
from chorus.executor.workspace import Sources
from chorus.wire.task import TaskSubmission

_BEGUN_FILE: Final = "begun.tar"


@dataclass(slots=True)
class Begun:
    """A goal's inputs: `sent` is the source as it was sent, `begun` with the earlier run's changes.

    `archive` is the tar of `sent`, None where there is no source; `taken` names what the project file gave.
    """

    task: TaskSubmission
    sent: Tree
    begun: Tree
    archive: Path | None
    taken: list[str]
    earlier: EarlierRun | None = None


@dataclass(slots=True)
class GoalInputs:
    """Prepares the inputs once, before the sandbox is chosen, and has them put into it later."""

    task: TaskSubmission
    sources: Sources
    scratch: Path
    runs: EarlierRuns
    begun: Begun | None = None
    # What of the task cannot be used, and why; said when its source is to be put into the sandbox.
    refused: str = ""
    _archive: Path | None = field(default=None)

    async def read(self, holders: Iterable[str], bytes_max: int) -> TaskSubmission:
        """Fetches and reads everything; returns the task with what the project file gives.

        Raises HubError, OSError.
        """
        try:
            archive = await self.sources.prepare(self.task, holders, bytes_max)
            sent: Tree = {} if archive is None else await tree_of_tar(archive)
            project = await asyncio.to_thread(project_of, sent)
            task, taken = merge(self.task, project)
            begun, earlier = sent, None
            self._archive = archive
            if task.continues is not None:
                earlier = await self.runs.find(task.continues)
                begun = await asyncio.to_thread(apply_patch, sent, earlier.patch)
                self._archive = self.scratch / _BEGUN_FILE
                await asyncio.to_thread(self.scratch.mkdir, parents=True, exist_ok=True)
                await asyncio.to_thread(pack_changed, archive, sent, begun, self._archive)
        except (ArchiveRefused, ProjectInvalid) as error:
            self.refused = str(error)
            return self.task
        except PatchRefused as error:
            self.refused = f"the patch of task {self.task.continues} is not for this source: {error}"
            return self.task
        if too_many := Globs(task.protected).refused:
            # Such a pattern fits nothing: the checks would run without what it is to protect.
            self.refused = (
                f"protected: the braces of {too_many[0]!r} stand for too many patterns; write plainer ones"
            )
            return self.task
        self.begun = Begun(task, sent, begun, archive, taken, earlier)
        return task

    async def prepare(self, task: TaskSubmission, holders: Iterable[str], bytes_max: int) -> Path | None:
        """The archive that the work begins with, as `Sources.prepare`. Raises ArchiveRefused."""
        if self.refused:
            raise ArchiveRefused(self.refused)
        return self._archive

    async def stdin(self, task: TaskSubmission, holders: Iterable[str]) -> Path | None:
        """As `Sources.stdin`."""
        return await self.sources.stdin(task, holders)
