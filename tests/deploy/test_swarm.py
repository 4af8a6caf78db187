"""deploy/swarm/stack.yml as it ships, on a manager and three workers, and what may happen to it."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from chorus.wire.ids import new_id

from .conftest import PREFIX, SANDBOX, Images, until
from .machines import SWITCH, Machines, missing
from .readme import commands
from .swarm import PAUSE_S, SERVICE, SLOTS, Swarm, get

pytestmark = [pytest.mark.deploy, pytest.mark.heavy]

# Tasks of one step; there are five steps.
BATCH: Final = 6
# Long enough for a fault to come while it runs.
LASTING: Final = "sleep 20; echo done"
ATTEMPTS_MAX: Final = 50
# An agent that is gone for good is removed within a minute or two, so that the test need not wait for ten.
ABSENCE: Final = "60s"
# What is submitted goes to this one's agent; faults come to the others.
THROUGH, KILLED, CUT = SLOTS
ROLES: Final = {1: "developer", 2: "reviewer", 3: "architect"}


@pytest.fixture(scope="module")
def swarm(
    images: Images, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Swarm]:
    if why := missing():
        pytest.skip(f"no machines can be made here: {why}")
    assigned = tmp_path_factory.mktemp("whoosh")
    for slot, role in ROLES.items():
        document = assigned / "api" / "assignments" / f"{SERVICE}.{slot}.json"
        document.parent.mkdir(parents=True, exist_ok=True)
        # As many tasks as all of them take together are one step's, so that each replica has some.
        document.write_text(json.dumps({"role": role, "max_tasks": BATCH // len(SLOTS)}))
    with Machines() as machines:
        # Any server of the documents will do.
        machines.beside(
            sys.executable, "-m", "http.server", "--bind", SWITCH, "--directory", str(assigned), "80"
        )
        manager = machines.add("manager")
        manager.wait()
        made = Swarm(
            machines,
            machines.save(images.agent, images.proxy, SANDBOX),
            {images.agent: "chorus-agent:latest", images.proxy: "chorus-docker-proxy:latest"},
            {
                "CHORUS_LICENSE_ID": f"dev-{PREFIX}",
                "CHORUS_MEMBER_ABSENCE": ABSENCE,
                "DOCKER_GID": str(manager.socket.stat().st_gid),
                "ASSIGN_URL": f"http://{SWITCH}/api/assignments/{{{{.Service.Name}}}}.{{{{.Task.Slot}}}}.json",
            },
            manager,
        )
        manager.docker("swarm", "init", "--advertise-addr", manager.address)
        made.join("worker-1", "worker-2", "worker-3")
        began = time.monotonic()
        made.follow(commands("Deploy"))
        try:
            made.until_whole()
            told("ready", began)
            yield made
        finally:
            if request.session.testsfailed or sys.exc_info()[0]:
                print(made.story())


def told(what: str, since: float) -> None:
    """A figure for whoever reads along; nothing is asserted about it."""
    print(f"{what}: {time.monotonic() - since:.0f} s")


def submit(swarm: Swarm, commands: str = LASTING, count: int = BATCH) -> list[str]:
    """Tasks that the mesh has; asked again under the same id until it says so."""
    tasks = [
        {
            "task_id": new_id(),
            "title": f"of a swarm, {number}",
            "language": "base",
            "commands": [commands],
            "max_attempts": ATTEMPTS_MAX,
        }
        for number in range(count)
    ]
    requests = [("POST", "8080/api/v1/tasks", task) for task in tasks]

    def taken() -> bool:
        answers = swarm.ask(THROUGH, *requests)
        return answers is not None and all(answer.status in (200, 201) for answer in answers)

    until(taken, PAUSE_S)
    return [str(task["task_id"]) for task in tasks]


def until_one_runs(swarm: Swarm, slot: int) -> str:
    """Waits until a replica runs a task of those that are open; returns its id."""
    agent = until(lambda: swarm.told(slot, "/api/v1/status"), PAUSE_S)["agent_id"]

    def found() -> str:
        listed = swarm.told(THROUGH, f"/api/v1/tasks?state=running&agent={agent}")
        return str(listed["items"][0]["task_id"]) if listed and listed["items"] else ""

    return until(found, PAUSE_S)


def until_all(swarm: Swarm, tasks: Sequence[str], *states: str, slot: int = THROUGH) -> list[dict[str, Any]]:
    """Waits until each of these tasks is in one of these states, as a replica sees it; returns them."""

    def found() -> list[dict[str, Any]]:
        answers = swarm.ask(slot, *(get(f"/api/v1/tasks/{task_id}") for task_id in tasks))
        shown = [answer.json() for answer in answers or () if answer.status == 200]
        return shown if len(shown) == len(tasks) and all(task["state"] in states for task in shown) else []

    return until(found, PAUSE_S)


def test_each_replica_is_on_a_worker_of_its_own_with_what_it_was_assigned(swarm: Swarm) -> None:
    found = swarm.replicas()
    assert sorted(found) == list(SLOTS)
    assert {machine.name for machine, _ in found.values()} == set(swarm.workers)
    for slot, (machine, container) in found.items():
        assert swarm.told(slot, "/api/v1/status")["role"] == ROLES[slot]
        assert machine.docker("exec", container, "id", "-u") == "10001"
        assert machine.docker("exec", container, "cat", "/proc/1/comm") == "chorus-agent"
        status = machine.docker("exec", container, "cat", "/proc/1/status").split()
        assert status[status.index("NoNewPrivs:") + 1] == "1"
        assert int(status[status.index("CapBnd:") + 1], 16) == 0
        volumes = machine.docker("volume", "ls", "--quiet").splitlines()
        assert set(volumes) == {f"chorus-{machine.name}", "chorus_docker-socket", "chorus-prompts"}
        # Secrets are files, and nothing that `docker inspect` shows.
        environment = machine.docker("inspect", "--format", "{{json .Config.Env}}", container)
        assert swarm.environ["CHORUS_LICENSE_ID"] not in environment


def test_prompts_reach_the_replicas(swarm: Swarm, tmp_path: Path) -> None:
    (tmp_path / "developer.yaml").write_text("{}")
    for machine, container in swarm.replicas().values():
        swarm.follow(commands("Give prompts"), machine, PROMPTS=str(tmp_path))
        assert machine.docker("exec", container, "ls", "/prompts") == "developer.yaml"


def test_only_p2p_is_published_and_on_each_worker(swarm: Swarm) -> None:
    for machine in swarm.workers.values():
        for port, opens in ((9000, True), (8080, False), (8081, False), (2375, False)):
            assert swarm.machines.connects(machine.address, port) == opens, (machine.name, port)


def test_an_operator_looks_around_on_a_worker(swarm: Swarm) -> None:
    said = swarm.follow(commands("Look"), swarm.workers["worker-2"])
    assert said.splitlines()[-1] == "hello"
    for slot in SLOTS:
        assert swarm.told(slot, "/api/v1/status")["agent_id"] in said


def test_thirty_tasks_end_once_whatever_happens_meanwhile(swarm: Swarm) -> None:
    before = swarm.until_whole()
    tasks = submit(swarm)

    until_one_runs(swarm, KILLED)
    began, (machine, container) = time.monotonic(), swarm.replicas()[KILLED]
    machine.docker("kill", container)
    assert swarm.until_whole({KILLED: (machine, container)}) == before
    told("whole after a replica was killed", began)

    tasks += submit(swarm)
    until_one_runs(swarm, CUT)
    began, (machine, container) = time.monotonic(), swarm.replicas()[CUT]
    machine.cut()
    tasks += submit(swarm)
    swarm.until_down(machine)
    until_all(swarm, tasks, "completed")
    told("all tasks completed without the machine that was cut off", began)
    began = time.monotonic()
    machine.heal()
    assert swarm.until_whole({CUT: (machine, container)}) == before
    told("whole after the machine was back", began)

    tasks += submit(swarm)
    until_one_runs(swarm, KILLED)
    began, (machine, container) = time.monotonic(), swarm.replicas()[KILLED]
    del swarm.workers[machine.name]
    machine.destroy()
    swarm.until_down(machine)
    swarm.follow(commands("Forget a worker"), WORKER=machine.name)
    swarm.join("worker-4")
    after = swarm.until_whole()
    told("whole after a worker was replaced by an empty one", began)
    assert swarm.replicas()[KILLED][0].name == "worker-4"
    assert after[KILLED] != before[KILLED]
    assert {**after, KILLED: before[KILLED]} == before

    for machine in swarm.workers.values():
        machine.docker("tag", "chorus-agent:latest", "chorus-agent:next")
    until_all(swarm, tasks, "completed")
    drained = submit(swarm)
    until_all(swarm, drained, "running", "completed")
    began, replicas = time.monotonic(), swarm.replicas()
    swarm.follow(commands("Update"))
    swarm.until_update("completed")
    assert swarm.until_whole(replicas) == after
    told("updated", began)
    for machine, container in swarm.replicas().values():
        assert machine.docker("inspect", "--format", "{{.Config.Image}}", container) == "chorus-agent:next"
    # A replica that is replaced finishes what it runs.
    assert [task["attempt"] for task in until_all(swarm, drained, "completed")] == [1] * BATCH

    tasks += drained
    assert len(set(tasks)) == 5 * BATCH
    for slot in SLOTS:
        for task in until_all(swarm, tasks, "completed", slot=slot):
            assert [attempt["state"] for attempt in task["attempts"]].count("completed") == 1, task
        events = swarm.ask(slot, *(get(f"/api/v1/tasks/{task_id}/events") for task_id in tasks))
        assert events is not None
        ends = [len(re.findall("^event: end$", story.text, re.MULTILINE)) for story in events]
        assert ends == [1] * len(tasks)


def test_workers_that_were_lost_together_come_back_as_the_agents_that_they_were(swarm: Swarm) -> None:
    before, replicas = swarm.until_whole(), swarm.replicas()
    tasks = submit(swarm)
    until_all(swarm, tasks, "running", "completed")
    machines = [replicas[slot][0] for slot in (KILLED, CUT)]
    for machine in machines:
        machine.cut()
    for machine in machines:
        swarm.until_down(machine)
    # Swarm gives the first worker that is back to the first slot that has none, whichever was there before.
    gone = {container for _, container in replicas.values()}
    for machine in reversed(machines):
        machine.heal()
        until(lambda at=machine: swarm.containers(at).keys() - gone, PAUSE_S)
    assert set(swarm.until_whole().values()) == set(before.values())
    for task in until_all(swarm, tasks, "completed"):
        assert [attempt["state"] for attempt in task["attempts"]].count("completed") == 1, task


def test_a_replica_is_moved_away_when_it_has_finished_its_tasks(swarm: Swarm) -> None:
    before = swarm.until_whole()
    tasks = submit(swarm)
    until_all(swarm, tasks, "running", "completed")
    machine, container = swarm.replicas()[CUT]
    swarm.follow(commands("Move a replica away"), WORKER=machine.name)
    until(lambda: CUT not in swarm.replicas(), PAUSE_S)
    assert machine.docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
    assert [task["attempt"] for task in until_all(swarm, tasks, "completed")] == [1] * BATCH
    swarm.follow(commands("Let a replica come back"), WORKER=machine.name)
    assert swarm.until_whole() == before


def test_an_update_to_what_does_not_start_is_turned_back(swarm: Swarm) -> None:
    before, replicas = swarm.until_whole(), swarm.replicas()
    wrong = ("--detach", "--env-add", "CHORUS_AGENT_MAX_TASKS=none")
    swarm.manager.docker("service", "update", *wrong, SERVICE)
    swarm.until_update("rollback_completed")
    assert swarm.until_whole() == before
    # The first one that did not come back was the last one that was touched.
    assert len(set(replicas.values()) & set(swarm.replicas().values())) == len(SLOTS) - 1
    tasks = submit(swarm, "echo after all", count=1)
    assert until_all(swarm, tasks, "completed")[0]["attempt"] == 1


def test_taken_down_it_leaves_volumes_and_nothing_that_runs(swarm: Swarm) -> None:
    until_all(swarm, submit(swarm), "running", "completed")
    # With proxies that did not outlast their replicas, the sandboxes of these tasks would stay.
    swarm.follow(commands("Take it down"))
    until(lambda: not [line for m in swarm.workers.values() for line in m.docker("ps", "-q").splitlines()])
    assert swarm.sandboxes() == []
    for machine in swarm.workers.values():
        assert f"chorus-{machine.name}" in machine.docker("volume", "ls", "--quiet").splitlines()
