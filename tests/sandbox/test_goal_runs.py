"""Goals in real sandboxes, driven by a stand-in for the loop: from the award to what the run leaves."""

from __future__ import annotations

import asyncio
import hashlib
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from minds import PROMPT, PlayedMind, finish, run
from world import World, eventually

from chorus.config import AiSettings
from chorus.hub import HubNotFound, HubNotPermitted, HubRefused
from chorus.process import metrics

pytestmark = pytest.mark.docker

SOURCE = {
    "sum.sh": "#!/bin/sh\necho $(($1 - $2))\n",
    "test.sh": '#!/bin/sh\n[ "$(./sum.sh 2 3)" = 5 ] || { echo wrong sum; exit 1; }\n',
}
FIX = ("edit", {"path": "sum.sh", "old": "$1 - $2", "new": "$1 + $2"})


@pytest.fixture(autouse=True)
def with_provider(world: World) -> None:
    """The agent has a provider of models."""
    assert world.executor
    room = world.executor.room
    ai: AiSettings = replace(room.settings.ai, provider="ollama")
    room.settings = replace(room.settings, ai=ai)


def apply_here(patch: bytes, folder: Path) -> None:
    """Applies a patch as its user does, and runs the check."""
    for name, text in SOURCE.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    subprocess.run(["git", "apply", "-"], input=patch, cwd=folder, check=True)
    subprocess.run(["./test.sh"], cwd=folder, check=True)


async def artifact(world: World, task_id: str, path: str, attempt: int = 1) -> bytes:
    head = {"task_id": task_id, "attempt": attempt, "path": path}
    async with await world.client.open_stream("output", "artifact", head) as stream:
        return await stream.read_all(1 << 24)


async def records(world: World, task_id: str) -> list[dict[str, Any]]:
    lines = (await artifact(world, task_id, "transcript.jsonl")).splitlines()
    told = [orjson.loads(line) for line in lines]
    assert [record["n"] for record in told] == list(range(1, len(told) + 1))
    return told


async def reached(world: World, *calls: Any, **fields: Any) -> tuple[Any, PlayedMind]:
    mind = PlayedMind(world, calls)
    await mind.offer()
    goal = {"title": "Mend the sum", "source": {"kind": "inline", "files": SOURCE}, "checks": ["./test.sh"]}
    row = await world.run(**{**goal, **fields})
    assert row.result is not None, row
    return row, mind


async def test_a_goal_from_award_to_patch(world: World, tmp_path: Path) -> None:
    calls = [
        run("./test.sh"),
        ("read", {"path": "sum.sh"}),
        ("search", {"pattern": "sum"}),
        ("list", {}),
        finish("too early"),
        FIX,
        ("write", {"path": "docs/new file.txt", "text": "added\n"}),
        finish("mended"),
    ]
    row, mind = await reached(world, *calls)
    assert (row.state, row.result["ended_by"]) == ("completed", "finished"), (row.reason, mind.error)
    heads = [head for head, _ in mind.answers]
    texts = [text for _, text in mind.answers]
    assert (heads[0]["exit_code"], texts[0]) == (1, "wrong sum\n")
    assert texts[1] == "1\t#!/bin/sh\n2\techo $(($1 - $2))"
    assert texts[2] == 'test.sh:2:[ "$(./sum.sh 2 3)" = 5 ] || { echo wrong sum; exit 1; }'
    assert texts[3].splitlines() == ["sum.sh (28 bytes)", "test.sh (67 bytes)"]
    assert heads[4] == {"accepted": False}
    assert orjson.loads(texts[4])["changed"] is False
    assert heads[7] == {"accepted": True}

    report = row.result["goal"]
    patch = await artifact(world, row.task_id, "patch.diff")
    assert report["patch"] == {
        "sha256": hashlib.sha256(patch).hexdigest(), "size": len(patch), "files": 2, "left_out": []
    }  # fmt: skip
    assert [(check["command"], check["exit_code"]) for check in report["checks"]] == [("./test.sh", 0)]
    assert (report["steps"], report["calls"], report["tokens_in"], report["usd"]) == (8, 8, 800, 0.008)
    assert (report["model"], report["unchecked"]) == ("oracle", False)
    assert report["prompts_sha256"] == hashlib.sha256(PROMPT["text"].encode()).hexdigest()
    await asyncio.to_thread(apply_here, patch, tmp_path)
    assert (tmp_path / "docs" / "new file.txt").read_text() == "added\n"

    told = await records(world, row.task_id)
    transcript = await artifact(world, row.task_id, "transcript.jsonl")
    assert hashlib.sha256(transcript).hexdigest() == report["transcript_sha256"]
    kinds = [record["kind"] for record in told]
    assert (kinds[0], kinds[-1]) == ("start", "end")
    assert kinds.count("call") == kinds.count("outcome") == kinds.count("reply") == 8
    assert [record["passed"] for record in told if record["kind"] == "checks"] == [True]
    start = told[0]
    assert start["files"] == {"count": 2, "names": ["sum.sh", "test.sh"]}
    assert (start["goal"], start["budget"]["steps"]) == ("Mend the sum", 25)
    events = await world.events(row.task_id)
    steps = [event["data"] for event in events if event["event"] == "step"]
    assert {"reply", "call", "outcome", "checks"} <= {key for data in steps for key in data}
    assert any(event["data"].get("text") == "wrong sum\n" for event in events if event["event"] == "output")
    await eventually(lambda: len(world.touched) == 2)
    assert world.touched == ["sum.sh", "docs/new file.txt"]
    counted = metrics.render().decode()
    assert 'chorus_goals_ended_total{ended_by="finished"} ' in counted
    assert re.search(r"^chorus_goal_steps_total ([8-9]|[1-9][0-9]+)\.0$", counted, re.MULTILINE)


