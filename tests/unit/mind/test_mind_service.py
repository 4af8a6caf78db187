"""The service `mind`: goals driven once, words for discussions, models and health; and what it loads when."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from model_wire import Answer, Wire, done, lines, text, wire

from chorus.config import Assignment, Settings
from chorus.config.load import load_settings
from chorus.hub import HubInvalid, HubUnavailable, Request
from chorus.mind import backoff
from chorus.mind.driving import Parts
from chorus.mind.service import Mind
from chorus.mind.thinking import ToolCall, Turn
from chorus.process import Assignments, Process
from chorus.process.logs import Logger
from chorus.testing.fake_hub import FakeHub, FakeMesh

GENEROUS_S = 60.0
SHOWN = Answer((json.dumps({"capabilities": ["tools"], "model_info": {"x.context_length": 4096}}).encode(),))
TASK = {"task_id": "t", "title": "Mend it", "role": "tester"}


class FakeProcess:
    """What the mind needs of `chorus.process.Process`."""

    def __init__(self, settings: Settings, hub: FakeHub) -> None:
        self.settings, self.hub = settings, hub
        self.assignments = Assignments(settings.assignment)
        self.log = Logger(logging.getLogger("test-mind"))
        self.stopping, self.offered = asyncio.Event(), asyncio.Event()

    async def offer(self, methods: Mapping[str, Any]) -> None:
        async def serve(request: Request) -> Any:
            return await methods[request.method](request)

        await self.hub.offer("mind", serve)
        self.offered.set()


class Drives:
    """A stand-in for the loop: each drive goes on until it is told to end."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int, str]] = []
        self.cancelled: list[str] = []
        self.at_work = asyncio.Event()
        self.end = asyncio.Event()

    async def __call__(
        self, parts: Parts, task_id: str, attempt: int, task: Mapping[str, Any], secret: str
    ) -> None:
        self.begun.append((task_id, attempt, secret))
        self.at_work.set()
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancelled.append(task_id)
            raise


