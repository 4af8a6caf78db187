"""The contract of a sandbox backend: what every backend must pass, whatever it is made of.

Subclass `SandboxContract`, give it a fixture `acquire` that returns a clean sandbox for some limits, and
pytest does
the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

from chorus.executor.backend import CommandEnd, GroupEnd, Limits, Sandbox, SandboxError, Stream

Acquire = Callable[[Limits], Awaitable[Sandbox]]

MIB = 1024 * 1024
SMALL = Limits(cpus=1.0, memory_bytes=128 * MIB, pids=32, disk_bytes=64 * MIB)
# A command of the contract that has not ended by then never will.
COMMAND_DEADLINE_S = 120.0


class Collected:
    """A sink that keeps what it is given, up to a bound, and counts the rest."""

    def __init__(self, keep: int = 64 * MIB) -> None:
        self.streams: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self.total = 0
        self.ended: list[int] = []
        self.wrote = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._keep = keep

    def write(self, stream: Stream, command: int, data: bytes) -> None:
        """Takes bytes of a command."""
        self.total += len(data)
        self._loop.call_soon_threadsafe(self.wrote.set)
        if len(self.streams[stream]) < self._keep:
            self.streams[stream] += data

    def end(self, command: int) -> None:
        """A command's output is whole."""
        self.ended.append(command)

    def take(self, stream: Stream = "stdout") -> bytes:
        """What came since the last take."""
        data = bytes(self.streams[stream])
        self.streams[stream].clear()
        return data


class Bench:
    """One sandbox under test, with its sink and a running number of commands."""

    def __init__(self, sandbox: Sandbox, sink: Collected) -> None:
        self.sandbox = sandbox
        self.sink = sink
        self._number = 0

    async def run(self, command: str, **how: str) -> CommandEnd:
        """Runs the next command."""
        self._number += 1
        async with asyncio.timeout(COMMAND_DEADLINE_S):
            end = await self.sandbox.run(self._number, command, **how)
        assert self.sink.ended[-1:] == [self._number], "all output comes before the end"
        return end

    async def group(
        self,
        command: str,
        *,
        timeout_s: float = COMMAND_DEADLINE_S,
        heard: asyncio.Event | None = None,
        keep: int = 64 * MIB,
        workdir: str = "/workspace",
    ) -> tuple[GroupEnd, bytes]:
        """Runs the next command in a group of its own; its end and its output. `heard` is set by output."""
        self._number += 1
        said, loop = bytearray(), asyncio.get_running_loop()

        def take(data: bytes) -> None:
            said.extend(data[: keep - len(said)])
            if heard is not None:
                loop.call_soon_threadsafe(heard.set)

        async with asyncio.timeout(COMMAND_DEADLINE_S):
            end = await self.sandbox.run_group(
                self._number, command, take, timeout_s=timeout_s, workdir=workdir
            )
        return end, bytes(said)


async def bench(
    acquire: Acquire, limits: Limits = SMALL, env: Mapping[str, str] | None = None, keep: int = 64 * MIB
) -> Bench:
    """A sandbox that has begun a task."""
    sandbox = await acquire(limits)
    sink = Collected(keep)
    await sandbox.begin({}, env or {}, sink)
    return Bench(sandbox, sink)


