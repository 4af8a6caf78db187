"""Alerts about goals that depend on each other: raised by the leader, recorded by the goal's agent.

Every agent keeps account of the paths that running goals touched, so that whoever leads next goes on.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from pydantic import ValidationError

from chorus.coordinator import SERVICE
from chorus.coordinator.hmmm.recording import Recording
from chorus.coordinator.hmmm.room import Goal, Room
from chorus.hmmm.dependencies import RAISED_MAX, Alert, Dependencies
from chorus.hub import HubError, HubInvalid, HubRefused, HubTimeout, HubUnavailable, Message, Request
from chorus.table.records import Attempt, Mesh, Task
from chorus.wire.messages import COORDINATION, DependencyAlert, TaskProgress

# An agent that does not answer hears of the alert by gossip.
TELL_TIMEOUT_S: Final = 5.0
SHOWN_PATHS_MAX: Final = 20
TOLD_PATHS_MAX: Final = 5
# Before each try to tell a run of this agent's, whose executor may be cut off for a moment.
TELL_RUN_WAITS_S: Final = (0.0, 1.0, 5.0)
# Whose word it is to the run; its model takes it as another agent's.
LEADER: Final = "the leader of this mesh"


class Alerts:
    """Follows what goals touch."""

    def __init__(self, room: Room, recording: Recording) -> None:
        self._room, self._recording = room, recording
        self._dependencies = Dependencies()

    def resume(self) -> None:
        """What was raised before this life of the process."""
        for ident in self._room.file.ids("alert", RAISED_MAX):
            self._dependencies.raised(ident)

    def hear_progress(self, message: Message) -> None:
        """A goal's agent names the paths that it touched. Raises ValidationError for what is no progress."""
        said = TaskProgress.model_validate(message.data)
        if said.paths:
            self.touched(said, message.sender)

    def touched(self, said: TaskProgress, peer: str) -> None:
        """Paths of a goal; only its own agent's word counts."""
        goal = self._room.goal_of(said.task_id, said.attempt)
        if goal is None or goal.owner != peer:
            return
        paths = [self._room.clean(path) for path in said.paths]
        for ident in self._dependencies.running():
            if self._has_ended(ident):
                self._dependencies.end(ident)
        raised = self._dependencies.touch(goal.task_id, goal.project, paths)
        if not self._leads():
            # Who leads says so; if it falls before it does, whoever leads next has not raised it either.
            for alert in raised:
                self._dependencies.forget(alert.id)
            return
        for alert in raised:
            self._raise(goal, alert)

    def _leads(self) -> bool:
        mesh = self._room.table.get(Mesh, "mesh")
        return mesh is not None and mesh.leader == self._room.hub.peer_id

    def _has_ended(self, task_id: str) -> bool:
        task = self._room.table.get(Task, task_id)
        return task is None or task.finished_at is not None

    def _raise(self, goal: Goal, alert: Alert) -> None:
        room = self._room
        said = {
            "alert_id": alert.id,
            "task_id": alert.task_id,
            "depends_on": [alert.other],
            "rule": alert.rule,
            "paths": list(alert.paths[:SHOWN_PATHS_MAX]),
            "other_paths": list(alert.other_paths[:SHOWN_PATHS_MAX]),
            "reason": f"two running goals of {goal.project} touch the same: {alert.rule.replace('_', ' ')}",
        }
        room.process.log.info("two goals depend on each other", task_id=alert.task_id, other=alert.other)
        self._keep(DependencyAlert.model_validate(said))
        room.spawn(self._tell(said))

    async def _tell(self, said: dict[str, Any]) -> None:
        room = self._room
        await room.hub.publish(COORDINATION, "dependency_alert", said)
        for task_id in (said["task_id"], *said["depends_on"]):
            task = room.table.get(Task, task_id)
            if task is None or task.agent in (None, room.hub.peer_id):
                continue
            try:
                # Whom it concerns is asked to take it: gossip may be missed.
                await room.hub.request(str(task.agent), SERVICE, "hmmm.alert", said, timeout=TELL_TIMEOUT_S)
            except HubError as error:
                room.process.log.info("an agent did not take an alert", task_id=task_id, error=str(error))

    # What the leader says

    def hear_alert(self, message: Message) -> None:
        """An alert heard by gossip. Raises ValidationError for what is none."""
        if self._is_leader(message.sender):
            self._keep(DependencyAlert.model_validate(message.data))

    async def take(self, request: Request) -> dict[str, Any]:
        """`hmmm.alert` {…as `dependency_alert`}: the leader tells whom an alert concerns."""
        if request.peer is not None and not self._is_leader(request.peer):
            raise HubRefused("only the mesh's leader raises alerts")
        try:
            self._keep(DependencyAlert.model_validate(request.head))
        except ValidationError as error:
            raise HubInvalid(str(error.errors(include_url=False)[0]["msg"])) from None
        return {}

    def _is_leader(self, peer: str) -> bool:
        mesh = self._room.table.get(Mesh, "mesh")
        return mesh is not None and mesh.leader == peer

    def _keep(self, said: DependencyAlert) -> None:
        room = self._room
        self._dependencies.raised(said.alert_id)
        data = said.model_dump(mode="json")
        data["reason"] = room.clean(said.reason)
        for task_id in (said.task_id, *said.depends_on):
            task = room.table.get(Task, task_id)
            attempt = room.table.get(Attempt, task_id, task.attempt) if task is not None else None
            goal = room.goal_of(task_id, attempt.attempt) if attempt is not None else None
            if goal is None:
                continue
            row = room.ensure(goal)
            item = room.file.add(row.session_id, "alert", said.alert_id, data, room.now_ms())
            if goal.owner == room.hub.peer_id:
                room.spawn(self._tell_run(goal, said.alert_id, room.clean(_words(said, task_id))))
            if goal.owner == room.hub.peer_id and task_id == said.task_id:
                # Also when it was kept and the process ended before this.
                self._recording.note(
                    row,
                    said.alert_id,
                    outcome="alerted",
                    reason=data["reason"],
                    summary=f"{said.rule}: this goal touches {', '.join(said.paths[:5])}; task"
                    f" {said.depends_on[0]} touches {', '.join(said.other_paths[:5])}",
                    participants=[goal.owner],
                )
            if item is not None:
                room.tell(row.session_id)

    async def _tell_run(self, goal: Goal, ident: str, text: str) -> None:
        """Tells a run of this agent's; its executor takes the words of one id once."""
        head = {"task_id": goal.task_id, "attempt": goal.attempt, "id": f"alert-{ident}", "from": "peer"}
        said = {**head, "name": LEADER, "text": text}
        why = ""
        for wait_s in TELL_RUN_WAITS_S:
            await asyncio.sleep(wait_s)
            try:
                await self._room.hub.call_service("executor", "message", said, timeout=TELL_TIMEOUT_S)
            except (HubUnavailable, HubTimeout) as error:
                why = str(error)
            except HubError as error:
                why = str(error)  # it has ended, or hears no more
                break
            else:
                return
        self._room.process.log.info("a run did not take an alert", task_id=goal.task_id, error=why)


def _words(said: DependencyAlert, task_id: str) -> str:
    """An alert as one of its two runs is told it."""
    (other,), own, others = said.depends_on, said.paths, said.other_paths
    if task_id != said.task_id:
        other, own, others = said.task_id, said.other_paths, said.paths
    return (
        f"Another goal of this project runs, task {other}, and touches the same kind of thing as this one: "
        f"{said.rule.replace('_', ' ')}. It touches {', '.join(others[:TOLD_PATHS_MAX])}; this one touches "
        f"{', '.join(own[:TOLD_PATHS_MAX])}. The changes of both will have to fit together."
    )