class World:
    def __init__(self, folder: Path, url: str, **environ: str) -> None:
        settings = load_settings(
            {
                "CHORUS_LICENSE_ID": "dev-1",
                "CHORUS_DATA_DIR": str(folder),
                "CHORUS_PROMPTS_DIR": str(folder / "prompts"),
                "OLLAMA_ENDPOINT": url,
                "OLLAMA_MODEL": "m",
                **environ,
            }
        )
        mesh = FakeMesh()
        self.sibling = mesh.hub("a", "executor")
        self.process = FakeProcess(settings, mesh.hub("a", "mind"))
        self.drives = Drives()
        self.mind = Mind(cast(Process, self.process), self.drives)

    async def call(self, method: str, timeout: float = GENEROUS_S, **head: Any) -> dict[str, Any]:
        return (await self.sibling.call_service("mind", method, head, timeout=timeout)).head

    async def until_there(self) -> None:
        while not (await self.call("models"))["ready"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def world(folder: Path, url: str, **environ: str) -> AsyncIterator[World]:
    made = World(folder, url, **environ)
    running = asyncio.create_task(made.mind.run())
    try:
        async with asyncio.timeout(GENEROUS_S):
            await made.process.offered.wait()
            yield made
            made.process.stopping.set()
            await running
    finally:
        running.cancel()


@asynccontextmanager
async def served(folder: Path, *script: Answer) -> AsyncIterator[tuple[World, Wire]]:
    async with wire(SHOWN, *script) as server, world(folder, server.url) as made:
        await made.until_there()
        yield made, server


async def test_a_goal_is_driven_once_and_stopped(tmp_path: Path) -> None:
    async with served(tmp_path) as (w, _):
        said = await w.call("drive", task_id="t", attempt=1, task=TASK, secret="s")
        assert (said["accepted"], said["reason"]) == (True, "")
        assert (await w.call("drive", task_id="t", attempt=1, task=TASK, secret="s"))["accepted"]
        await w.call("drive", task_id="t", attempt=2, task=TASK, secret="s2")
        await w.drives.at_work.wait()
        assert (await w.call("health"))["goals"] == 2
        assert w.drives.begun == [("t", 1, "s"), ("t", 2, "s2")]
        assert (await w.call("stop", task_id="t", attempt=1)) == {"stopped": True}
        assert (await w.call("stop", task_id="t", attempt=1)) == {"stopped": False}
        assert w.drives.cancelled == ["t"]
        assert (await w.call("health"))["goals"] == 1
    assert w.drives.cancelled == ["t", "t"]


async def test_a_drive_that_was_stopped_before_it_began_may_begin_again(tmp_path: Path) -> None:
    async with served(tmp_path) as (w, _):
        for _ in range(2):
            await w.call("drive", task_id="t", attempt=1, task=TASK, secret="s")
            assert await w.call("stop", task_id="t", attempt=1) == {"stopped": True}
        assert w.drives.begun == []
        assert (await w.call("health"))["goals"] == 0


async def test_a_drive_that_ended_may_begin_again(tmp_path: Path) -> None:
    async with served(tmp_path) as (w, _):
        w.drives.end.set()
        for _ in range(2):
            await w.call("drive", task_id="t", attempt=1, task=TASK, secret="s")
            while (await w.call("health"))["goals"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert len(w.drives.begun) == 2


@pytest.mark.parametrize(
    "head",
    [{}, {"task_id": 1, "attempt": 1}, {"task_id": "t", "attempt": True}, {"task_id": "t", "attempt": 1}],
)
async def test_a_drive_of_another_form_is_refused(tmp_path: Path, head: dict[str, Any]) -> None:
    async with served(tmp_path) as (w, _):
        with pytest.raises(HubInvalid):
            await w.call("drive", **head)
        with pytest.raises(HubInvalid):
            await w.call("discuss", **head)


async def test_words_for_a_discussion(tmp_path: Path) -> None:
    objection = {"intent": "objection", "message": "Use a lock.", "citations": []}
    script = [lines(text(json.dumps(objection)), done()), lines(text("Look at line 3."), done())]
    async with served(tmp_path, *script) as (w, server):
        session = {"session_id": "s", "owner": False, "plan": "No lock.", "messages": [], "answering": []}
        assert await w.call("discuss", session=session, task=TASK, role="architect") == objection
        assert await w.call("advise", question="Why?", task=TASK) == {"message": "Look at line 3."}
    asked = server.asked[1].body
    assert "tools" not in asked
    assert asked["messages"][0]["content"].startswith("You are a software architect.")
    assert "call `finish`" not in asked["messages"][0]["content"]
    assert "No lock." in asked["messages"][1]["content"]


async def test_words_are_those_of_the_role_that_the_agent_has_now(tmp_path: Path) -> None:
    script = [lines(text("Look."), done()), lines(text("Look again."), done())]
    async with served(tmp_path, *script) as (w, server):
        task = {"task_id": "t", "title": "Mend it"}
        w.process.assignments.take(Assignment(role="architect"))
        await w.call("advise", question="Why?", task=task)
        w.process.assignments.take(Assignment(role="tester"))
        await w.call("advise", question="Why?", task=task)
    architect, tester = (asked.body["messages"][0]["content"] for asked in server.asked[1:3])
    assert architect.startswith("You are a software architect.")
    assert not tester.startswith("You are a software architect.")


async def test_no_secret_goes_out(tmp_path: Path) -> None:
    token = "ghp_" + "x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"
    async with served(tmp_path, lines(text("Well."), done())) as (w, server):
        call = ToolCall("write", {"path": "a", "parts": [f"key={token}"]})
        turns = [Turn("user", f"It is {token}"), Turn("assistant", "\ud800", (call,))]
        assert (await w.mind.models.ask(turns, (), deadline_s=GENEROUS_S)).text == "Well."
    said = json.dumps(server.asked[1].body)
    assert token not in said
    assert said.count("[REDACTED:github-token]") == 2


async def test_without_a_model_there_are_no_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "WAIT_FIRST_S", 0.001)
    async with world(tmp_path, "http://127.0.0.1:1") as w:
        with pytest.raises(HubUnavailable, match=r"ollama \(m\): no connection"):
            await w.call("advise", question="Why?", task=TASK)
        said = await w.call("models")
        assert (said["models"], said["ready"]) == ([], False)
    async with served(tmp_path, Answer(end="open")) as (w, _):
        with pytest.raises(HubUnavailable, match=r"in time|within"):
            await w.call("advise", timeout=1.1, question="Why?", task=TASK)


async def test_models_and_health_say_what_is_there(tmp_path: Path) -> None:
    async with served(tmp_path) as (w, _):
        said = await w.call("models")
        assert said == {
            "models": [{"provider": "ollama", "model": "m", "local": True}],
            "reason": "",
            "ready": True,
        }
        health = await w.call("health")
        assert (health["ok"], health["detail"]) == (True, "ollama: m is there")
        assert w.mind.models.window() == 4096


async def test_health_names_files_of_prompts_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "a.yaml").write_text("[]")
    async with served(tmp_path) as (w, _):
        health = await w.call("health")
        assert health["ok"]
        assert "a.yaml: roles: expected a mapping" in health["detail"]
        assert len(health["prompt_problems"]) == 1


