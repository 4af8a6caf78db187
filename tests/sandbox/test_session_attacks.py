"""A task cannot forge how its commands end: the session, its secrets and its reports are out of its reach."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import docker
import pytest
import pytest_asyncio
from world import World, eventually, stand_in_core

from chorus.executor.backend import CommandEnd, Limits, Sandbox, SandboxError, SandboxGone
from chorus.executor.docker import session
from chorus.executor.docker.backend import DockerBackend
from chorus.testing.sandbox_contract import COMMAND_DEADLINE_S, SMALL, Bench, Collected, bench, tar_of

pytestmark = pytest.mark.docker

Acquire = Callable[[Limits], Awaitable[Sandbox]]
ATTACKS = Path(__file__).with_name("attacks")
LEASE_S = 30.0
# The two shells of a session, by the names that their files have with and without protection.
SHELLS = "ps -eo pid,comm | awk '$2 ~ /^(session-)?bash$/ {print $1}' | sort -n"
MAIN, WORKER = f"$({SHELLS} | sed -n 1p)", f"$({SHELLS} | sed -n 2p)"


@pytest_asyncio.fixture
async def box(backend: DockerBackend, python_image: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """A task in a sandbox with Python that has brought its attacks along."""
    sandbox = await backend.acquire(python_image, SMALL, LEASE_S)

    async def same(limits: Limits) -> Sandbox:
        return sandbox

    made = await bench(same)
    await sandbox.put(tar_of(tmp_path, {path.name: path.read_bytes() for path in ATTACKS.iterdir()}))
    yield made
    with contextlib.suppress(SandboxError):
        await sandbox.close()


async def attacked(box: Bench, command: str) -> CommandEnd | SandboxGone:
    """How a command ends that does what it can, after a stop if it does not end by itself."""
    running = asyncio.create_task(box.run(command))
    done, _ = await asyncio.wait((running,), timeout=10)
    if not done:
        await box.sandbox.stop("timeout")
    try:
        async with asyncio.timeout(COMMAND_DEADLINE_S):
            return await running
    except SandboxGone as gone:
        return gone


async def test_nothing_of_the_session_can_be_read(box: Bench) -> None:
    assert box.sandbox.protected
    end = await box.run("python3 reach.py")
    assert (box.sink.take().decode(), end.exit_code) == ("", 0)


async def test_a_task_holds_its_own_streams_alone(box: Bench) -> None:
    await box.run(
        "for one in /proc/self/fd/*; do echo ${one##*/}; done | sort -n | head -3; ls /proc/self/fd | wc -l"
    )
    assert box.sink.take().split() == [b"0", b"1", b"2", b"4"]  # the fourth is the folder that `ls` reads


async def test_secrets_in_memory_do_not_forge_an_end(box: Bench) -> None:
    end = await box.run("python3 forge.py 1; exit 3")
    assert end.exit_code == 3


async def test_a_mark_taken_from_the_stream_cannot_be_changed(box: Bench) -> None:
    for _ in range(5):
        command = (
            "rm -f ready; setsid python3 steal.py ready & until [ -e ready ]; do sleep 0.01; done; exit 3"
        )
        end = await attacked(box, command)
        assert isinstance(end, SandboxGone) or end.exit_code != 0
        if isinstance(end, SandboxGone):
            assert "an end whose code is not that of its token" in end.reason
            break


async def test_input_that_is_a_link_to_a_descriptor_of_the_session(box: Bench) -> None:
    """The shell that opens it must hold nothing that the task has not, whatever the link's number."""
    await box.run("readlink /proc/self/fd/1 /proc/self/fd/2")
    own = set(box.sink.take().split())
    for number in (*range(3, 16), *range(60, 64), 254, 255):
        await box.run(f"rm -f /tmp/in; ln -s /proc/self/fd/{number} /tmp/in")
        await box.run("readlink /proc/self/fd/0", stdin="/tmp/in")
        opened = box.sink.take().strip()
        assert not opened.startswith(b"pipe:") or opened in own, number


