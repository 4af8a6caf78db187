"""The wheel: what is in it, and that pip alone installs it in Debian userlands with nothing but Python."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import OFFLINE, PREFIX, ROOT, SOCKET, docker, published, run, script, until
from .readme import commands
from .test_compose import TOKEN

pytestmark = [pytest.mark.deploy, pytest.mark.heavy]

# Releases of Debian and the Python of each.
SUITES = {"bookworm": "3.11", "trixie": "3.13"}
VENV = "/opt/chorus"
PID, LOG = "/run/agent.pid", "/var/log/agent.log"
NETWORK = f"{PREFIX}-mesh"
# What a package without a wheel would want.
COMPILERS = ("cc", "gcc", "clang", "rustc", "cargo", "make", "protoc")


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The wheel that `make wheel` builds."""
    return ROOT / script("wheel.sh").splitlines()[-1]


def test_it_says_what_it_is_made_of_and_nothing_of_this_machine(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    (sbom,) = (json.loads(content) for name, content in files.items() if "/sboms/" in name)
    parts = {part["purl"].partition("@")[0] for part in sbom["components"]}
    assert {"pkg:cargo/chorus_core", "pkg:cargo/libp2p", "pkg:cargo/raft", "pkg:cargo/age"} <= parts
    # Crates of other systems, and what only builds or tests, are not in it.
    assert not {part for part in parts if part.startswith(("pkg:cargo/windows", "pkg:cargo/proptest"))}
    licences = "".join(content.decode() for name, content in files.items() if "/licenses/" in name)
    assert "Apache License" in licences
    assert "libp2p-noise 0." in licences
    for folder in {str(ROOT), str(Path.home()), str(Path(sys.prefix))}:
        assert not [name for name, content in files.items() if folder.encode() in content], folder


def test_two_builds_of_one_commit_are_equal(tmp_path: Path) -> None:
    checkouts = [tmp_path / name / "checkout" for name in ("one", "two")]
    for folder in checkouts:
        run("git", "clone", "--quiet", str(ROOT), str(folder))
    # The second compiles everything anew, in folders of other names.
    environments = [{}, {"CARGO_TARGET_DIR": str(tmp_path / "target")}]
    venv = os.environ.get("CHORUS_VENV", sys.prefix)
    built = []
    for folder, more in zip(checkouts, environments, strict=True):
        printed = run(str(folder / "scripts" / "wheel.sh"), CHORUS_VENV=venv, **more).stdout.strip()
        built.append(folder / printed.splitlines()[-1])
    assert built[0].name == built[1].name
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in built]
    assert digests[0] == digests[1]


@dataclass(frozen=True)
class Userland:
    """A container with a minimal Debian in which the wheel was installed."""

    suite: str
    container: str

    def run(self, *words: str, check: bool = True) -> str:
        """A command in it, with what was installed on its path."""
        path = f"PATH={VENV}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return docker("exec", "-e", path, self.container, *words, check=check)

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{published(self.container, 8080)}"

    def start_agent(self, *environment: str) -> None:
        """An agent with ports that the host and the other userland reach; its role is the suite."""
        settings = [
            f"CHORUS_AGENT_ID={self.suite}",
            f"CHORUS_AGENT_ROLE={self.suite}",
            "CHORUS_API_HOST=0.0.0.0",
            "CHORUS_P2P_HOST=0.0.0.0",
            f"CHORUS_API_TOKEN={TOKEN}",
            "CHORUS_AI_PROVIDER=none",
            *environment,
        ]
        command = f"echo $$ >{PID}; exec {VENV}/bin/chorus-agent >{LOG} 2>&1"
        flags = [word for each in settings for word in ("-e", each)]
        docker("exec", "-d", *flags, self.container, "sh", "-c", command)

    def stop_agent(self) -> None:
        """Waits until it has taken leave; its sandboxes go with it."""
        self.run("sh", "-c", f"kill $(cat {PID})", check=False)
        until(lambda: self.run("sh", "-c", f"kill -0 $(cat {PID}) 2>/dev/null || echo gone") == "gone")

    def asked(self, method: str, path: str, **more: Any) -> Any:
        """The agent's answer, or None while it gives none."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        try:
            answer = httpx.request(
                method, self.api + path, headers=headers, timeout=60, trust_env=False, **more
            )
        except httpx.TransportError:
            return None
        return answer.json() if answer.is_success else None


def minimal(suite: str) -> str:
    """An image of a fresh Debian with Python and venv, and nothing else."""
    image = f"{PREFIX}-{suite}:latest"
    words = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3,python3-venv", suite, "-"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as making:
        subprocess.run(["docker", "import", "-", image], stdin=making.stdout, check=True, capture_output=True)
    assert making.returncode == 0
    return image


@pytest.fixture(scope="module")
def userlands(wheel: Path, daemon: None) -> Iterator[dict[str, Userland]]:
    """One of each suite, on one network, with the Docker socket of the host."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("no mmdebstrap: make setup")
    made: dict[str, Userland] = {}
    images: list[str] = []
    docker("network", "create", NETWORK)
    try:
        for suite, python in SUITES.items():
            images.append(minimal(suite))
            packages = script("packages.sh", python)
            mounts = [f"{wheel.parent}:/wheel:ro", f"{packages}:/packages:ro", f"{SOCKET}:{SOCKET}"]
            flags = [word for mount in mounts for word in ("-v", mount)]
            name = f"{PREFIX}-{suite}"
            docker(
                *("run", "-d", "--init", "--name", name, "--hostname", suite, "--network", NETWORK),
                *(*flags, "-p", "127.0.0.1::8080", images[-1], "sleep", "infinity"),
            )
            made[suite] = Userland(suite, name)
            docker("exec", *OFFLINE, name, "bash", "-euc", commands("Install"))
        yield made
    finally:
        for userland in made.values():
            docker("rm", "-f", userland.container, check=False)
        docker("network", "rm", NETWORK, check=False)
        docker("image", "rm", *images, check=False)