def tar_of(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A tar archive of some files."""
    path = folder / "in.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(data))
    return path


class SandboxContract:
    """The tests. All that a task may do to its sandbox ends with a name, and the sandbox says it."""

    async def test_exit_codes_and_streams_are_exact(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        end = await box.run("printf out; printf err >&2; exit 3")
        assert (end.exit_code, end.ended_by) == (3, "exit")
        assert (box.sink.take(), box.sink.take("stderr")) == (b"out", b"err")
        assert (await box.run("kill -TERM $$")).exit_code == 143
        assert (await box.run("true")).exit_code == 0

    async def test_commands_share_files_but_no_shell(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        await box.run("cd /tmp; leak=1; export leak; set -f; echo hello > /workspace/file")
        await box.run('pwd; echo "${leak-none}"; cat file')
        assert box.sink.take() == b"/workspace\nnone\nhello\n"

    async def test_environment_and_stdin_arrive_byte_for_byte(self, acquire: Acquire, tmp_path: Path) -> None:
        value = "a'b\"c\\d\n\té€😀 $HOME `id` "
        box = await bench(acquire, env={"VALUE": value, "nonce": "mine", "line": "x", "IFS": ":"})
        await box.run('printf %s "$VALUE$nonce$line"')
        assert box.sink.take().decode() == value + "minex"
        data = os.urandom(100_000)
        await box.sandbox.put(tar_of(tmp_path, {"stdin": data}), "/tmp")
        await box.run("cat", stdin="/tmp/stdin")
        assert box.sink.take() == data

    async def test_workdir_is_where_a_command_runs(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        await box.run("mkdir -p 'a b/c'")
        await box.run("pwd", workdir="/workspace/a b/c")
        assert box.sink.take() == b"/workspace/a b/c\n"
        assert (await box.run("pwd", workdir="/workspace/missing")).exit_code == 126

    async def test_twenty_megabytes_go_in_and_out_unchanged(self, acquire: Acquire, tmp_path: Path) -> None:
        box = await bench(acquire)
        data = os.urandom(20 * MIB)
        await box.sandbox.put(tar_of(tmp_path, {"data": data}))
        await box.run("sha256sum < data; cp data copy")
        assert box.sink.take().split()[0].decode() == hashlib.sha256(data).hexdigest()
        await box.run("cat copy")
        assert box.sink.take() == data
        listed = {entry.path: entry for entry in await box.sandbox.files()}
        assert listed["copy"].kind == "file"
        assert listed["copy"].size == len(data)
        await box.sandbox.get(["copy"], tmp_path / "out.tar", bytes_max=32 * MIB)
        with tarfile.open(tmp_path / "out.tar") as archive:
            member = archive.extractfile("./copy")
            assert member is not None
            assert member.read() == data

    async def test_more_than_asked_for_is_not_taken_out(self, acquire: Acquire, tmp_path: Path) -> None:
        box = await bench(acquire)
        await box.run("head -c 3000000 /dev/zero > grown")
        packed = tmp_path / "out.tar"
        with contextlib.suppress(SandboxError):
            await box.sandbox.get(["grown"], packed, bytes_max=MIB)
            raise AssertionError("more than was allowed came out")
        assert packed.stat().st_size <= MIB

    async def test_files_are_listed_as_what_they_are(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        await box.run("mkdir d; mkfifo p; ln -s /etc/passwd l; printf xy > 'd/two words\n'")
        listed = {entry.path: entry for entry in await box.sandbox.files()}
        assert {path: entry.kind for path, entry in listed.items()} == {
            "d": "directory",
            "p": "other",
            "l": "link",
            "d/two words\n": "file",
        }
        assert listed["l"].target == "/etc/passwd"

    async def test_an_endless_line_and_a_flood_pass_through(self, acquire: Acquire) -> None:
        box = await bench(acquire, keep=MIB)
        end = await box.run("head -c 200000000 /dev/zero | tr '\\0' x")
        assert end.exit_code == 0
        assert box.sink.total == 200_000_000

    async def test_nothing_of_the_host_is_there(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        await box.run("id -u; grep -c : /proc/net/dev; ls /sys/class/net; grep CapEff /proc/self/status")
        words = box.sink.take().split()
        assert words[0] != b"0"
        assert words[2:3] == [b"lo"]
        assert int(words[-1], 16) == 0
        for attempt in (
            "touch /etc/x",
            "touch /usr/x",
            "mount -t tmpfs x /mnt",
            "chroot / true",
            "ls /var/run/docker.sock",
        ):
            assert (await box.run(attempt)).exit_code != 0

    async def test_a_killed_group_is_the_command_alone(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        assert (await box.run("kill -9 0")).exit_code == 137
        await box.run("echo on")
        assert box.sink.take() == b"on\n"

    async def test_a_stop_kills_the_whole_tree(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        running = asyncio.create_task(
            box.run("(setsid sh -c 'trap \"\" TERM; sleep 1000' &) ; nohup sleep 1000 & echo go; sleep 1000")
        )
        async with asyncio.timeout(COMMAND_DEADLINE_S):
            await box.sink.wrote.wait()
        await box.sandbox.stop("timeout")
        end = await running
        assert (end.ended_by, end.exit_code) == ("timeout", 137)

    async def test_orphans_are_reaped(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        for _ in range(6):
            end = await box.run("for i in 1 2 3 4 5 6 7 8; do (sleep 0.01 &); done; sleep 0.1")
            assert end.exit_code == 0
        await box.run("cat /proc/[0-9]*/stat 2>/dev/null | cut -d' ' -f3 | sort | uniq -c | grep Z; true")
        assert box.sink.take() == b""

    async def test_a_memory_bomb_is_named(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        end = await box.run("head -c 1000000000 /dev/zero | tail")
        assert (end.ended_by, end.exit_code != 0) == ("out_of_memory", True)
        assert "resources.memory_mb" in end.note
        assert (await box.run("true")).exit_code == 0

    async def test_a_fork_bomb_is_contained_and_named(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        end = await box.run("i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done")
        assert end.ended_by == "pids"
        assert "resources.pids" in end.note
        await box.sandbox.stop("exit")

    async def test_a_wild_fork_bomb_can_be_stopped(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        running = asyncio.create_task(box.run("b() { b | b & }; b; sleep 1000"))
        await asyncio.sleep(1)
        await box.sandbox.stop("timeout")
        assert (await running).ended_by in ("timeout", "pids")

    async def test_a_full_disk_is_named(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        end = await box.run("head -c 1000000000 /dev/zero > filler")
        assert (end.ended_by, end.exit_code != 0) == ("disk", True)
        assert (await box.run("rm filler; echo fine > small")).exit_code == 0

    async def test_both_folders_full_is_the_disk_too(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        fill = "head -c 63000000 /dev/zero > a; head -c 63000000 /dev/zero > /tmp/b"
        end = await box.run(f"{fill}; head -c 90000000 /dev/zero | tail")
        assert (end.ended_by, end.exit_code != 0) == ("disk", True)

    async def test_full_shared_memory_is_named(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        await box.run("df -B1 --output=size /dev/shm | tail -1")
        assert int(box.sink.take()) == SMALL.disk_bytes
        end = await box.run("head -c 1000000000 /dev/zero > /dev/shm/filler")
        assert (end.ended_by, end.exit_code != 0) == ("disk", True)
        assert "/dev/shm of 64 MiB" in end.note
        end = await box.run("rm /dev/shm/filler; kill -BUS $$")
        assert (end.ended_by, end.exit_code) == ("exit", 135)
        assert "/dev/shm has 64 MiB" in end.note

    async def test_localhost_and_the_own_name_resolve(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        await box.run("getent ahosts localhost; getent ahosts $(hostname); getent hosts ::1")
        addresses = [line.split()[0] for line in box.sink.take().splitlines()]
        assert set(addresses) == {b"127.0.0.1", b"::1"}
        # What listens at ::1 is reached there; without IPv6 on the interface the address could not be used.
        assert (await box.run("grep -q '^0*1 .* lo$' /proc/net/if_inet6")).exit_code == 0
        assert (await box.run("getent ahosts example.com")).exit_code != 0

    # ---- commands with a process group of their own ----------------------------------------------

    async def test_a_group_has_its_output_in_order_and_its_exit_code(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        end, said = await box.group("printf 'a\\0'; printf b >&2; printf 'c\\377'; exit 3")
        assert (end.exit_code, end.ended_by, said, end.size) == (3, "exit", b"a\0bc\xff", 5)
        end, said = await box.group("true")
        assert (end.exit_code, end.ended_by, said, end.size) == (0, "exit", b"", 0)
        end, said = await box.group("pwd", workdir="/workspace/missing")
        assert (end.exit_code, said) == (126, b"no such directory: /workspace/missing\n")
        assert box.sink.total == 0

    async def test_the_output_of_a_group_is_whole_however_long_it_is(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        for size in (1, 2047, 2048, 2049, 70_000):
            end, said = await box.group(f"head -c {size} /dev/zero | tr '\\0' '\\251'")
            assert (end.size, said) == (size, b"\xa9" * size)
            end, said = await box.group(f"echo; head -c {size} /dev/zero; echo é")
            assert (end.size, said) == (size + 4, b"\n" + bytes(size) + "é\n".encode())

    async def test_a_group_puts_nothing_in_the_place_of_its_output(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        for other in ("mkfifo {}", "ln -s /workspace {}", "ln -s /dev/zero {}", "mkdir {}", "true {}"):
            place = "file=$(echo /tmp/.chorus/*); rm -f $file; "
            end, _ = await box.group(f"{place}{other.format('$file')}; echo done")
            assert (end.exit_code, end.size) == (0, 5)
            assert (await box.group("rm -rf /tmp/.chorus/*; true"))[0].exit_code == 0

    async def test_a_group_ends_with_its_command(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        end, said = await box.group("sleep 1000 >/dev/null 2>&1 & echo $!")
        assert end.exit_code == 0
        # What was killed has to be taken away by process 1, a moment later.
        end, _ = await box.group(f"while kill -0 {int(said)} 2>/dev/null; do sleep 0.01; done")
        assert (end.timed_out, end.exit_code) == (False, 0)

    async def test_what_left_the_group_lives_on_unheard(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        wait = "while [ ! -e {} ]; do sleep 0.01; done"
        left = f"setsid sh -c 'touch up; {wait.format('go')}; echo late; touch done; exec sleep 1000' &"
        _, said = await box.group(f"{left} {wait.format('up')}; echo first")
        assert said == b"first\n"
        lives = 'while [ "$(pgrep -x sleep | wc -l)" != 1 ]; do sleep 0.01; done'
        end, said = await box.group(f"touch go; {wait.format('done')}; echo second; {lives}")
        assert (end.timed_out, end.exit_code, said) == (False, 0, b"second\n")

    async def test_a_time_limit_ends_the_group_alone(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        end, said = await box.group("setsid sleep 1000 & echo on; sleep 1000", timeout_s=1)
        assert (end.timed_out, end.exit_code, end.ended_by, said) == (True, 137, "exit", b"on\n")
        end, _ = await box.group('while [ "$(pgrep -x sleep | wc -l)" != 1 ]; do sleep 0.01; done')
        assert (end.timed_out, end.exit_code) == (False, 0)

    async def test_the_output_of_a_group_comes_while_it_runs_and_stays_in_its_file(
        self, acquire: Acquire
    ) -> None:
        box = await bench(acquire)
        heard = asyncio.Event()
        running = asyncio.create_task(
            box.group("echo go; while [ ! -e on ]; do sleep 0.01; done; seq 100000", heard=heard)
        )
        async with asyncio.timeout(COMMAND_DEADLINE_S):
            await heard.wait()
        # The session takes requests while a command runs.
        await box.sandbox.put(tar_of(Path(tempfile.mkdtemp()), {"on": b""}))
        end, said = await running
        numbers = b"".join(b"%d\n" % number for number in range(1, 100_001))
        assert said == b"go\n" + numbers
        assert end.size == len(said)
        _, again = await box.group(f"cat {end.file}")
        assert again == said
        await box.sandbox.forget([end.file])
        assert (await box.group(f"cat {end.file}"))[0].exit_code != 0

    async def test_a_flood_ends_its_group(self, acquire: Acquire) -> None:
        box = await bench(acquire, replace(SMALL, disk_bytes=256 * MIB))
        end, said = await box.group("head -c 100000000 /dev/zero; sleep 1000", keep=MIB)
        assert (end.cut, end.exit_code, said) == (True, 137, bytes(MIB))

    async def test_a_stop_ends_a_group_with_its_output_kept(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        heard = asyncio.Event()
        running = asyncio.create_task(box.group("echo go; sleep 1000", heard=heard))
        async with asyncio.timeout(COMMAND_DEADLINE_S):
            await heard.wait()
        await box.sandbox.stop("cancel")
        end, said = await running
        assert (end.ended_by, end.exit_code, said) == ("cancel", 137, b"go\n")

    async def test_a_memory_bomb_of_a_group_is_named(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        end, _ = await box.group("head -c 1000000000 /dev/zero | tail")
        assert (end.ended_by, end.exit_code != 0) == ("out_of_memory", True)
        assert (await box.group("true"))[0].exit_code == 0

    async def test_usage_is_counted(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        await box.run("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
        used = await box.sandbox.usage()
        assert used.cpu_s > 0
        assert used.memory_peak_bytes > 0

    async def test_closing_twice_is_fine(self, acquire: Acquire) -> None:
        box = await bench(acquire)
        await box.sandbox.close()
        await box.sandbox.close()
