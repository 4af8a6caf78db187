"""chorusctl's words for decisions: files checked without an agent, lists, graphs and votes through one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("chorus._core")

from chorus import decisions
from chorus.ctl import cli
from chorus.ctl.client import Client
from chorus.ctl.contexts import Endpoint, Target
from chorus.testing.decision_records import AUTHOR, OTHER, TASK, made, signed

ENCODED = signed(made(title='say "hi"\\\n'))
NAME = decisions.hash_of(ENCODED)


class Api:
    """An agent that answers for some records."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.items: list[dict[str, Any]] = []
        self.asked: list[httpx.Request] = []
        self.ballot: dict[str, Any] = {}

    def add(self, encoded: bytes, **listed: Any) -> str:
        record, name = json.loads(encoded), decisions.hash_of(encoded)
        self.records[name] = encoded
        item = {key: record[key] for key in ("address", "kind", "task_id", "attempt", "created_at")}
        self.items.insert(
            0, {**item, "hash": name, "agent_id": "a", "author": record["agent"]["peer"], **listed}
        )
        return name

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        path = request.url.path
        if path == "/api/v1/decisions":
            task = request.url.params.get("task_id")
            at = int(request.url.params.get("cursor", 0))
            items = [item for item in self.items if task in (None, item["task_id"])]
            # Small pages: nobody may look at the first one alone.
            return httpx.Response(
                200, json={"items": items[at : at + 2], "next": str(at + 2) if len(items) > at + 2 else None}
            )
        if match := re.fullmatch(r"/api/v1/decisions/(\w+)", path):
            encoded = self.records.get(match[1])
            return (
                httpx.Response(200, content=encoded)
                if encoded
                else httpx.Response(404, json={"detail": "no"})
            )
        if path.endswith("/votes"):
            return httpx.Response(200, json=self.ballot)
        return httpx.Response(404, json={"detail": "nothing there"})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    made = Api()

    def connect(_: Any) -> Client:
        client = Client(Target((Endpoint("http://agent", "token"),)))
        client._http = httpx.Client(transport=httpx.MockTransport(made.answer))
        return client

    monkeypatch.setattr(cli, "_connect", connect)
    return made