@pytest.mark.parametrize("suite", SUITES)
def test_pip_alone_installs_it(suite: str, userlands: dict[str, Userland]) -> None:
    here = userlands[suite]
    assert here.run("python3", "--version").startswith(f"Python {SUITES[suite]}.")
    for compiler in COMPILERS:
        assert here.run("sh", "-c", f"command -v {compiler} || echo none") == "none"
    assert here.run("pip", "check") == "No broken requirements found."
    assert here.run("chorus-agent", "--version").startswith("CHORUS-agent ")


@pytest.mark.parametrize("suite", SUITES)
def test_pip_installs_it_from_a_folder(suite: str, userlands: dict[str, Userland]) -> None:
    there = "mkdir /there && cd /there && cp -r /packages packages && cp /wheel/*.whl packages"
    venv = "python3 -m venv venv && . venv/bin/activate"
    install = commands("Install without a network")
    said = userlands[suite].run("bash", "-euc", f"{there}\n{venv}\n{install}\nchorus-agent --version")
    assert said.splitlines()[-1].startswith("CHORUS-agent ")


@pytest.mark.parametrize("suite", SUITES)
def test_a_local_mesh_runs_a_command(suite: str, userlands: dict[str, Userland]) -> None:
    here = userlands[suite]
    said = here.run("chorusctl", "doctor")
    assert "MISS" not in said
    here.run("chorusctl", "up", "-n", "3", "--detach")
    try:
        assert here.run("chorusctl", "run", "--", "echo", "hello") == "hello"
    finally:
        here.run("chorusctl", "down", "--purge")


@pytest.mark.parametrize("suite", SUITES)
def test_it_brings_the_recipes_of_the_sandbox_images(suite: str, userlands: dict[str, Userland]) -> None:
    # No image is of this release, and there is no mmdebstrap: it comes as far as that.
    said = userlands[suite].run("chorusctl", "images", "build", "all", "--suite", "sid", check=False)
    assert "apt-get install mmdebstrap" in said


def test_one_mesh_spans_both_and_each_works_for_the_other(userlands: dict[str, Userland]) -> None:
    first, second = userlands.values()
    shared = (f"CHORUS_LICENSE_ID=dev-{PREFIX}", f"CHORUS_CLUSTER_SECRET={os.urandom(24).hex()}")
    first.start_agent(*shared)
    second.start_agent(*shared, f"CHORUS_BOOTSTRAP_PEERS=/dns4/{first.container}/tcp/9000")
    try:
        for here in (first, second):
            until(lambda here=here: present(here) == 2)
        for asked, works in ((first, second), (second, first)):
            task = {"title": "across", "language": "base", "commands": ["echo across"]}
            task["required_role"] = works.suite
            task_id = asked.asked("POST", "/api/v1/tasks", json=task)["task_id"]
            ended = until(lambda asked=asked, task_id=task_id: finished(asked, task_id))
            assert (ended["state"], ended["agent_id"]) == ("completed", works.suite), ended
    except BaseException:
        for here in (first, second):
            print(here.suite, here.run("tail", "-n", "40", LOG, check=False))
        raise
    finally:
        for here in (second, first):
            here.stop_agent()


def present(here: Userland) -> int:
    """How many members of its mesh are present."""
    said = here.asked("GET", "/api/v1/members")
    return sum(each["present"] for each in said["items"]) if said else 0


def finished(here: Userland, task_id: str) -> Any:
    """The task once it has ended."""
    task = here.asked("GET", f"/api/v1/tasks/{task_id}")
    return task if task and task["state"] in ("completed", "failed", "cancelled", "expired") else None
