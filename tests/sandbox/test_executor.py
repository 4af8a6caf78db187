"""The executor with real sandboxes: from the award to the decision record, and what goes wrong in between."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import docker
import orjson
import pytest
from world import AGENT, DEADLINE_S, World, eventually, stand_in_core

from chorus.executor import attempt, desk, workspace
from chorus.executor.docker.container import LABEL_PEER
from chorus.executor.docker.sandbox import DockerSandbox
from chorus.hub import HubNotFound
from chorus.wire.messages import COORDINATION, DECISIONS
from chorus.wire.secrets import seal_secrets

pytestmark = pytest.mark.docker


async def until_said(world: World, type: str) -> None:
    await eventually(lambda: any(said[2] == type for said in world.mesh.published))


async def test_a_task_from_award_to_record(world: World) -> None:
    row = await world.run(
        commands=["cat hello.txt; echo err >&2", "mkdir out; printf 42 > out/answer.txt"],
        source={"kind": "inline", "files": {"hello.txt": "hello\n"}},
        artifacts=["out/*.txt"],
    )
    assert row.state == "completed", row
    assert row.result is not None
    assert [command["exit_code"] for command in row.result["commands"]] == [0, 0]
    digest = hashlib.sha256(b"42").hexdigest()
    assert row.result["artifacts"] == [
        {"path": "out/answer.txt", "size": 2, "sha256": digest, "mode": "0644"}
    ]
    assert row.result["usage"]["cpu_s"] > 0
    await until_said(world, "task_complete")
    assert {(topic, type) for _, topic, type, _ in world.mesh.published} >= {
        (COORDINATION, "task_claim"),
        (COORDINATION, "task_progress"),
        (COORDINATION, "task_complete"),
        (DECISIONS, "decision_published"),
    }
    log = [entry["type"] for entry in world.mesh.agents[AGENT].log]
    assert log == ["task_started", "decision_published", "task_completed"]
    events = await world.events(row.task_id)
    assert [event["id"] for event in events] == [f"1-{n}" for n in range(1, len(events) + 1)]
    assert events[-1]["event"] == "end"
    assert events[-1]["data"]["state"] == "completed"
    assert await world.logs(row.task_id) == b"hello\n"
    assert await world.logs(row.task_id, "stderr") == b"err\n"
    assert await world.events(row.task_id, after=3) == events[3:]
    head = {"task_id": row.task_id, "attempt": 1, "path": "out/answer.txt"}
    async with await world.client.open_stream("output", "artifact", head) as stream:
        assert await stream.read_all(100) == b"42"
    decision = world.table.decisions().items[0]
    assert world.row(row.task_id).decision == decision.address
    reply = await world.client.call_service("executor", "decision", {"hash": decision.hash})
    assert hashlib.sha256(reply.payload).hexdigest() == decision.hash
    assert world.executor
    assert world.executor.room.outbox.items() == []


async def test_the_first_command_that_fails_ends_the_task(world: World) -> None:
    row = await world.run(commands=["true", "exit 7", "echo never"])
    assert (row.state, row.result and row.result["exit_code"]) == ("failed", 7)
    assert row.result is not None
    assert len(row.result["commands"]) == 2
    assert row.reason == "command 2 of 3 exited with 7"


async def test_a_timeout_keeps_the_artifacts(world: World) -> None:
    row = await world.run(commands=["echo part > part.txt; sleep 1000"], timeout_s=1, artifacts=["*.txt"])
    assert row.result is not None
    assert (row.state, row.result["ended_by"]) == ("failed", "timeout")
    assert [item["path"] for item in row.result["artifacts"]] == ["part.txt"]


async def test_a_cancel_reaches_the_sandbox(world: World) -> None:
    task_id = await world.submit(commands=["echo begun; sleep 1000"])
    assert (await world.award(task_id))["accepted"]
    await world.until(task_id, lambda row: row.state == "running")
    await world.propose("cancel", {"task_id": task_id, "by": "somebody"})
    row = await world.until(task_id, lambda row: row.result is not None)
    assert row.state == "cancelled"
    assert row.result is not None
    assert row.result["ended_by"] == "cancel"


async def test_secrets_are_given_and_cut(world: World) -> None:
    secret = "hunter2-hunter2"
    sealed = await seal_secrets(world.client, {"TOKEN": secret})
    row = await world.run(commands=[f'printf "%s|" "$TOKEN"; printf "{secret}"'], secrets=sealed)
    assert await world.logs(row.task_id) == b"[REDACTED:task-secret]|[REDACTED:task-secret]"
    assert row.result is not None
    assert secret not in str(row.result)


async def test_binary_output_and_split_characters(world: World) -> None:
    row = await world.run(commands=["printf '\\303'; sleep 0.3; printf '\\251\\377'", "printf '\\303'"])
    assert await world.logs(row.task_id) == b"\xc3\xa9\xff\xc3"
    outputs = [event["data"] for event in await world.events(row.task_id) if event["event"] == "output"]
    said = b"".join(
        base64.b64decode(data["base64"]) if "base64" in data else data["text"].encode() for data in outputs
    )
    assert said == b"\xc3\xa9\xff\xc3"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../out", tarfile.REGTYPE),
        ("/etc/x", tarfile.REGTYPE),
        ("link", tarfile.SYMTYPE),
        ("dev", tarfile.CHRTYPE),
    ],
)
async def test_a_hostile_archive_is_refused_by_name(world: World, name: str, kind: bytes) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.type = kind
        member.linkname = "../../etc/passwd"
        archive.addfile(member)
    assert world.executor
    blob = await world.executor.room.blobs.put_bytes(data.getvalue())
    row = await world.run(commands=["true"], source={"kind": "archive", "sha256": blob.sha256})
    assert row.state == "failed"
    assert name in row.reason


async def test_a_source_that_cannot_be_unpacked_is_its_own_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tried again it would fail again: the attempt is not given back."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
        archive.addfile(tarfile.TarInfo("a/b"))

    async def clean(source: Path, into: Path, *, bytes_max: int) -> None:
        # What is known to fail is refused before.
        await asyncio.to_thread(shutil.copy, source, into)

    monkeypatch.setattr("chorus.executor.workspace.confined.clean", clean)
    assert world.executor
    blob = await world.executor.room.blobs.put_bytes(data.getvalue())
    row = await world.run(commands=["true"], source={"kind": "archive", "sha256": blob.sha256})
    assert (row.state, row.attempt) == ("failed", 1)
    assert "the source was refused: unpacking" in row.reason


async def test_links_out_of_the_workspace_are_no_artifacts(world: World) -> None:
    row = await world.run(
        commands=["ln -s /etc/passwd leak; echo x > real; ln -s real inside; mkfifo pipe"], artifacts=["*"]
    )
    assert row.result is not None
    assert {item["path"] for item in row.result["artifacts"]} == {"real", "inside"}
    listed = await world.client.call_service("output", "artifacts", {"task_id": row.task_id, "attempt": 1})
    assert {item["path"] for item in listed.head["left_out"]} == {"leak", "pipe"}


ODD_FILES = r"""
mkdir out && cd out
echo good > good && chmod 750 good
echo x > secret && chmod 000 secret
mkdir closed && echo x > closed/inside && chmod 000 closed
ln -s "$(printf '\377')" link; ln -s /etc/passwd leak; ln -s nothing dangling; mkfifo pipe
echo x > "$(printf 'latin-\351')"; echo x > "$(printf 'two\nlines')"
echo same > one; ln one two
echo x > pax_global_header
echo x > old; touch -d @-99999999 old; echo x > far; touch -d @253402300800 far
echo x > "$(head -c 255 /dev/zero | tr '\0' n)"
d=$(head -c 200 /dev/zero | tr '\0' d); deep=$(for i in $(seq 15); do printf /%s $d; done)
mkdir -p p$deep q$deep; echo x > p$deep/lost; mv p q$deep/p
"""


async def test_one_odd_artifact_loses_no_other(world: World) -> None:
    """Each comes out or is named, and the commands are run once."""
    row = await world.run(commands=[ODD_FILES], artifacts=["out", "*.xml"])
    assert (row.state, row.attempt) == ("completed", 1), row.reason
    assert row.result is not None
    kept = {item["path"].removeprefix("out/"): item["mode"] for item in row.result["artifacts"]}
    assert kept.pop("n" * 255)
    assert sorted(kept) == ["far", "good", "old", "one", "pax_global_header", "two"]
    assert kept["good"] == "0750"
    left_out = {item["path"].removeprefix("out/"): item["reason"] for item in row.result["left_out"]}
    [deep] = [path for path in left_out if path.startswith("q/" + "d" * 200)]
    assert "its path is longer" in left_out.pop(deep)
    assert left_out == {
        "secret": "it cannot be read",
        "closed": "a folder that cannot be read",
        "link": "a link out of the workspace or to nothing: ?",
        "leak": "a link out of the workspace or to nothing: /etc/passwd",
        "dangling": "a link out of the workspace or to nothing: nothing",
        "pipe": "neither file, folder nor link",
        r"latin-\xe9": "its name is not UTF-8",
        r"two\nlines": "its name holds control characters",
        "*.xml": "no file fits this pattern",
    }
    assert "Left out of the artifacts: " in row.result["summary"]


async def test_a_list_too_long_for_an_entry_travels_as_a_blob(world: World) -> None:
    row = await world.run(
        commands=["i=0; while [ $i -lt 1500 ]; do : > $(printf %0150d $i); i=$((i+1)); done"], artifacts=["*"]
    )
    assert (row.state, row.attempt) == ("completed", 1), row.reason
    assert row.result is not None
    assert row.result["artifacts"] == []
    blob = row.result["artifacts_blob"]
    assert blob["count"] == 1500
    assert world.executor
    listed = orjson.loads(world.executor.room.blobs.path(blob["sha256"]).read_bytes())
    assert len(listed["artifacts"]) == 1500
    use = world.table.blob_use(blob["sha256"])
    assert use is not None
    assert not use.unfinished
    await until_said(world, "task_complete")
    [entry] = [e for e in world.mesh.entries if e.head["type"] == "decision"]
    assert orjson.loads(entry.payload)["kind"] == "task_result"


@pytest.mark.parametrize("broken", [OSError(28, "No space left on device"), TypeError("a mistake")])
async def test_what_breaks_after_the_commands_runs_nothing_again(
    world: World, monkeypatch: pytest.MonkeyPatch, broken: Exception
) -> None:
    def fail(*_: object) -> None:
        raise broken

    assert world.executor
    monkeypatch.setattr(world.executor.room.outbox, "put", fail)
    monkeypatch.setattr("chorus.executor.workspace.choose_artifacts", fail)
    monkeypatch.setattr("chorus.executor.result._usage_view", fail)
    monkeypatch.setattr("chorus.executor.output.OutputGate.finish", fail)
    monkeypatch.setattr("chorus.executor.docker.sandbox.DockerSandbox.usage", fail)
    row = await world.run(commands=["echo once"], artifacts=["*"])
    assert (row.state, row.attempt) == ("completed", 1), row.reason
    assert await world.logs(row.task_id) == b"once\n"


async def test_a_kill_while_artifacts_are_collected_runs_nothing_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    collecting, never = asyncio.Event(), asyncio.Event()

    async def collect(*_: object) -> None:
        collecting.set()
        await never.wait()

    monkeypatch.setattr("chorus.executor.workspace.collect", collect)
    task_id = await world.submit(commands=["exit 3"], artifacts=["*"])
    await world.award(task_id)
    await collecting.wait()
    await world.crash()
    await world.start()
    row = await world.until(task_id, lambda row: not row.open)
    assert (row.state, row.attempt) == ("failed", 1)
    assert "the executor was restarted while the artifacts were collected" in row.reason
    assert row.result is not None
    assert row.result["exit_code"] == 3


async def test_a_lease_lost_while_artifacts_are_collected_keeps_the_result(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = workspace.collect

    async def slowly(*arguments: Any) -> workspace.Artifacts:
        assert world.executor
        world.executor.desk.stop_all("lost", "the lease is over")
        return await collect(*arguments)

    monkeypatch.setattr("chorus.executor.workspace.collect", slowly)
    row = await world.run(commands=["echo 1 > a"], artifacts=["*"])
    assert (row.state, row.attempt) == ("completed", 1), row.reason


async def test_a_task_that_is_removed_by_hand_leaves_its_record(world: World) -> None:
    row = await world.run(commands=["echo 1 > a"], artifacts=["a"])
    await until_said(world, "task_complete")
    assert world.executor
    retention, folder = world.executor.retention, world.settings.paths.tasks / row.task_id
    await eventually(lambda: row.task_id not in world.executor._busy())  # type: ignore[union-attr]
    assert await retention.sweep() == []
    assert folder.is_dir()
    await world.propose("remove", {"task_id": row.task_id, "by": "alice"})
    await eventually(lambda: not folder.exists())
    with pytest.raises(HubNotFound, match=r"^gone: its output and artifacts were removed by hand"):
        await world.logs(row.task_id)
    [entry] = [orjson.loads(e.payload) for e in world.mesh.entries if e.head["type"] == "decision"]
    reply = await world.client.call_service("executor", "decision", {"hash": entry["hash"]})
    assert orjson.loads(reply.payload)["task_id"] == row.task_id


async def test_a_gigabyte_of_output_is_cut_and_costs_no_memory(world: World) -> None:
    before = _resident()
    row = await world.run(commands=["head -c 1000000000 /dev/zero | tr '\\0' 'x'; echo end >&2"])
    grown = _resident() - before
    assert row.state == "completed"
    kept = await world.logs(row.task_id)
    assert 60 << 20 < len(kept) < 65 << 20
    assert b"bytes of stdout were cut here" in kept[-100:]
    assert any(event["event"] == "gap" for event in await world.events(row.task_id))
    assert grown < 200 << 20


async def test_a_sandbox_that_ends_itself_is_the_tasks_own_doing(world: World) -> None:
    row = await world.run(commands=["kill -9 -1"])
    assert row.result is not None
    assert (row.state, row.result["ended_by"]) == ("failed", "exit")
    assert "killed" in row.reason


async def test_a_guessed_language_without_an_image_runs_in_base(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = "localhost:1/chorus/node:latest"
    world.settings.sandbox.images["node"] = nowhere
    row = await world.run(commands=["true"], title="from a JavaScript member")
    assert row.state == "completed"
    # A pull that fails only after the award was taken.
    monkeypatch.setattr(desk, "PULL_PATIENCE_S", 0.0)
    row = await world.run(commands=["true"], title="from a JavaScript member")
    assert row.state == "completed"
    task_id = await world.submit(commands=["true"], language="js")
    monkeypatch.setattr(desk, "PULL_PATIENCE_S", 60.0)
    answer = await world.award(task_id)
    assert not answer["accepted"]
    assert nowhere in answer["reason"]


async def test_what_cannot_be_taken_is_declined_with_a_reason(world: World) -> None:
    for fields, reason in (
        ({"description": "do something"}, "no model"),
        ({"commands": ["true"], "language": "cobol"}, "no sandbox image for language 'cobol'"),
    ):
        task_id = await world.submit(**fields)
        answer = await world.award(task_id)
        assert not answer["accepted"]
        assert reason in answer["reason"]
        row = await world.until(task_id, lambda row: row.agent is None)
        assert reason in row.reason


async def test_a_refused_renewal_ends_the_attempt(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_core(monkeypatch)
    monkeypatch.setattr(attempt, "_REMOVAL_DELAY_S", 2 * DEADLINE_S)
    world = World(tmp_path / "data", image, lease_s=3.0)
    await world.start()
    task_id = await world.submit(commands=["sleep 1000"])
    await world.award(task_id)
    world.refuse_renewals = True
    row = await world.until(task_id, lambda row: row.lost == 1)
    assert "took the attempt back" in row.reason
    assert world.renewals == 1
    # Only a result is worth a delay.
    await eventually(lambda: not containers(world))
    await world.stop()


def is_there(client: docker.APIClient, container: str) -> bool:
    """Whether a listed container exists: Docker may go on listing one that was removed just as it ended."""
    try:
        client.inspect_container(container)
    except docker.errors.NotFound:
        return False
    return True


def containers(world: World) -> list[str]:
    """The ids of the sandboxes that the world's executor has."""
    client = docker.from_env().api
    label = {"label": f"{LABEL_PEER}={world.peer}"}
    return [c["Id"] for c in client.containers(all=True, filters=label) if is_there(client, c["Id"])]