async def test_failing_checks_go_back_to_the_model(world: World) -> None:
    row, mind = await reached(world, run("touch nothing"), finish(), FIX, finish())
    assert row.state == "completed", row.reason
    answer = orjson.loads(mind.answers[1][1])
    assert "wrong sum" in answer["text"]
    assert answer["checks"][0]["exit_code"] == 1


async def test_nothing_but_the_patch_makes_checks_pass(world: World) -> None:
    """HOME, processes, caches and an edited test are not there when the checks run."""
    fooling = (
        "echo 'exit 0' > test.sh; echo 5 > /tmp/answer; setsid sleep 1000 >/dev/null 2>&1 & "
        "mkdir -p __pycache__; echo planted > __pycache__/x.pyc; touch made"
    )
    checks = ["./test.sh", "[ ! -e /tmp/answer ]", "[ ! -e __pycache__ ]", "! pgrep -x sleep", "[ -e made ]"]
    row, mind = await reached(
        world, run(fooling), finish(), ("finish", {"ended_by": "steps", "reason": "used up"}),
        checks=checks, protected=["test.sh"],
    )  # fmt: skip
    codes = [check["exit_code"] for check in orjson.loads(mind.answers[1][1])["checks"]]
    assert codes == [1, 0, 0, 0, 0]
    # The budget ended it while the checks still failed.
    assert (row.state, row.result["ended_by"]) == ("failed", "checks")


async def test_without_checks_the_outcome_is_the_models_word(world: World) -> None:
    row, _ = await reached(world, FIX, finish("I say so"), checks=[])
    assert (row.state, row.result["goal"]["unchecked"]) == ("completed", True)
    assert "I say so" in row.result["summary"]


async def test_a_failing_setup_ends_it(world: World) -> None:
    row, mind = await reached(world, finish(), setup=["true", "echo no; exit 3", "true"])
    assert (row.state, row.result["ended_by"], mind.drives) == ("failed", "setup", 0)
    assert row.reason == "setup failed: command 2 of 3 of setup exited with 3"
    told = await records(world, row.task_id)
    assert [one["exit_code"] for one in told[1]["commands"]] == [0, 3]


