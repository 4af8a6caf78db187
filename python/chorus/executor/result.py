"""The result of an attempt as the mesh is told it, made from what the attempt left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from chorus.blobs import BlobSpaceFull
from chorus.decisions import address
from chorus.executor import summary
from chorus.executor.backend import Usage
from chorus.executor.goal.report import NOTHING_DONE
from chorus.executor.images import ImageChoice
from chorus.executor.outbox import Item
from chorus.executor.room import Room
from chorus.executor.runner import Ran
from chorus.executor.summary import Facts
from chorus.executor.workspace import Artifacts
from chorus.table.rows import TaskRow
from chorus.wire.counts import counted
from chorus.wire.ids import new_id
from chorus.wire.offload import source_sha256
from chorus.wire.task import TaskSubmission


class Result:
    """One attempt's. `clean` takes secrets out of a text."""

    def __init__(
        self, room: Room, task: TaskSubmission, row: TaskRow, mesh: str, clean: Callable[[str], str]
    ) -> None:
        self._room = room
        # An address names it: what the attempt began with stays, also when the agent gets another role.
        self._role = room.assignments.current.role
        self._task = task
        self._task_id = row.task_id
        self._attempt = row.attempt
        self._mesh = mesh
        self._clean = clean

    def outcome(self, ran: Ran, pulling_s: float) -> dict[str, Any]:
        """How the attempt ended, without what is large."""
        facts, settings = ran.facts, self._room.settings
        return {
            "task_id": self._task_id,
            "attempt": self._attempt,
            "outcome": summary.outcome(facts),
            "reason": summary.shorten_reason(self._clean(summary.reason(facts))),
            "exit_code": facts.exit_code,
            "ended_by": facts.ended_by,
            "decision": address(
                settings.agent_id, self._role, self._task.project, self._task_id, self._attempt
            ),
            "timings": {"pulling_s": round(pulling_s, 3), "running_s": round(facts.running_s, 3)},
            **({"goal": facts.goal or NOTHING_DONE} if self._task.is_goal else {}),
        }

    async def details(self, ran: Ran, context: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The rest of the result. `context` are the earlier decisions that the attempt was given."""
        facts = ran.facts
        # Cleaned first: of a secret that is cut in two, the half that stays looks like nothing.
        commands = [{**item, "command": self._clean(item["command"])} for item in facts.commands]
        details = {
            "summary": summary.shorten_summary(self._clean(summary.compose(facts))),
            "commands": summary.shorten_commands(commands),
            "usage": _usage_view(ran.usage, facts),
            **await self._list(ran.artifacts),
        }
        if context:
            details["context"] = [item["address"] for item in context]
        return details

    def item(self, body: dict[str, Any], choice: ImageChoice, image_digest: str) -> Item:
        """What goes into the outbox: the result, and the facts for its decision record."""
        record = {
            "task": {"title": self._clean(self._task.title), "project": self._task.project},
            "source_sha256": source_sha256(self._task.source),
            "source_kind": self._task.source.kind if self._task.source else "",
            "image": choice.image,
            "image_digest": image_digest,
            "mesh": self._mesh,
            "role": self._role,
        }
        return Item(self._task_id, self._attempt, "result", new_id(), body, record)

    async def _list(self, found: Artifacts) -> dict[str, Any]:
        """The artifacts as the result names them: in itself, or by a blob that lists them."""
        items = [{key: item[key] for key in ("path", "size", "sha256", "mode")} for item in found.items]
        if summary.fits_entry(items, found.left_out):
            return {"artifacts": items, "left_out": found.left_out}
        try:
            blob = await self._room.blobs.put_bytes(summary.artifact_list(items, found.left_out))
        except (BlobSpaceFull, OSError) as error:
            why = f"the list of {counted(len(items), 'artifact')} could not be kept: {error}"
            self._room.log.error(
                "a list of artifacts is not kept",
                task_id=self._task_id,
                attempt=self._attempt,
                error=str(error),
            )
            return {"artifacts": [], "left_out": [{"path": "", "reason": self._clean(why)}]}
        named = {"sha256": blob.sha256, "size": blob.size, "count": len(items)}
        return {"artifacts": [], "artifacts_blob": named}


def _usage_view(usage: Usage, facts: Facts) -> dict[str, Any]:
    return {
        "cpu_s": round(usage.cpu_s, 3),
        "memory_peak_bytes": usage.memory_peak_bytes,
        "out_of_memory_kills": usage.out_of_memory_kills,
        "process_limit_hits": usage.process_limit_hits,
        "stdout_bytes": facts.output.get("stdout", 0),
        "stderr_bytes": facts.output.get("stderr", 0),
    }
