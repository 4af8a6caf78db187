"""A goal's calls through the service `session`: each is done once, and nothing but them is answered."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from chorus.executor.backend import SandboxGone
from chorus.executor.goal import transcript as transcripts
from chorus.executor.goal.checking import Checked
from chorus.executor.goal.run import GoalRun
from chorus.executor.goal.session_service import SessionService
from chorus.executor.goal.tools import Outcome
from chorus.executor.goal.transcript import Transcript
from chorus.executor.journal import Journal
from chorus.executor.patch import LeftOut, Patch
from chorus.hub import HubError, HubInvalid, HubNotFound, HubNotPermitted, HubRefused, Reply, Request
from chorus.testing.anything import OBJECTS, RAW, VALUES, ask, examples
from chorus.wire.ids import new_id

TASK = new_id()
SOME = Patch(b"diff", 1, (), complete=True)
NONE = Patch(b"", 0, (), complete=True)


class HeldTools:
    """Stands in for the tools: a call is done when the test lets it go on."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Outcome:
        self.done.append(tool)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return Outcome(True, f"{tool} {len(self.done)}", 0.5, 0)

    def below_workspace(self, path: str) -> str:
        return path


class PlannedChecks:
    """Stands in for the checking: what it finds is what the test says."""

    def __init__(self) -> None:
        self.patches = [SOME]
        self.first = b""
        self.codes = [0]
        self.checked = 0

    async def patch(self, sandbox: Any) -> Patch:
        return self.patches.pop(0) if len(self.patches) > 1 else self.patches[0]

    async def changed(self, patch: Patch) -> bool:
        return patch.text != self.first

    async def check(self, patch: Patch) -> Checked:
        self.checked += 1
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        one = {"command": "make test", "exit_code": code, "duration_s": 1.0, "output": "said"}
        return Checked([one], 0, code == 0)