@pytest.mark.parametrize("why", ["timeout", "cancel"])
async def test_a_stop_keeps_patch_and_transcript(world: World, why: str) -> None:
    mind = PlayedMind(world, [FIX, run("echo on; sleep 1000")])
    await mind.offer()
    source = {"kind": "inline", "files": SOURCE}
    task_id = await world.submit(title="Mend", source=source, timeout_s=4 if why == "timeout" else 900)
    assert (await world.award(task_id))["accepted"]
    await eventually(lambda: mind.answers)
    if why == "cancel":
        await world.propose("cancel", {"task_id": task_id, "by": "somebody"})
    row = await world.until(task_id, lambda row: row.result is not None)
    assert row.result["ended_by"] == why
    assert b"+echo $(($1 + $2))" in await artifact(world, task_id, "patch.diff")
    assert (await records(world, task_id))[-1]["ended_by"] == why


async def test_a_model_that_is_away_costs_no_attempt(world: World) -> None:
    class Away(PlayedMind):
        async def _steps(self) -> None:
            head = {"step": 0, "call": 0, "ended_by": "model", "reason": "no server"}
            await self.ask("finish", head)

    mind = Away(world, [])
    await mind.offer()
    task_id = await world.submit(title="Do it", max_attempts=1)
    assert (await world.award(task_id))["accepted"]
    row = await world.until(task_id, lambda row: row.state == "announced" and row.attempt == 1)
    assert row.open
    assert "no server" in world.table.attempts(task_id)[0].reason
    # Such goals would come back again and again: for a while none is taken.
    answer = await world.award(task_id)
    assert not answer["accepted"]
    assert "no server" in answer["reason"]
    profile = (await world.client.call_service("executor", "profile")).head
    assert (profile["models"], "no server" in profile["model_reason"]) == ([], True)


async def test_a_restarted_loop_gets_the_outcome_of_a_call_under_way(world: World) -> None:
    calls = [run("echo once >> log; while [ ! -e go ]; do sleep 0.01; done; cat log"), FIX, finish()]
    first = PlayedMind(world, calls)
    await first.offer()
    task_id = await world.submit(
        title="Mend", source={"kind": "inline", "files": SOURCE}, checks=["./test.sh"]
    )
    assert (await world.award(task_id))["accepted"]
    assert world.executor
    goals = world.executor.room.goals
    await eventually(lambda: any(goal._calls for goal in goals.values()))
    await first.gone()
    second = PlayedMind(world, calls)
    await second.offer()
    await eventually(lambda: second.drives)
    # The call still runs; another process of the sandbox lets it go on.
    attempt = next(iter(world.executor.desk.attempts.values()))
    assert attempt._runner
    await attempt._runner._sandbox.put(_marker(Path(attempt.journal.folder)))
    row = await world.until(task_id, lambda row: row.result is not None)
    assert row.state == "completed", (row.reason, second.error)
    assert second.answers[0] == (
        {"ok": True, "exit_code": 0, "duration_s": pytest.approx(5, abs=60)},
        "once\n",
    )


def _marker(folder: Path) -> Path:
    from chorus.archives.clean import from_files

    path = folder / "go.tar"
    from_files({"go": b""}, path)
    return path


async def test_a_continued_run_begins_with_the_patch_and_the_story(world: World) -> None:
    first, mind = await reached(world, FIX, ("finish", {"ended_by": "steps", "reason": "used up"}))
    assert first.result["ended_by"] == "steps"
    await mind.gone()
    second, mind = await reached(
        world, ("read", {"path": "sum.sh"}), finish(), finish(), continues=first.task_id, title="Go on"
    )
    assert second.state == "completed", (second.reason, mind.error)
    assert "$1 + $2" in mind.answers[0][1]
    # This run changed nothing.
    assert "Nothing was changed" in mind.answers[1][1]
    told = await records(world, second.task_id)
    assert "It ended as failed (steps)" in told[0]["continues"]
    assert "edit path=sum.sh" in told[0]["continues"]
    # The patch is from the source as it was sent.
    assert await artifact(world, second.task_id, "patch.diff") == await artifact(
        world, first.task_id, "patch.diff"
    )


