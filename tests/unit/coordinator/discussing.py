"""Agents that work on goals and talk them over: executors and minds are stand-ins, the rest is real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from agents import DEADLINE_S, Agent, World, world

from chorus.hmmm.ids import session_id
from chorus.hub import Request
from chorus.table.records import Member
from chorus.wire.messages import META_DISCUSSION

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class Mind:
    """Stands in for an agent's `mind`: answers as it is told to, and remembers what it was asked."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.discuss: Answer = lambda head: {}
        self.advise: Answer = lambda head: {}
        self.asked: list[dict[str, Any]] = []

    async def start(self) -> None:
        self.hub = self.agent.mesh.hub(self.agent.name, "mind")
        await self.hub.offer("mind", self.serve)

    async def serve(self, request: Request) -> dict[str, Any]:
        self.asked.append(request.head)
        return self.discuss(request.head) if request.method == "discuss" else self.advise(request.head)


class Talking:
    """A world whose agents have minds, and goals under way."""

    def __init__(self, w: World) -> None:
        self.world = w
        self.minds = {name: Mind(agent) for name, agent in w.agents.items()}

    def __getitem__(self, name: str) -> Agent:
        return self.world[name]

    def mind(self, name: str) -> Mind:
        return self.minds[name]

    async def goal(self, agent: str, **task: Any) -> str:
        """A goal that the agent has claimed, because it alone has the model for it; the goal's id."""
        body = {"title": "mend it", "project": "p", "commands": [], "required_model": agent, **task}
        task_id = str((await self[agent].submit(**body))["task"]["task_id"])
        for other in self.world.agents.values():
            await other.until(lambda other=other: self._claimed(other, task_id), "claimed")  # type: ignore[misc]
        return task_id

    @staticmethod
    def _claimed(agent: Agent, task_id: str) -> bool:
        attempt = agent.attempt(task_id, 1)
        return attempt is not None and attempt.state == "claimed"

    async def end(self, agent: str, task_id: str) -> None:
        said = await self[agent].executor.say(
            "goal_result", task_id=task_id, attempt=1, outcome="completed", ended_by="finished", goal={}
        )
        assert said["accepted"], said

    async def open(self, agent: str, task_id: str, plan: str = "the plan") -> str:
        said = await self[agent].call("hmmm.open", task_id=task_id, attempt=1, plan=plan)
        assert said["session_id"] == session_id(task_id, 1)
        return str(said["session_id"])

    async def result(self, agent: str, session: str) -> dict[str, Any]:
        """The end of a discussion, once its record is listed."""
        said: dict[str, Any] = {"over": False}
        async with asyncio.timeout(DEADLINE_S):
            while not said["over"]:
                said = await self[agent].call("hmmm.result", session_id=session, wait_s=DEADLINE_S)
        await self.until_shown(agent, session, lambda shown: shown["session"]["record"] is not None)
        return said

    async def shown(self, agent: str, session: str) -> dict[str, Any]:
        return await self[agent].call("hmmm.show", session_id=session)

    async def until_shown(
        self, agent: str, session: str, true: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """What an agent shows of a session, once it shows that."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if self[agent].parts.hmmm.room.file.session(session) is not None:
                    shown = await self.shown(agent, session)
                    if true(shown):
                        return shown
                await asyncio.sleep(0.002)

    async def restart(self, *names: str) -> None:
        """The coordinators of these agents end, and start again."""
        for name in names:
            await self[name].stop()
        for name in names:
            await self[name].start()
            agent = self.world.mesh.agents[name]
            await self[name].until(lambda agent=agent: "coordinator" in agent.offers, "back")  # type: ignore[misc]

    def pass_time(self, seconds: float) -> None:
        """The clock of all agents goes on."""
        self.world.mesh.now_ms += int(seconds * 1000)
        for agent in self.world.agents.values():
            agent.parts.hmmm.room.spoken.set()

    def said(self, type: str = "hmmm.message") -> list[tuple[str, dict[str, Any]]]:
        """What was published, by agent."""
        published = self.world.mesh.published
        return [
            (name, data) for name, topic, kind, data in published if (topic, kind) == (META_DISCUSSION, type)
        ]

    def record(self, agent: str, session: str, ident: str = "") -> dict[str, Any]:
        """The record of a discussion as it lies in the DHT."""
        file = self[agent].parts.hmmm.room.file
        row = file.record(ident or session)
        assert row is not None
        raw = self.world.mesh.records[f"/chorus/decision/{row.facts['hash']}"].payload
        record: dict[str, Any] = orjson.loads(raw)
        return record


@asynccontextmanager
async def talking(
    folder: Path, names: str = "abc", models: str = "abc", remote: str = ""
) -> AsyncIterator[Talking]:
    """Agents in one mesh; those in `models` have a model, which has the name of its agent.

    The models of those in `remote` are at a provider beyond private addresses.
    """
    async with world(folder, names) as w:
        made = Talking(w)
        await w.takes_goals()
        for name in models:
            w[name].executor.models = [{"provider": "ollama", "model": name, "local": name not in remote}]
            w[name].parts.profile.refresh()
        for agent in w.agents.values():
            await agent.until(lambda agent=agent: _models(agent) == set(models), "models")  # type: ignore[misc]
        for mind in made.minds.values():
            await mind.start()
        yield made


def _models(agent: Agent) -> set[str]:
    return {member.agent_id for member in agent.parts.store.records(Member) if member.models}


def agrees(head: dict[str, Any]) -> dict[str, Any]:
    """A mind that agrees to every plan."""
    return {"intent": "agreement", "message": "yes"}


def objects_once(head: dict[str, Any]) -> dict[str, Any]:
    """A mind that objects to the first plan alone."""
    if head["session"]["plan"] == "the plan":
        return {"intent": "objection", "message": "it forgets the tests"}
    return agrees(head)


def changes(head: dict[str, Any]) -> dict[str, Any]:
    """An owner's mind that takes every objection up."""
    return {"intent": "proposal", "message": "a better plan"}


__all__ = ["Talking", "agrees", "changes", "objects_once", "talking"]