@pytest.fixture
def no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(_: Any) -> Client:
        raise AssertionError("a file is checked without an agent")

    monkeypatch.setattr(cli, "_connect", connect)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(words)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_file_is_checked_by_itself(
    no_agent: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "decision.json"
    path.write_bytes(ENCODED + b"\n")
    code, out, _ = run(capsys, "decision", "verify", str(path), "--json")
    said = json.loads(out)
    assert (code, said["genuine"], said["hash"], said["author"]) == (0, True, NAME, AUTHOR.peer_id)
    assert run(capsys, "decision", "verify", str(path), "--key", AUTHOR.peer_id)[0] == 0
    code, _, error = run(capsys, "decision", "verify", str(path), "--key", OTHER.peer_id)
    assert (code, "wrong_key" in error) == (1, True)
    code, out, _ = run(capsys, "decision", "show", str(path))
    assert code == 0
    # A title may hold anything; what is shown stays a line.
    assert 'say "hi"' in out.splitlines()[0]
    path.write_bytes(ENCODED.replace(b'"true"', b'"tru3"'))
    code, _, error = run(capsys, "decision", "verify", str(path))
    assert (code, "not genuine: bad_signature" in error) == (1, True)


def test_a_record_of_the_mesh_is_checked_against_its_list(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(3, 8):
        api.add(signed(made(attempt=n)))
    name = api.add(ENCODED)
    address = json.loads(ENCODED)["address"]
    for n in range(8, 12):
        api.add(signed(made(attempt=n)))
    for what in (name, name[:12] if len(api.items) <= 2 else name, address):
        assert run(capsys, "decision", "verify", what)[0] == 0
    for item in api.items:
        if item["hash"] == name:
            item["attempt"] = 99
    code, _, error = run(capsys, "decision", "verify", name)
    assert (code, "replayed" in error) == (1, True)
    code, _, error = run(capsys, "decision", "verify", "ucxl://nobody:agent@p:t/*^/x")
    assert (code, "neither a file" in error) == (1, True)


def test_all_are_checked_and_what_is_wrong_is_named(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(2, 9):
        api.add(signed(made(attempt=n)))
    assert run(capsys, "decision", "verify", "--all") == (0, "7 genuine, 0 unreadable, 0 not genuine\n", "")
    gone = api.add(signed(made(attempt=20)))
    del api.records[gone]
    assert run(capsys, "decision", "verify", "--all")[0] == 0
    moved = api.add(signed(made(attempt=21)), address="ucxl://a:agent@p:t/*^/elsewhere")
    code, out, error = run(capsys, "decision", "verify", "--all", "--json")
    assert (code, json.loads(out)) == (1, {"genuine": 7, "unreadable": 1, "not_genuine": 1})
    assert f"{moved}  not genuine: wrong_address" in error
    assert f"{gone}  unreadable" in error
    assert run(capsys, "decision", "verify", "--all", "--key", OTHER.peer_id)[1].startswith("0 genuine")


def test_lists_pass_their_filters_on(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.add(ENCODED)
    words = ["--agent", "b", "--project", "p", "--task", TASK, "--kind", "vote", "--text", "some words"]
    code, out, _ = run(capsys, "decisions", *words, "--since", "2h")
    assert (code, NAME[:12] in out) == (0, True)
    asked = dict(api.asked[0].url.params)
    assert asked.pop("since").endswith("+00:00")
    assert asked == {
        "agent": "b", "project": "p", "task_id": TASK, "kind": "vote", "text": "some words", "limit": "50",
    }  # fmt: skip
    code, _, error = run(capsys, "decisions", "--since", "soon")
    assert (code, "--since soon" in error) == (1, True)


def test_links_are_drawn(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.add(ENCODED)
    code, out, _ = run(capsys, "decisions", "--graph", "json")
    graph, record = json.loads(out), json.loads(ENCODED)
    assert code == 0
    assert [node["address"] for node in graph["nodes"]] == [record["address"]]
    (edge,) = graph["edges"]
    assert (edge["from"], edge["link"]) == (record["address"], "influenced_by")
    dot = run(capsys, "decisions", "--graph", "dot")[1]
    # What a title holds does not end its quotes.
    assert f'"{record["address"]}" [label="say \\"hi\\"\\\\\\n\\ncompleted\\ntask_result"];' in dot
    assert f'-> "{edge["to"]}" [label="influenced_by"];' in dot
    api.records[NAME] = ENCODED.replace(b'"true"', b'"tru3"')
    code, out, error = run(capsys, "decisions", "--graph", "json")
    assert (json.loads(out)["edges"], "altered" in error or "hash" in error) == ([], True)


def test_votes_are_cast_and_shown(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    vote = {
        "choice": "approve",
        "agent_id": "b",
        "voter": "p",
        "by": "ann",
        "reason": "short\x1b[1m",
        "at": "",
    }
    api.ballot = {
        "state": "open", "round": 1, "approve": 1, "reject": 0, "abstain": 0, "quorum": 2, "voters": 3,
        "ended_at": None, "closes_at": "2026-11-26T00:00:00.000Z", "votes": [vote],
    }  # fmt: skip
    words = ["approve", "--reason", "short", "--by", "ann", "--open", "2h", "--quorum", "2"]
    code, out, _ = run(capsys, "vote", NAME, *words)
    assert code == 0
    assert "b (ann): short" in out
    assert "\x1b" not in out
    assert json.loads(api.asked[-1].content) == {
        "vote": "approve", "reason": "short", "by": "ann", "open_s": 7200.0, "quorum": 2,
    }  # fmt: skip
    assert run(capsys, "vote", NAME, "--json")[0] == 0
    assert api.asked[-1].method == "GET"
    assert run(capsys, "vote", NAME, "approve", "--open", "long")[0] == 1