@pytest.mark.parametrize(("after_hang", "cause"), [(False, None), (True, "unresponsive")])
async def test_a_restarted_executor_gives_back_what_ran(
    world: World, after_hang: bool, cause: str | None
) -> None:
    task_id = await world.submit(commands=["sleep 1000"])
    await world.award(task_id)
    await world.until(task_id, lambda row: row.state == "running")
    await world.crash()
    await world.start(after_hang=after_hang)
    row = await world.until(task_id, lambda row: row.lost == 1)
    assert "restarted" in row.reason
    [release] = [orjson.loads(e.payload) for e in world.mesh.entries if e.head["type"] == "release"]
    assert release.get("cause") == cause
    await eventually(lambda: not containers(world))


async def test_the_first_command_is_sent_before_the_start_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    run, propose = DockerSandbox.run, attempt.propose

    async def noted_run(self: DockerSandbox, *arguments: Any, **more: Any) -> Any:
        order.append("command")
        return await run(self, *arguments, **more)

    async def noted_propose(hub: Any, type: str, *rest: Any, **more: Any) -> Any:
        order.append(type)
        return await propose(hub, type, *rest, **more)

    monkeypatch.setattr(DockerSandbox, "run", noted_run)
    monkeypatch.setattr(attempt, "propose", noted_propose)
    row = await world.run(commands=["true"])
    assert row.state == "completed"
    assert order == ["claim", "command", "started"]


async def test_a_sandbox_waits_for_its_result_and_outlives_no_restart(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing: list[str] = []
    close = DockerSandbox.close

    async def noted(self: DockerSandbox) -> None:
        closing.append(self.container)
        await close(self)

    monkeypatch.setattr(DockerSandbox, "close", noted)
    monkeypatch.setattr(attempt, "_REMOVAL_DELAY_S", DEADLINE_S)
    row = await world.run(commands=["true"])
    assert row.state == "completed"
    await until_said(world, "task_complete")
    assert closing == []
    assert containers(world)
    await world.crash()
    await world.start()
    await eventually(lambda: not containers(world))


async def test_results_outlive_a_restart(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = await world.submit(commands=["true"])
    await world.award(task_id)
    await world.until(task_id, lambda row: row.state in ("claimed", "running", "completed"))
    await world.coordinator.close()
    assert world.executor
    outbox = world.executor.room.outbox
    await eventually(lambda: outbox.items() or not world.row(task_id).open)
    await world.crash()
    world.coordinator = world.mesh.hub(AGENT, "coordinator")
    await world.start()
    row = await world.until(task_id, lambda row: not row.open)
    assert row.state == "completed"


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0
