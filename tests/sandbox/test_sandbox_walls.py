"""The walls of a sandbox beside its session: system calls, privileges, what the kernel shows, and limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import docker
import pytest

from chorus.executor.backend import Limits, Sandbox
from chorus.executor.docker.backend import DockerBackend
from chorus.testing.sandbox_contract import MIB, SMALL, Bench, bench, tar_of

pytestmark = pytest.mark.docker

Acquire = Callable[[Limits], Awaitable[Sandbox]]
ATTACKS = Path(__file__).with_name("attacks")
# A compiler takes more than the small task of the contract has.
ROOMY = Limits(cpus=1.0, memory_bytes=512 * MIB, pids=64, disk_bytes=64 * MIB)


async def with_python(backend: DockerBackend, python_image: str, folder: Path) -> Bench:
    sandbox = await backend.acquire(python_image, ROOMY, 30.0)

    async def same(limits: Limits) -> Sandbox:
        return sandbox

    made = await bench(same)
    await sandbox.put(tar_of(folder, {path.name: path.read_bytes() for path in ATTACKS.iterdir()}))
    return made


async def test_calls_that_a_sandbox_does_not_have(
    backend: DockerBackend, python_image: str, tmp_path: Path
) -> None:
    box = await with_python(backend, python_image, tmp_path)
    end = await box.run("python3 calls.py /tmp/program")
    said = box.sink.take().decode().splitlines()
    assert end.exit_code == 0, box.sink.take("stderr").decode()
    assert len(said) >= 20
    assert [line for line in said if not line.endswith(": refused")] == []
    await box.sandbox.close()


async def test_ordinary_programs_work(backend: DockerBackend, python_image: str, tmp_path: Path) -> None:
    box = await with_python(backend, python_image, tmp_path)
    end = await box.run("python3 ordinary.py")
    assert (box.sink.take(), end.exit_code) == (b"all of it works\n", 0), box.sink.take("stderr").decode()
    await box.sandbox.close()


async def test_no_privileges_and_none_to_gain(acquire: Acquire) -> None:
    box = await bench(acquire)
    await box.run("grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status")
    said = dict(line.split(":\t", 1) for line in box.sink.take().decode().splitlines())
    assert {int(value, 16) for name, value in said.items() if name.startswith("Cap")} == {0}
    assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")
    assert "0" not in said["Groups"].split()


async def test_what_the_kernel_does_not_show(acquire: Acquire) -> None:
    box = await bench(acquire)
    await box.run(
        "cat /proc/keys /proc/kcore /proc/timer_list /proc/latency_stats 2>/dev/null; ls /sys/firmware"
    )
    assert box.sink.take() == b""
    for change in (
        "echo x > /proc/sys/kernel/domainname",
        "echo h > /proc/sysrq-trigger",
        "echo 0 > /sys/fs/cgroup/cgroup.procs",
        "mkdir /sys/fs/cgroup/x",
        "mknod /tmp/disk b 8 0",
        "touch /dev/x",
        "dmesg",
    ):
        assert (await box.run(change)).exit_code != 0, change
    await box.run("find /dev -type b; find / -path /proc -prune -o -type d -writable -print 2>/dev/null")
    assert set(box.sink.take().split()) == {b"/tmp", b"/workspace", b"/dev/shm", b"/dev/mqueue"}


async def test_limits_of_processes_and_files(acquire: Acquire) -> None:
    box = await bench(acquire)
    await box.run("ulimit -c; ulimit -n")
    assert box.sink.take().split() == [b"0", b"4096"]
    host = docker.from_env().containers.get(box.sandbox.container).attrs["HostConfig"]  # type: ignore[attr-defined]
    assert host["PidsLimit"] == SMALL.pids + 8
    assert host["Memory"] == host["MemorySwap"] == SMALL.memory_bytes + SMALL.disk_bytes + 16 * MIB
    assert not any(
        host[name] for name in ("Binds", "Devices", "CapAdd", "PidMode", "UsernsMode", "VolumesFrom")
    )


async def test_process_1_is_the_one_that_waits_for_the_session(acquire: Acquire) -> None:
    """Also where the daemon puts an init of its own before it by default."""
    box = await bench(acquire)
    await box.run("cat /proc/1/comm; ps -eo comm= | sort | uniq -c | grep -c init")
    assert box.sink.take().split()[:2] == [b"session-cat", b"0"]
    attributes = docker.from_env().containers.get(box.sandbox.container).attrs  # type: ignore[attr-defined]
    assert attributes["HostConfig"]["Init"] is False
