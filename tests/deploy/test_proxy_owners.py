"""About what the filtering proxy lets an agent ask: its own containers, their sessions, and listed images.

Each attempt at something else is refused, named in the log, and never reaches the daemon.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from docker import APIClient
from docker.errors import NotFound

from .conftest import PREFIX, SANDBOX, SOCKET, docker
from .sandbox_bodies import limits, sandbox, session
from .watched import Answer, Watched, watch

pytestmark = pytest.mark.deploy

# Nobody is asked for this one; whatever passes the proxy finds nothing.
NOBODY = "0" * 64
API = "1.41"
V = f"/v{API}"
CREATE = f"{V}/containers/create"
PEER, OTHER = "12D3KooWOfThisTest", "12D3KooWOfAnother"

FOREIGN = "without the label of an agent that this proxy serves"
UNLISTED = "no sandbox image"


@pytest.fixture(scope="module")
def bound(proxy_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A proxy for one agent alone."""
    settings = [f"CHORUS_PROXY_PEERS={PEER}"]
    with watch(proxy_image, f"{PREFIX}-bound", tmp_path_factory.mktemp("bound"), settings) as made:
        yield made


@pytest.fixture(scope="module")
def foreign() -> Iterator[Callable[..., tuple[str, str]]]:
    """Makes running containers past the proxy; gives their ids and that of an exec in them."""
    client = APIClient(f"unix://{SOCKET}", version=API)
    made = []

    def make(labels: dict[str, str]) -> tuple[str, str]:
        host = client.create_host_config(network_mode="none")
        words = ["sleep", "infinity"]
        container = client.create_container(SANDBOX, words, labels=labels, host_config=host)["Id"]
        made.append(container)
        client.start(container)
        return container, client.exec_create(container, "true")["Id"]

    yield make
    for container in made:
        with contextlib.suppress(NotFound):
            client.remove_container(container, force=True)
    client.close()


def about(watched: Watched, container: str, exec_id: str) -> dict[str, Callable[[], Answer]]:
    """Every call about a container."""
    one = f"{V}/containers/{container}"
    upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
    return {
        "inspect": lambda: watched.ask("GET", f"{one}/json"),
        "stats": lambda: watched.ask("GET", f"{one}/stats?stream=False"),
        "update": lambda: watched.ask("POST", f"{one}/update", limits()),
        "start": lambda: watched.ask("POST", f"{one}/start"),
        "kill": lambda: watched.ask("POST", f"{one}/kill"),
        "rename": lambda: watched.ask("POST", f"{one}/rename?name={PREFIX}-x"),
        "remove": lambda: watched.ask("DELETE", f"{one}?v=True&link=False&force=True"),
        "exec": lambda: watched.ask("POST", f"{one}/exec", session(container)),
        "inspect exec": lambda: watched.ask("GET", f"{V}/exec/{exec_id}/json"),
        "start exec": lambda: watched.ask(
            "POST", f"{V}/exec/{exec_id}/start", {"Tty": False, "Detach": False}, **upgrade
        ),
    }


def test_a_container_without_an_agents_label(
    watched: Watched, foreign: Callable[..., tuple[str, str]]
) -> None:
    for labels in ({}, {"chorus.peer": ""}, {"chorus.peer": "a b"}, {"Chorus.Peer": PEER}):
        for call in about(watched, *foreign(labels)).values():
            watched.refuses(call, FOREIGN)


def test_a_container_with_another_peers_label(
    bound: Watched, foreign: Callable[..., tuple[str, str]]
) -> None:
    for call in about(bound, *foreign({"chorus.peer": OTHER})).values():
        bound.refuses(call, FOREIGN)
    answers = {
        name: call()
        for name, call in about(bound, *foreign({"chorus.peer": PEER})).items()
        if "exec" not in name
    }
    assert all(answer.status < 400 for answer in answers.values()), answers


def test_a_container_that_is_gone_is_the_daemons_word(watched: Watched) -> None:
    for name, call in about(watched, NOBODY, NOBODY).items():
        answer = call()
        assert answer.status == 404, (name, answer)
        assert "no such" in json.loads(answer.text)["message"].lower()


@pytest.mark.parametrize("peer", ["", "a b", "x" * 129, "12D3KooW=", OTHER])
def test_a_sandbox_with_another_peers_label(bound: Watched, peer: str) -> None:
    bound.refuses(
        lambda: bound.ask("POST", CREATE, sandbox(peer)), "chorus.peer" if peer != OTHER else FOREIGN
    )


def test_labels_that_no_sandbox_has(watched: Watched) -> None:
    for labels in ({}, {"chorus.peer": PEER}, {**sandbox()["Labels"], "com.docker.compose.project": "x"}):
        body = {**sandbox(), "Labels": labels}
        watched.refuses(lambda body=body: watched.ask("POST", CREATE, body), "Labels.")


def test_a_list_of_another_peers_containers(bound: Watched) -> None:
    def listed(peer: str) -> Answer:
        filters = quote(json.dumps({"label": [f"chorus.peer={peer}"]}))
        return bound.ask("GET", f"{V}/containers/json?limit=-1&all=1&size=0&trunc_cmd=0&filters={filters}")

    bound.refuses(lambda: listed(OTHER), FOREIGN)
    assert listed(PEER).text.strip() == "[]"