async def test_the_projects_file_fills_in_what_the_task_leaves_open(world: World) -> None:
    said = "checks: ['./test.sh']\nsetup: ['echo ready']\nenv: {WORD: given}\nprotected: ['test.sh']\n"
    files = {**SOURCE, ".chorus.yaml": said}
    row, mind = await reached(
        world, run("echo $WORD"), FIX, finish(), source={"kind": "inline", "files": files}, checks=[]
    )
    assert row.state == "completed", (row.reason, mind.error)
    assert mind.answers[0][1] == "given\n"
    told = await records(world, row.task_id)
    assert told[0]["taken"] == ["setup", "checks", "protected", "env.WORD"]
    assert [one["command"] for one in row.result["goal"]["checks"]] == ["./test.sh"]


async def test_a_projects_file_that_cannot_be_read_is_the_tasks_own_fault(world: World) -> None:
    files = {**SOURCE, ".chorus.yaml": "check: [x]\n"}
    row, _ = await reached(world, finish(), source={"kind": "inline", "files": files})
    assert (row.state, row.result["ended_by"]) == ("failed", "exit")
    assert ".chorus.yaml: check: unknown field" in row.reason


async def test_words_are_journaled_and_only_while_it_runs(world: World) -> None:
    mind = PlayedMind(world, [run("while [ ! -e go ]; do sleep 0.01; done")])
    await mind.offer()
    task_id = await world.submit(title="Wait", source={"kind": "inline", "files": SOURCE})
    named = {"task_id": task_id, "attempt": 1, "id": "m1", "text": "look here", "name": "Ada"}
    with pytest.raises(HubNotFound):
        await world.client.call_service("executor", "message", named)
    assert (await world.award(task_id))["accepted"]
    await eventually(lambda: mind.heads)
    for _ in range(2):
        await world.client.call_service("executor", "message", {**named, "from": "person"})
    with pytest.raises(HubNotPermitted):
        await world.client.call_service("session", "journal", {**named, "secret": "wrong", "from": 1})
    await world.propose("cancel", {"task_id": task_id, "by": "somebody"})
    await world.until(task_id, lambda row: row.result is not None)
    said = [record for record in await records(world, task_id) if record["kind"] == "message"]
    assert [(one["from"], one["name"], one["text"]) for one in said] == [("person", "Ada", "look here")]
    with pytest.raises(HubNotFound):
        await world.client.call_service("executor", "message", {**named, "id": "m2"})


async def test_words_from_other_members_are_a_peers_whatever_they_say_they_are(world: World) -> None:
    """Unless they come from the member that vouched for the task."""
    mind = PlayedMind(world, [run("while [ ! -e go ]; do sleep 0.01; done")])
    await mind.offer()
    await world.take_goals()
    voucher, other, stranger = (
        world.mesh.hub(name, "coordinator") for name in ("voucher", "other", "stranger")
    )
    for hub in (voucher, other):
        hub.agent.raft_id = await world.propose("join", {"peer": hub.peer_id, "agent_id": hub.peer_id})
    files = {"kind": "inline", "files": SOURCE}
    task_id = await world.submit(voucher, title="Wait", source=files)
    assert (await world.award(task_id))["accepted"]
    await eventually(lambda: mind.heads)

    async def say(hub: Any, id: str, service: str = "output", **claims: str) -> None:
        head = {"task_id": task_id, "attempt": 1, "id": id, "text": "stop that", "name": "Ada", **claims}
        await hub.request(world.peer, service, "message", head)

    await say(other, "1", **{"from": "person"})
    await say(other, "2")
    await say(voucher, "3", **{"from": "person"})
    # Somebody for whom that member does not vouch spoke through it.
    await say(voucher, "4", **{"from": "peer"})
    with pytest.raises(HubRefused, match="only members"):
        await say(stranger, "5")
    with pytest.raises(HubNotPermitted):
        await say(other, "6", "executor", **{"from": "person"})
    # An id that a peer took before is no way to keep a person's word out.
    await say(other, "same", **{"from": "person"})
    await say(voucher, "same", **{"from": "person"})
    await world.propose("cancel", {"task_id": task_id, "by": "somebody"})
    await world.until(task_id, lambda row: row.result is not None)
    said = [record for record in await records(world, task_id) if record["kind"] == "message"]
    assert [(one["id"], one["from"]) for one in said] == [
        *(("1", "peer"), ("2", "peer"), ("3", "person"), ("4", "peer"), ("same", "peer"), ("same", "person"))
    ]
