"""A Swarm with deploy/swarm/stack.yml on it: its workers, its replicas, and what they and Swarm say."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from chorus.executor.docker.container import LABEL_PEER

from .conftest import ROOT, run, until
from .machines import Machine, Machines

SERVICE: Final = "chorus_chorus-agent"
SLOTS: Final = (1, 2, 3)
# Looking at replicas takes processor time from them.
PAUSE_S: Final = 1.0
# In a replica: asks its agent what comes as JSON, [[method, port and path, body], …].
_ASK: Final = """
import json, os, sys, urllib.error, urllib.request
with open(os.environ["CHORUS_API_TOKEN_FILE"]) as file:
    head = {"Authorization": "Bearer " + file.read().strip(), "Content-Type": "application/json"}
said = []
for method, path, body in json.loads(sys.argv[1]):
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request("http://127.0.0.1:" + path, content, head, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            said.append([answer.status, answer.read().decode()])
    except urllib.error.HTTPError as error:
        said.append([error.code, error.read().decode()])
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Answer:
    """What an agent said."""

    status: int
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


def get(path: str) -> tuple[str, str, None]:
    """The request for a page of the API."""
    return ("GET", f"8080{path}", None)


@dataclass
class Swarm:
    """The Swarm. `images` is a file of what its workers need, `names` what its images are called there."""

    machines: Machines
    images: Path
    names: dict[str, str]
    environ: dict[str, str]
    manager: Machine
    workers: dict[str, Machine] = field(default_factory=dict)

    def join(self, *names: str) -> None:
        """New and empty workers, which are given the images."""
        made = [self.machines.add(name) for name in names]
        for machine in made:
            machine.wait()
            machine.docker("load", "--quiet", "--input", str(self.images))
            for name, called in self.names.items():
                machine.docker("tag", name, called)
        token = self.manager.docker("swarm", "join-token", "--quiet", "worker")
        for machine in made:
            self.workers[machine.name] = machine
            own = ("--advertise-addr", machine.address)
            machine.docker("swarm", "join", "--token", token, *own, f"{self.manager.address}:2377")

    def follow(self, commands: str, machine: Machine | None = None, **more: str) -> str:
        """Runs commands of the page, on the manager where no machine is named; returns what they said."""
        host = f"unix://{(machine or self.manager).socket}"
        words = ("bash", "-euo", "pipefail", "-c", f"cd {ROOT}\n{commands}")
        return run(*words, DOCKER_HOST=host, **self.environ, **more).stdout

    # ---- its replicas ------------------------------------------------------------------------------

    def containers(self, machine: Machine) -> dict[str, int]:
        """The replicas' containers that run on a machine, each with its slot."""
        task = '{{.ID}} {{.Label "com.docker.swarm.task.name"}}'
        only = f"label=com.docker.swarm.service.name={SERVICE}"
        lines = machine.docker("ps", "--no-trunc", "--filter", only, "--format", task).splitlines()
        named = (line.split() for line in lines)
        return {
            container: int(name.removeprefix(f"{SERVICE}.").partition(".")[0]) for container, name in named
        }

    def replicas(self) -> dict[int, tuple[Machine, str]]:
        """Where each slot's container runs, and its id."""
        return {
            slot: (machine, container)
            for machine in self.workers.values()
            for container, slot in self.containers(machine).items()
        }

    def ask(self, slot: int, *requests: tuple[str, str, Any]) -> list[Answer] | None:
        """What a replica's agent says; None while there is none that answers."""
        if (replica := self.replicas().get(slot)) is None:
            return None
        machine, container = replica
        words = ("exec", container, "python3", "-c", _ASK, json.dumps(requests))
        done = run("docker", "--host", f"unix://{machine.socket}", *words, check=False)
        return [Answer(*said) for said in json.loads(done.stdout)] if done.returncode == 0 else None

    def told(self, slot: int, path: str) -> Any:
        """A good answer's JSON, or None."""
        answers = self.ask(slot, get(path))
        return answers[0].json() if answers and answers[0].status == 200 else None

    def until_whole(self, before: dict[int, tuple[Machine, str]] | None = None) -> dict[int, str]:
        """Waits until the replicas are one ready mesh that lists them alone, all present and voting.

        Returns the peer id of each slot. With `before`, all these containers are gone first.
        """
        gone = {container for _, container in (before or {}).values()}
        until(lambda: gone.isdisjoint(container for _, container in self.replicas().values()), PAUSE_S)
        return until(self._whole, PAUSE_S)

    def _whole(self) -> dict[int, str]:
        peers, lists = {}, set()
        for slot in SLOTS:
            answers = self.ask(
                slot, ("GET", "8081/ready", None), get("/api/v1/status"), get("/api/v1/members")
            )
            if not answers or any(answer.status != 200 for answer in answers):
                return {}
            _, status, members = answers
            peers[slot] = str(status.json()["peer_id"])
            if not all(member["present"] and member["voter"] for member in members.json()["items"]):
                return {}
            lists.add(frozenset(member["peer_id"] for member in members.json()["items"]))
        return (
            peers if lists == {frozenset(peers.values())} and len(set(peers.values())) == len(SLOTS) else {}
        )

    # ---- its service -------------------------------------------------------------------------------

    def until_down(self, machine: Machine) -> None:
        """Waits until the manager has noticed that a machine is away."""
        state = ("node", "inspect", "--format", "{{.Status.State}}", machine.name)
        until(lambda: self.manager.docker(*state) == "down", PAUSE_S)

    def until_update(self, state: str) -> None:
        """Waits for an update's end."""
        words = (
            "service",
            "inspect",
            "--format",
            "{{.UpdateStatus.State}} {{.UpdateStatus.Message}}",
            SERVICE,
        )
        ends = ("completed", "paused", "rollback_completed", "rollback_paused")

        def ended() -> str:
            # There is none for a moment when the update begins.
            said = self.manager.docker(*words, check=False)
            return said if said.startswith(ends) else ""

        said = until(ended, PAUSE_S)
        assert said.split()[0] == state, said

    def sandboxes(self) -> list[str]:
        """The sandboxes on all workers, whatever became of them."""
        only = ("ps", "--all", "--quiet", "--filter", f"label={LABEL_PEER}")
        return [line for machine in self.workers.values() for line in machine.docker(*only).splitlines()]

    def story(self) -> str:
        """What Swarm and the replicas say, for whoever looks for a mistake."""
        said = [self.manager.docker("stack", "ps", "--no-trunc", "chorus", check=False)]
        for slot, (machine, container) in sorted(self.replicas().items()):
            words = ("docker", "--host", f"unix://{machine.socket}", "logs", "--tail", "40", container)
            said.append(f"---- slot {slot} on {machine.name}\n{run(*words, check=False).stderr}")
        return "\n".join(said)