class Bench:
    """One goal that runs, and the service before it."""

    def __init__(self, folder: Path, *, has_checks: bool = True) -> None:
        self.tools, self.checks = HeldTools(), PlannedChecks()
        self.touched: list[str] = []
        transcript = Transcript(folder, lambda text: text, lambda: "now")
        self.journal = Journal(folder, 1)
        sandbox: Any = None
        self.goal = GoalRun(
            sandbox,
            self.tools,
            self.checks,
            transcript,
            self.journal,
            has_checks=has_checks,  # type: ignore[arg-type]
            touched=lambda path: self.touched.append(path),
        )
        self.service = SessionService({(TASK, 1): self.goal})

    async def ask(self, method: str, payload: bytes = b"", **head: Any) -> Reply:
        named = {"task_id": TASK, "attempt": 1, "secret": self.goal.secret, **head}
        return await self.service.handle(Request("session", method, named, payload))

    def kinds(self) -> list[str]:
        return [record["kind"] for record in orjson.loads(self.goal.transcript.page(1)[0])]


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_a_call_that_is_asked_twice_is_done_once(bench: Bench) -> None:
    first = asyncio.create_task(bench.ask("run", step=1, call=1, command="x"))
    second = asyncio.create_task(bench.ask("run", step=1, call=1, command="x"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    # Who asked first is gone; the call goes on.
    first.cancel()
    bench.tools.go.set()
    assert (await second).payload == b"run 1"
    later = await bench.ask("run", step=1, call=1, command="other")
    assert (later.head, later.payload) == ({"ok": True, "exit_code": 0, "duration_s": 0.5}, b"run 1")
    assert bench.tools.done == ["run"]
    assert bench.kinds() == ["call", "outcome"]


async def test_calls_are_done_one_after_the_other(bench: Bench) -> None:
    asked = [asyncio.create_task(bench.ask("run", step=1, call=n, command="x")) for n in (1, 2, 3)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(bench.tools.done) == 1
    bench.tools.go.set()
    await asyncio.gather(*asked)
    assert bench.kinds() == ["call", "outcome"] * 3


async def test_a_call_under_which_the_sandbox_dies_is_told_and_ends_the_run(bench: Bench) -> None:
    bench.tools.go.set()
    bench.tools.error = SandboxGone("the session was killed")
    reply = await bench.ask("run", step=1, call=1, command="x")
    assert reply.head["ok"] is False
    assert b"not known: the session was killed" in reply.payload
    assert isinstance(bench.goal.ended.exception(), SandboxGone)
    again = await bench.ask("run", step=1, call=1, command="x")
    assert again.payload == reply.payload
    with pytest.raises(HubNotFound, match="its sandbox is gone"):
        await bench.ask("run", step=1, call=2, command="x")


async def test_a_call_that_the_executor_fails_at_has_an_outcome(bench: Bench) -> None:
    bench.tools.go.set()
    bench.tools.error = OSError(5, "Input/output error")
    reply = await bench.ask("run", step=1, call=1, command="x")
    assert reply.head["ok"] is False
    assert b"Input/output error" in reply.payload
    bench.tools.error = None
    assert (await bench.ask("run", step=1, call=2, command="x")).head["ok"] is True


class FullFor(Transcript):
    """A journal whose disk has no room for so many records of one kind."""

    def __init__(self, folder: Path, kind: str, times: int = 1) -> None:
        super().__init__(folder, lambda text: text, lambda: "now")
        self.kind, self.times = kind, times

    def add(self, kind: str, **fields: Any) -> dict[str, Any]:
        if kind == self.kind and self.times:
            self.times -= 1
            raise OSError(28, "No space left on device")
        return super().add(kind, **fields)


async def test_a_call_whose_outcome_was_not_written_is_not_done_again(bench: Bench, tmp_path: Path) -> None:
    bench.goal.transcript = FullFor(tmp_path, "outcome")
    bench.tools.go.set()
    with pytest.raises(HubError, match="No space"):
        await bench.ask("run", step=1, call=1, command="x")
    assert (await bench.ask("run", step=1, call=1, command="x")).payload == b"run 1"
    assert bench.tools.done == ["run"]
    assert bench.kinds() == ["call", "outcome"]


async def test_a_call_whose_end_is_not_known_is_not_done_again(bench: Bench) -> None:
    bench.tools.go.set()
    bench.tools.error = KeyError("a defect")
    with pytest.raises(KeyError):
        await bench.ask("run", step=1, call=1, command="x")
    reply = await bench.ask("run", step=1, call=1, command="x")
    assert (reply.head["ok"], reply.payload) == (False, b"the call was begun; what came of it is not known")
    assert bench.tools.done == ["run"]


async def test_checks_whose_outcome_was_not_written_are_not_run_again(bench: Bench, tmp_path: Path) -> None:
    bench.goal.transcript = FullFor(tmp_path, "outcome")
    with pytest.raises(HubError, match="No space"):
        await finished(bench, 1)
    assert not bench.goal.ended.done()
    assert (await finished(bench, 1))[0] is True
    assert bench.checks.checked == 1
    assert bench.goal.ended.result().ended_by == "finished"


async def test_an_event_without_room_fails_no_call(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(event: str, data: dict[str, Any]) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bench.journal, "event", full)
    assert (await finished(bench, 1))[0] is True
    assert bench.goal.ended.result().ended_by == "finished"


@pytest.mark.parametrize("ended_by", ["finished", "gave_up"])
@pytest.mark.parametrize("room", [0, 150])
async def test_a_full_transcript_ends_the_run_at_finish(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ended_by: str, room: int
) -> None:
    monkeypatch.setattr(transcripts, "BYTES_MAX", room)
    with pytest.raises(HubRefused, match="the transcript has reached"):
        await bench.ask("finish", step=1, call=1, ended_by=ended_by, reason="r")
    assert bench.goal.ended.result().ended_by == "steps"


async def test_a_full_transcript_takes_no_words(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "BYTES_MAX", 0)
    head = {"task_id": TASK, "attempt": 1, "id": "m", "text": "look", "name": "Ada"}
    with pytest.raises(HubRefused, match="limit: the transcript"):
        bench.service.message(head, "person")


async def finished(bench: Bench, step: int) -> tuple[bool, str]:
    reply = await bench.ask("finish", step=step, call=1, ended_by="finished", summary="done")
    return reply.head["accepted"], orjson.loads(reply.payload)["text"]


async def test_passing_checks_end_the_run(bench: Bench) -> None:
    bench.checks.codes = [1, 0]
    accepted, text = await finished(bench, 1)
    assert (accepted, "check failed with 1: make test\nsaid" in text) == (False, True)
    assert await finished(bench, 1) == (accepted, text)
    assert bench.checks.checked == 1
    assert (await finished(bench, 2))[0] is True
    assert bench.goal.ended.result().ended_by == "finished"
    assert bench.kinds() == ["call", "checks", "outcome"] * 2
    with pytest.raises(HubNotFound):
        await bench.ask("run", step=3, call=1, command="x")


@pytest.mark.parametrize("first", [NONE, SOME])
async def test_no_change_is_questioned_once(tmp_path: Path, first: Patch) -> None:
    """Also in a run that began with the changes of another."""
    bench = Bench(tmp_path, has_checks=False)
    bench.checks.patches, bench.checks.first = [first], first.text
    assert "Nothing was changed" in (await finished(bench, 1))[1]
    assert (await finished(bench, 2))[0] is True


async def test_paths_that_commands_changed_are_announced_at_finish(bench: Bench) -> None:
    bench.checks.patches = [replace(SOME, paths=("a", "b"))]
    await finished(bench, 1)
    assert bench.touched == ["a", "b"]


async def test_a_patch_that_is_not_whole_completes_nothing(bench: Bench) -> None:
    bench.checks.patches = [Patch(b"", 0, (LeftOut("big.bin", "too large"),), complete=False)]
    for step in (1, 2):
        accepted, text = await finished(bench, step)
        assert (accepted, "big.bin: too large" in text) == (False, True)
    assert not bench.goal.ended.done()


@pytest.mark.parametrize("ended_by", ["steps", "tokens", "money", "stuck", "gave_up", "format", "model"])
@pytest.mark.parametrize("call", [0, 1])
async def test_the_loop_may_end_the_run(bench: Bench, ended_by: str, call: int) -> None:
    reply = await bench.ask("finish", step=0, call=call, ended_by=ended_by, reason="because")
    assert reply.head == {"accepted": True}
    end = bench.goal.ended.result()
    assert (end.ended_by, end.reason, end.given_back) == (ended_by, "because", ended_by == "model")


@pytest.mark.parametrize("call", [0, 1])
async def test_a_model_that_refuses_before_the_first_step_is_counted(bench: Bench, call: int) -> None:
    await bench.ask("finish", step=0, call=call, ended_by="model", reason="too long", refused=True)
    end = bench.goal.ended.result()
    assert (end.ended_by, end.given_back) == ("model", False)


async def test_a_model_that_goes_away_later_is_counted(bench: Bench) -> None:
    said = {"kind": "reply", "step": 1, "text": "", "calls": [], "finish": "stop"}
    await bench.ask("journal", orjson.dumps(said), append=True)
    await bench.ask("finish", step=1, call=0, ended_by="model", reason="gone")
    assert bench.goal.ended.result().given_back is False


async def test_a_budget_that_ends_refused_work_is_the_checks_fault(bench: Bench) -> None:
    bench.checks.codes = [1]
    await finished(bench, 1)
    await bench.ask("finish", step=1, call=0, ended_by="steps", reason="used up")
    assert bench.goal.ended.result().ended_by == "checks"


@pytest.mark.parametrize("secret", ["", "wrong", None, 7, "é"])
async def test_another_secret_is_not_permitted(bench: Bench, secret: object) -> None:
    with pytest.raises(HubNotPermitted):
        await bench.ask("journal", secret=secret)


async def test_peers_and_other_goals_are_refused(bench: Bench) -> None:
    head = {"task_id": TASK, "attempt": 1, "secret": bench.goal.secret}
    with pytest.raises(HubNotPermitted):
        await bench.service.handle(Request("session", "journal", head, peer="12D3KooW"))
    with pytest.raises(HubNotFound):
        await bench.service.handle(Request("session", "journal", {**head, "attempt": 2}))
    with pytest.raises(HubInvalid):
        await bench.service.handle(Request("session", "nothing", head))


async def test_words_are_taken_once_and_only_while_it_runs(bench: Bench) -> None:
    head = {"task_id": TASK, "attempt": 1, "id": "m", "text": "look", "name": "Ada"}
    for _ in range(2):
        assert bench.service.message(head, "person") == {"n": 1}
    assert bench.kinds() == ["message"]
    bench.goal.close("over")
    with pytest.raises(HubNotFound):
        bench.service.message({**head, "id": "n"}, "person")


async def test_words_of_peers_leave_room_for_those_of_people(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chorus.executor.goal.run._PEERS_MESSAGES_MAX", 2)
    head = {"task_id": TASK, "attempt": 1, "text": "look", "name": "Ada"}
    for id in ("1", "2", "2"):
        bench.service.message({**head, "id": id}, "peer")
    with pytest.raises(HubRefused, match="at most 2 messages of peers"):
        bench.service.message({**head, "id": "3"}, "peer")
    assert bench.service.message({**head, "id": "4"}, "person") == {"n": 3}


def test_anything_asked_is_answered(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:

        async def made() -> Bench:
            bench = Bench(tmp_path)
            bench.tools.go.set()
            return bench

        bench = runner.run(made())

        async def handle(request: Request) -> Reply:
            # The kit asks as a peer does, who would be refused at once.
            return await bench.service.handle(replace(request, peer=None))

        named = {"task_id": TASK, "attempt": 1, "secret": bench.goal.secret}
        # Numbers that a call may have, so that some cases reach the tools; none reaches an end of the run.
        numbers = {"step": st.integers(-1, 9_999) | VALUES, "call": st.integers(-1, 65) | VALUES}
        heads = st.fixed_dictionaries(
            numbers, optional=dict.fromkeys(("from", "append", "path", "command", "limit_bytes"), VALUES)
        )

        @examples
        @given(
            st.sampled_from(["journal", "run", "read", "write", "edit", "list", "search", "finish"]),
            heads.map(lambda head: {**head, **named}) | OBJECTS | VALUES,
            RAW,
        )
        def run(method: str, head: Any, body: bytes) -> None:
            runner.run(ask(handle, None, method, head, body))

        run()
        assert not bench.goal.ended.done()


async def test_the_prompt_of_a_run_is_in_its_journal_and_its_hash_in_the_report(bench: Bench) -> None:
    prompt = {"kind": "note", "kind2": "prompt", "id": "prompt", "text": "You are a tester.\n"}
    await bench.ask("journal", orjson.dumps(prompt), append=True)
    # A mind that was restarted may have another one; the run began with the first.
    await bench.ask("journal", orjson.dumps({**prompt, "text": "You are another."}), append=True)
    reply = await bench.ask("journal", **{"from": 1})
    assert [record["text"] for record in orjson.loads(reply.payload)] == [prompt["text"]]
    assert bench.goal.tally.prompts_sha256 == hashlib.sha256(prompt["text"].encode()).hexdigest()