async def test_a_second_provider_is_enough(tmp_path: Path) -> None:
    both = {
        "CHORUS_AI_FALLBACK": "resetdata",
        "RESETDATA_API_KEY": "k",
        "RESETDATA_MODEL": "r",
    }
    listed = Answer((b'{"data": [{"id": "r"}]}',))
    async with (
        wire(listed) as server,
        world(tmp_path, "http://127.0.0.1:1", RESETDATA_BASE_URL=server.url, **both) as w,
    ):
        await w.until_there()
        said = await w.call("models")
        assert said["models"] == [{"provider": "resetdata", "model": "r", "local": True}]
        assert said["reason"].startswith("ollama: m is away: no connection")
        assert (await w.call("health"))["ok"]


async def test_a_model_whose_day_s_money_is_spent_is_away(tmp_path: Path) -> None:
    money = {"CHORUS_AI_PRICES": '{"m": {"in": 1, "out": 1}}', "CHORUS_AI_DAILY_USD": "1"}
    async with wire(SHOWN) as server, world(tmp_path, server.url, **money) as w:
        await w.until_there()
        with w.mind.models.accounts.charge("m", 1) as charge:
            charge.usd = 1.0
        said = await w.call("models")
        assert (said["models"], said["ready"]) == ([], False)
        assert said["reason"] == "ollama: m is away: today's CHORUS_AI_DAILY_USD is spent"
        assert not (await w.call("health"))["ok"]


LOADED = """
import asyncio, sys
from pathlib import Path
from chorus.config.load import load_settings
from chorus.mind.accounting import Accounts
from chorus.mind.models import Models
import chorus.mind.service

def loaded(name):
    return any(module == name or module.startswith(name + ".") for module in sys.modules)

assert not loaded("pydantic_ai")
async def main():
    ai = load_settings({"CHORUS_LICENSE_ID": "dev-1", "OLLAMA_ENDPOINT": sys.argv[1]}).ai
    models = Models(ai, Accounts(Path(sys.argv[2]), {}, None))
    await models.look()
    assert models.providers[0].there, models.providers[0].detail
    assert not loaded("pydantic_ai"), "a look loads the model library"
    assert not loaded("httpx"), "a look loads more of HTTP than it needs"
    from chorus.mind.thinking import Turn
    await models.ask([Turn("user", "hello")], (), deadline_s=60)
    assert loaded("pydantic_ai")
asyncio.run(main())
"""

OTHERS = """
import importlib, sys
for name in ("agent", "api", "node", "election", "coordinator", "executor", "ctl"):
    importlib.import_module(f"chorus.{name}.{'cli' if name == 'ctl' else 'service'}")
found = [name for name in sys.modules if name.split(".")[0] in ("pydantic_ai", "genai_prices")]
assert not found, found
assert not any(name.startswith("chorus.mind") for name in sys.modules)
"""


async def _python(script: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *arguments, stderr=subprocess.PIPE
    )
    _, stderr = await asyncio.wait_for(process.communicate(), GENEROUS_S * 2)
    assert process.returncode == 0, stderr.decode()


async def test_the_model_library_is_loaded_at_the_first_question_and_not_before(tmp_path: Path) -> None:
    async with wire(SHOWN, lines(text("hello"), done())) as server:
        await _python(LOADED, server.url, str(tmp_path / "spending.json"))


async def test_no_other_process_loads_it() -> None:
    await _python(OTHERS)