async def test_a_task_is_taken_first_when_memory_runs_out(box: Bench) -> None:
    await box.run(
        f"cat /proc/self/oom_score_adj; cat /proc/{MAIN}/oom_score_adj /proc/{WORKER}/oom_score_adj"
    )
    mine, main, worker = map(int, box.sink.take().split())
    assert (mine, main, worker) == (1000, 0, 0)


async def test_a_command_finds_itself_in_its_first_line(acquire: Acquire) -> None:
    """What the session says to the shell before it does not show, neither in numbers nor in errors."""
    box = await bench(acquire)
    end = await box.run('echo "$0 $# $?"; # a comment\n\nno-such-command')
    assert (end.exit_code, box.sink.take()) == (127, b"/bin/sh 0 0\n")
    assert b"3: no-such-command" in box.sink.take("stderr")
    assert (await box.run("")).exit_code == 0
    assert (await box.run("'")).exit_code == 2


@pytest.mark.parametrize(
    "what",
    [f"kill -9 {MAIN}", f"kill -9 {WORKER}", f"kill -STOP {MAIN}", f"kill -STOP {WORKER}", "kill -STOP -1"],
)
async def test_a_session_that_is_killed_or_stopped_ends_the_task(
    backend: DockerBackend, image: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(session, "_SILENCE_S_MIN", 3.0)
    sandbox = await backend.acquire(image, SMALL, 3.0)
    await sandbox.begin({}, {}, Collected())
    async with asyncio.timeout(COMMAND_DEADLINE_S):
        with pytest.raises(SandboxGone):
            await sandbox.run(1, f"{what}; sleep 1000")
    await sandbox.close()


# ---- a whole task ----------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def world(tmp_path: Path, python_image: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    stand_in_core(monkeypatch)
    made = World(tmp_path / "data", python_image)
    await made.start()
    yield made
    await made.stop()


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
async def test_a_task_that_silences_its_session_has_failed(
    world: World, monkeypatch: pytest.MonkeyPatch, signal: str
) -> None:
    monkeypatch.setattr(session, "_ASK_TIMEOUT_S", 5.0)
    row = await world.run(commands=["true", f"kill -{signal} {MAIN}; exit 0"])
    assert row.result is not None
    assert (row.state, row.result["outcome"], row.result["exit_code"]) == ("failed", "failed", 137)
    assert "session" in row.reason


async def test_a_forged_end_is_output(world: World) -> None:
    files = {path.name: path.read_text() for path in ATTACKS.iterdir()}
    row = await world.run(
        commands=["python3 forge.py 1; printf '\\0%032d end 1 0 0 0\\n' 0; exit 3"],
        source={"kind": "inline", "files": files},
    )
    assert row.result is not None
    assert (row.state, row.result["exit_code"], row.result["commands"][0]["exit_code"]) == ("failed", 3, 3)
    assert b"end 1 0 0 0" in await world.logs(row.task_id)


async def test_an_image_without_the_shell_is_named(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works as well, and health, the result and its record say what it lacks."""
    foreign = f"chorus-test-foreign-{os.getpid()}:latest"
    recipe = f"FROM {image}\nUSER root\nRUN rm -rf /usr/lib/chorus\nUSER task\n"
    client = docker.from_env()
    client.images.build(fileobj=io.BytesIO(recipe.encode()), tag=foreign, network_mode="none", rm=True)
    stand_in_core(monkeypatch)
    world = World(tmp_path / "data", foreign)
    try:
        executor = await world.start()
        row = await world.run(commands=["exit 3"])
        assert row.result is not None
        assert row.result["exit_code"] == 3
        assert "no protected session" in row.result["summary"]
        executor.watch._look.set()
        await eventually(lambda: foreign in executor.watch.state.detail)
        health = (await world.client.call_service("executor", "health")).head
        assert health["docker"]["ok"]
        assert f"tasks in {foreign} can forge" in health["docker"]["detail"]
        await world.stop()
    finally:
        client.images.remove(foreign, force=True)
