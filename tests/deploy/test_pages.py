"""The commands of deploy/README.md for one machine, each block as it stands, on a machine of its own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .conftest import ROOT, SANDBOX, Images, run, until
from .machines import Machine, Machines, missing
from .readme import blocks, commands

NEEDED = ("curl", "openssl")


def test_each_block_is_run_by_a_test_or_is_the_operators_own() -> None:
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    used = {name for source in sources for name in re.findall(r'\bcommands\("([^"]+)"\)', source)}
    assert set(blocks()) == used


@pytest.mark.deploy
@pytest.mark.heavy
def test_the_images_are_built(images: Images) -> None:
    names = {"TAG": images.agent, "PROXY_TAG": images.proxy}
    build = commands("Build")
    run("bash", "-euo", "pipefail", "-c", f"cd {ROOT}\n{build}", **names)


@pytest.fixture(scope="module")
def machine(images: Images) -> Iterator[Machine]:
    """A machine with the images under the names that the page has for them."""
    if why := missing() or ", ".join(name for name in NEEDED if shutil.which(name) is None):
        pytest.skip(f"no machine can be made here: {why}")
    with Machines() as machines:
        made = machines.add("docker-host")
        made.wait()
        made.docker("load", "--quiet", "--input", str(machines.save(images.agent, images.proxy, SANDBOX)))
        made.docker("tag", images.agent, "chorus-agent:latest")
        made.docker("tag", images.proxy, "chorus-docker-proxy:latest")
        yield made


def works(machine: Machine, container: str) -> bool:
    """Whether an agent runs a task by now."""
    asked = f"docker exec {container} chorusctl run -- echo hello || true"
    return machine.run(asked).splitlines()[-1:] == ["hello"]


@pytest.mark.deploy
@pytest.mark.heavy
def test_compose_without_and_with_certificates(
    machine: Machine, compose: Sequence[str], tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    run("git", "clone", "--quiet", str(ROOT), str(checkout))

    def follow(script: str) -> str:
        return machine.run(f"cd {checkout}\n" + script.replace("docker compose", " ".join(compose)))

    try:
        status = follow(commands("Start"))
        assert '"ready"' in status
        agent = follow("cd deploy; docker compose ps -q agent-1").strip()
        until(lambda: works(machine, agent))
        follow(commands("Start with certificates"))
        agent = follow("cd deploy; docker compose ps -q agent-1").strip()
        until(lambda: works(machine, agent))
        assert "tcp://docker-proxy:2376" in machine.docker("inspect", agent)
    finally:
        follow("cd deploy; docker compose down -v -t 60")


@pytest.mark.deploy
@pytest.mark.heavy
def test_one_agent_without_compose(machine: Machine) -> None:
    agents = {
        "chorus-agent-1": commands("Start one agent"),
        "chorus-agent-2": commands("Start a proxy and an agent of nobody"),
    }
    for agent, start in agents.items():
        machine.run(start)
        until(lambda agent=agent: works(machine, agent))
        machine.docker("stop", "-t", "390", agent)
        assert machine.docker("inspect", "--format", "{{.State.ExitCode}}", agent) == "0"
