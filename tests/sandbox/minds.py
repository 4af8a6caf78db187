"""A stand-in for the process `mind`: it plays a list of calls through the service `session`, as the loop
does, reading the journal first, so that it goes on where an earlier one ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from world import AGENT, World

from chorus.hub import HubError, Request

MODEL = {"provider": "scripted", "model": "oracle", "local": True}
PROMPT = {"kind": "note", "kind2": "prompt", "id": "prompt", "text": "You are a tester."}
Call = tuple[str, dict[str, Any]]


def run(command: str, **more: Any) -> Call:
    return "run", {"command": command, **more}


def finish(summary: str = "done") -> Call:
    return "finish", {"ended_by": "finished", "summary": summary}


class PlayedMind:
    """Plays one call a step. `asked` has what each was answered: head and text."""

    def __init__(self, world: World, calls: Sequence[Call]) -> None:
        self.hub = world.mesh.hub(AGENT, "mind")
        self.calls = list(calls)
        self.answers: list[tuple[dict[str, Any], str]] = []
        self.drives = 0
        self.heads: list[dict[str, Any]] = []
        self.error: BaseException | None = None
        self._playing: asyncio.Task[None] | None = None

    async def offer(self) -> None:
        """Serves `mind`."""
        await self.hub.offer("mind", self._serve)

    async def gone(self) -> None:
        """Ends as a killed process does: nothing is said."""
        if self._playing is not None:
            self._playing.cancel()
        await self.hub.close()

    async def _serve(self, request: Request) -> dict[str, Any]:
        match request.method:
            case "models":
                return {"models": [MODEL], "reason": "", "ready": True}
            case "drive":
                self.drives += 1
                self.heads.append(request.head)
                if self._playing is None:
                    self._playing = asyncio.create_task(self._play(request.head))
                return {"accepted": True, "reason": ""}
            case _:
                return {}

    async def ask(
        self, method: str, head: dict[str, Any], payload: bytes = b"", timeout: float = 120.0
    ) -> tuple[dict[str, Any], bytes]:
        named = {name: self.heads[-1][name] for name in ("task_id", "attempt", "secret")}
        reply = await self.hub.call_service("session", method, {**named, **head}, payload, timeout)
        return reply.head, reply.payload

    async def _play(self, head: dict[str, Any]) -> None:
        try:
            await self._steps()
        except HubError as error:
            self.error = error

    async def _steps(self) -> None:
        _, page = await self.ask("journal", {"from": 1})
        await self.ask("journal", {"append": True}, orjson.dumps(PROMPT))
        known = {(r["step"], r["call"]) for r in orjson.loads(page) if r["kind"] == "outcome"}
        for step, (tool, arguments) in enumerate(self.calls, 1):
            if (step, 1) in known:
                continue
            if arguments.get("ended_by", "finished") != "finished":
                # The loop's own word, which no reply of the model stands before.
                await self.ask(tool, {"step": step - 1, "call": 0, **arguments})
                return
            await self.ask("journal", {"append": True}, orjson.dumps(reply_of(step, tool, arguments)))
            payload = b""
            said = dict(arguments)
            if tool == "write":
                payload = said.pop("text").encode()
            elif tool == "edit":
                payload = orjson.dumps({"old": said.pop("old"), "new": said.pop("new")})
            answer, text = await self.ask(tool, {"step": step, "call": 1, **said}, payload)
            self.answers.append((answer, text.decode()))


def reply_of(step: int, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A reply of a model as the loop journals it."""
    return {
        "kind": "reply",
        "step": step,
        "text": f"step {step}",
        "calls": [{"call": 1, "tool": tool, "arguments": arguments}],
        "unreadable": "",
        "finish": "calls",
        "provider": "scripted",
        "model": "oracle",
        "tokens_in": 100,
        "tokens_out": 10,
        "seconds": 0.25,
        "usd": 0.001,
    }