def test_an_image_that_is_no_sandboxs(watched: Watched, proxy_image: str) -> None:
    its_id = docker("image", "inspect", "--format", "{{.Id}}", proxy_image)
    for image in (
        proxy_image,
        its_id,
        its_id.removeprefix("sha256:"),
        its_id[:19],
        "",
        SANDBOX + "x",
        "/" + SANDBOX,
    ):
        watched.refuses(
            lambda image=image: watched.ask("POST", CREATE, sandbox(image=image)), UNLISTED, CREATE, "POST"
        )
    for name in (proxy_image, its_id, "x", "anthonyrawlins/chorus-base:v2", "x/anthonyrawlins/chorus-base"):
        watched.refuses(lambda name=name: watched.ask("GET", f"{V}/images/{name}/json"), UNLISTED)
    pulls = ["tag=latest&fromImage=x", "tag=v2&fromImage=anthonyrawlins%2Fchorus-base"]
    for pull in (*pulls, f"tag=sha256%3A{NOBODY}&fromImage=anthonyrawlins%2Fchorus-base"):
        watched.refuses(lambda pull=pull: watched.ask("POST", f"{V}/images/create?{pull}"), UNLISTED)


def test_images_that_the_operator_lists(proxy_image: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """By the agent's own two variables; the proxy's image stands for one of the operator's."""
    settings = [
        f'CHORUS_SANDBOX_IMAGES={{"base": "docker.io/library/{proxy_image}"}}',
        f"CHORUS_SANDBOX_ALLOW= x/y , x/z@sha256:{NOBODY},",
    ]
    its_id = docker("image", "inspect", "--format", "{{.Id}}", proxy_image)
    with watch(proxy_image, f"{PREFIX}-listed", tmp_path_factory.mktemp("listed"), settings) as proxy:
        proxy.refuses(lambda: proxy.ask("POST", CREATE, sandbox()), UNLISTED)
        for image in (proxy_image, its_id):
            answer = proxy.ask("POST", CREATE, sandbox(image=image))
            assert answer.status == 201, answer
            docker("rm", json.loads(answer.text)["Id"])
        for name in ("x/y:latest", "x/y", f"x/z@sha256:{NOBODY}", f"x/z%40sha256:{NOBODY}"):
            assert proxy.ask("GET", f"{V}/images/{name}/json").status == 404


@pytest.mark.parametrize(
    "setting",
    [
        "CHORUS_SANDBOX_IMAGES=x",
        'CHORUS_SANDBOX_IMAGES=["x"]',
        'CHORUS_SANDBOX_IMAGES={"a": 1}',
        "CHORUS_PROXY_PEERS=a b",
    ],
)
def test_a_setting_that_cannot_be_read(
    proxy_image: str, tmp_path_factory: pytest.TempPathFactory, setting: str
) -> None:
    """Nothing passes, and everyone is told which one it is."""
    with watch(proxy_image, f"{PREFIX}-wrong", tmp_path_factory.mktemp("wrong"), [setting]) as proxy:
        proxy.refuses(lambda: proxy.ask("GET", "/_ping"), setting.partition("=")[0] + " of the proxy must be")


# ---- sessions and limits ---------------------------------------------------------------------------


@pytest.fixture
def created(watched: Watched) -> Iterator[str]:
    answer = watched.ask("POST", CREATE, sandbox())
    assert answer.status == 201, answer
    container = json.loads(answer.text)["Id"]
    yield container
    assert watched.ask("DELETE", f"{V}/containers/{container}?v=True&force=True").status == 204


SESSIONS = [
    ({"User": "0"}, "User has"),
    ({"User": ""}, "User has"),
    ({"Privileged": True}, "Privileged has"),
    ({"Tty": True}, "Tty has"),
    ({"WorkingDir": "/"}, "WorkingDir may not"),
    ({"Env": []}, "Env may not"),
    ({"DetachKeys": "x"}, "DetachKeys may not"),
    ({"user": "0"}, "user may not"),
    ({"Container": NOBODY}, "Container is another"),
    ({"Cmd": "x"}, "Cmd has"),
]


@pytest.mark.parametrize(("change", "reason"), SESSIONS)
def test_sessions_that_no_agent_opens(
    watched: Watched, created: str, change: dict[str, Any], reason: str
) -> None:
    path = f"{V}/containers/{created}/exec"
    watched.refuses(lambda: watched.ask("POST", path, {**session(created), **change}), reason, path)


def test_starts_that_no_agent_makes(watched: Watched) -> None:
    path = f"{V}/exec/{NOBODY}/start"
    usual = {"Tty": False, "Detach": False}
    upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
    for change, reason in (
        ({"Tty": True}, "Tty has"),
        ({"Detach": True}, "Detach has"),
        ({"x": 1}, "x may not"),
    ):
        body = {**usual, **change}
        watched.refuses(lambda body=body: watched.ask("POST", path, body, **upgrade), reason, path)
    watched.refuses(lambda: watched.ask("POST", path, usual), "without Upgrade", path)
    watched.refuses(
        lambda: watched.ask("POST", path, usual, Connection="Upgrade", Upgrade="h2c"), "without Upgrade"
    )


LIMITS = [
    ({"RestartPolicy": {"Name": "no"}}, "RestartPolicy may not"),
    ({"Devices": []}, "Devices may not"),
    ({"CpusetCpus": "0"}, "CpusetCpus may not"),
    ({"PidsLimit": -1}, "PidsLimit has"),
    ({"Memory": 0}, "Memory has"),
]


@pytest.mark.parametrize(("change", "reason"), LIMITS)
def test_limits_that_no_agent_sets(
    watched: Watched, created: str, change: dict[str, Any], reason: str
) -> None:
    path = f"{V}/containers/{created}/update"
    watched.refuses(lambda: watched.ask("POST", path, {**limits(), **change}), reason, path)
    assert watched.ask("POST", path, limits()).status == 200
