"""chorusctl without a mesh: packing, following, exit codes, contexts, words."""

from __future__ import annotations

import dataclasses
import fcntl
import itertools
import json
import threading
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from chorus.ctl import attend, contexts
from chorus.ctl import client as client_module
from chorus.ctl import run as run_module
from chorus.ctl.cli import build_parser, main
from chorus.ctl.client import Client, Unreachable
from chorus.ctl.contexts import AgentEntry, Endpoint, MeshContext, Target
from chorus.ctl.exit_codes import exit_code
from chorus.ctl.follow import follow, parse
from chorus.ctl.problems import CtlError
from chorus.ctl.run import task_of


def test_events_are_parsed_at_every_cut() -> None:
    stream = (
        b'retry: 1\n\n: hi\n\nid: 1-1\nevent: output\ndata: {"base64":"AP8="}\n\nevent: gap\ndata: {}\n\n'
    )
    for cut in range(len(stream)):
        events = list(parse(iter([stream[:cut], stream[cut:]])))
        assert [(event.id, event.event) for event in events] == [("1-1", "output"), ("", "gap")]
        assert events[0].output() == b"\x00\xff"


def served(
    monkeypatch: pytest.MonkeyPatch, answers: Any, urls: tuple[str, ...] = ("http://a", "http://b")
) -> Client:
    made = Client(Target(tuple(Endpoint(url, "t") for url in urls)))
    made._http = httpx.Client(transport=httpx.MockTransport(answers))
    monkeypatch.setattr("chorus.ctl.follow.PAUSE_FIRST_S", 0.001)
    return made


def test_following_goes_on_at_another_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.host, request.headers.get("last-event-id")))
        if len(asked) == 1:
            return httpx.Response(
                200, stream=httpx.ByteStream(b'id: 1-1\nevent: output\ndata: {"text":"x"}\n\n')
            )
        if len(asked) == 2:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, stream=httpx.ByteStream(b"id: 1-2\nevent: end\ndata: {}\n\n"))

    with served(monkeypatch, answer) as client:
        assert [event.id for event in follow(client, "T")] == ["1-1", "1-2"]
    assert asked == [("a", None), ("b", "1-1"), ("a", "1-1")]


def test_following_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr("chorus.ctl.follow.GIVE_UP_S", 0.01)
    with served(monkeypatch, answer) as client, pytest.raises(Unreachable):
        list(follow(client, "T"))


def test_threads_that_meet_the_same_agent_away_all_ask_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(4, timeout=20)
    away = itertools.count()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "a":
            if next(away) < together.parties:
                together.wait()
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json={})

    with served(monkeypatch, answer) as client, ThreadPoolExecutor(together.parties) as pool:
        asked = [pool.submit(client.get, "/api/v1/mesh") for _ in range(together.parties)]
        assert [each.result() for each in asked] == [{}] * together.parties
    assert [endpoint.url for endpoint in client.endpoints] == ["http://b", "http://a"]


def test_requests_go_to_the_next_agent_and_say_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "a":
            raise httpx.ConnectError("refused")
        problem = {"detail": "no", "errors": [{"field": "title", "message": "missing"}]}
        return httpx.Response(422, json=problem)

    with served(monkeypatch, answer) as client, pytest.raises(client_module.Refused) as refused:
        client.get("/x")
    assert "title: missing" in str(refused.value)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ({"state": "completed", "exit_code": 0, "ended_by": "exit"}, 0),
        ({"state": "completed", "exit_code": None, "ended_by": "finished"}, 0),
        ({"state": "completed", "exit_code": "0", "ended_by": None}, 0),
        ({"state": "failed", "exit_code": 3, "ended_by": "exit"}, 3),
        ({"state": "failed", "exit_code": 137, "ended_by": "timeout"}, 124),
        ({"state": "failed", "exit_code": 137, "ended_by": "out_of_memory"}, 137),
        ({"state": "failed", "exit_code": None, "ended_by": "daemon"}, 125),
        ({"state": "expired"}, 125),
        ({"state": "cancelled"}, 130),
    ],
)
def test_exit_codes(end: dict[str, Any], code: int) -> None:
    assert exit_code(end) == code


def run_arguments(*words: str) -> Namespace:
    return build_parser().parse_args(["run", *words])


def test_the_command_is_kept_word_by_word() -> None:
    task = task_of(
        run_arguments("--language", "python", "--env", "A=b=c", "--", "python3", "-c", "print(6*7)")
    )
    assert task["commands"] == ["python3 -c 'print(6*7)'"]
    assert (task["env"], task["language"]) == ({"A": "b=c"}, "python")
    assert task_of(run_arguments("--", "echo a; echo b"))["commands"] == ["echo a; echo b"]
    with pytest.raises(CtlError):
        task_of(run_arguments())
    with pytest.raises(CtlError):
        task_of(run_arguments("--env", "x", "--", "true"))


def test_what_the_sandbox_may_use() -> None:
    task = task_of(run_arguments("--memory", "2GB", "--cpus", "0.5", "--", "true"))
    assert task["resources"] == {"memory_mb": 2048, "cpus": 0.5}
    task = task_of(run_arguments("--disk", "1048577", "--pids", "300", "--", "true"))
    assert task["resources"] == {"disk_mb": 2, "pids": 300}
    assert "resources" not in task_of(run_arguments("--", "true"))


@pytest.mark.parametrize(
    "words",
    [["--cpus", "nan"], ["--cpus", "0"], ["--cpus", "inf"], ["--memory", "much"], ["--pids", "0.5"]],
)
def test_what_no_sandbox_can_use_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_arguments(*words, "--", "true")
    assert ended.value.code == 2
    assert f"argument {words[0]}: " in capsys.readouterr().err


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def entry(folder: Path, name: str = "agent-1") -> AgentEntry:
    (folder / "token").write_text("secret\n")
    return AgentEntry(name, "http://127.0.0.1:1", "http://127.0.0.1:2", "/ip4", str(folder / "token"), "d", 0)


def test_which_mesh(state: Path) -> None:
    with pytest.raises(CtlError, match="chorusctl up"):
        contexts.target(None, {})
    contexts.save(MeshContext("one", "dev-1", (entry(state),)))
    contexts.save(MeshContext("two", "dev-2", (entry(state, "agent-2"),)))
    assert contexts.target(None, {}).endpoints[0].agent_id == "agent-2"
    assert contexts.target("one", {"CHORUS_API_URL": "http://x"}).endpoints[0].agent_id == "agent-1"
    environ = {"CHORUS_API_URL": "http://x/", "CHORUS_API_TOKEN_FILE": str(state / "token")}
    assert contexts.target(None, environ).endpoints == (Endpoint("http://x", "secret"),)
    with pytest.raises(CtlError, match="CHORUS_API_TOKEN"):
        contexts.target(None, {"CHORUS_API_URL": "http://x"})
    two = contexts.load("two")
    assert two is not None
    contexts.remove(two)
    assert contexts.last_name() is None
    for bad in ("../x", "", "a b"):
        with pytest.raises(CtlError):
            contexts.load(bad)


def test_an_agent_whose_folder_is_lost_does_not_keep_the_others_from_being_asked(state: Path) -> None:
    lost = dataclasses.replace(entry(state), token_file=str(state / "gone" / "token"))
    contexts.save(MeshContext("one", "dev-1", (lost, entry(state, "agent-2"))))
    assert [endpoint.agent_id for endpoint in contexts.target("one", {}).endpoints] == ["agent-2"]
    contexts.save(MeshContext("one", "dev-1", (lost,)))
    with pytest.raises(CtlError, match="gone/token"):
        contexts.target("one", {})


def test_the_agent_on_the_default_port_is_found(state: Path) -> None:
    folder = state / "chorus" / "p2p-9000"
    folder.mkdir(parents=True)
    (folder / "agent.json").write_text(json.dumps({"ports": {"api": 8080}}))
    (folder / "api-token").write_text("t\n")
    assert contexts.target(None, {}).endpoints == (Endpoint("http://127.0.0.1:8080", "t"),)


def test_words(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        assert "doctor" in capsys.readouterr().out
    assert main(["down"]) == 1
    assert "chorusctl: no mesh" in capsys.readouterr().err
    assert main(["status"]) == 2
    assert main([]) == 2
    assert main(["--version"]) == 0


def log_agent(length: int, asked: list[str]) -> Any:
    """An agent's log of so many entries, every third of type `rare`, in pages that are short on purpose."""

    def entry(seq: int) -> dict[str, Any]:
        kind = "rare" if seq % 3 == 0 else "plain\n"
        return {"seq": seq, "type": kind, "timestamp": 0, "author": "p", "data": {"seq": seq}}

    def answer(request: httpx.Request) -> httpx.Response:
        query = request.url.params
        asked.append(f"{request.url.host}{request.url.path}")
        if "follow" in query:
            start = int(query["cursor"])
            lines = [f"id: {start}\nevent: entry\ndata: {json.dumps(entry(start))}\n\n"]
            if start >= length + 3:
                lines = ['event: error\ndata: {"message": "damaged"}\n\n']
            return httpx.Response(200, stream=httpx.ByteStream("".join(lines).encode()))
        if request.url.path.endswith("verify"):
            said = {"genuine": length > 0, "checked": 4, "length": length, "byte_length": 9, "fork": 1}
            said |= {"key": "k", "peer_id": "p", "unfinished": None, "error": {"message": "entry 4 is bad"}}
            text = 'event: progress\ndata: {"checked": 1, "length": 2}\n\n'
            text += f"event: end\ndata: {json.dumps(said)}\n\n"
            return httpx.Response(200, stream=httpx.ByteStream(text.encode()))
        cursor = int(query.get("cursor", length))
        looked = range(cursor - 1, max(-1, cursor - 6), -1)
        found = [entry(seq) for seq in looked if query.get("type") in (None, entry(seq)["type"])]
        found = found[: int(query["limit"])]
        after = found[-1]["seq"] if len(found) == int(query["limit"]) else max(0, cursor - 5)
        body = {"items": found, "next": str(after) if after else None, "length": length, "key": "k"}
        return httpx.Response(200, json=body)

    return answer


def run_log(monkeypatch: pytest.MonkeyPatch, words: list[str], length: int = 20) -> tuple[int, list[str]]:
    asked: list[str] = []
    client = served(monkeypatch, log_agent(length, asked))
    monkeypatch.setattr("chorus.ctl.log.PAUSE_FIRST_S", 0.001)
    monkeypatch.setattr("chorus.ctl.cli._connect", lambda arguments: client)
    return main(["log", *words]), asked


def seqs(text: str) -> list[int]:
    return [int(line.split()[0]) for line in text.splitlines()]


def test_the_last_entries_of_the_log_in_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_log(monkeypatch, ["-n", "7"])[0] == 0
    out = capsys.readouterr().out
    assert seqs(out) == list(range(13, 20))
    assert "1970-01-01T00:00:00.000Z  plain" in out
    assert run_log(monkeypatch, ["-n", "3", "--type", "rare", "--json"])[0] == 0
    assert [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()] == [12, 15, 18]
    assert run_log(monkeypatch, [], length=0)[0] == 0
    assert capsys.readouterr().out == ""


def test_the_log_is_followed_over_broken_connections(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, asked = run_log(monkeypatch, ["-f", "-n", "1"])
    said = capsys.readouterr()
    assert (code, seqs(said.out)) == (1, [19, 20, 21, 22])
    assert "the log cannot be read on: damaged" in said.err
    # Another agent has another log.
    assert {line.partition("/")[0] for line in asked} == {"a"}


def test_the_log_is_verified(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_log(monkeypatch, ["--verify"])[0] == 0
    assert "genuine: 20 entries, 9 bytes, signed by p" in capsys.readouterr().out
    assert run_log(monkeypatch, ["--verify"], length=0)[0] == 1
    assert "not genuine: entry 4 is bad; the 4 entries before it fit" in capsys.readouterr().err
    assert run_log(monkeypatch, ["--verify", "--json"])[0] == 0
    assert json.loads(capsys.readouterr().out)["genuine"] is True


def test_a_log_at_rest_needs_no_agent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("chorus.ctl.cli._connect", lambda arguments: pytest.fail("no agent is asked"))
    assert main(["log", "--verify", "--dir", str(tmp_path)]) == 1
    assert "not genuine: not found: a log in" in capsys.readouterr().err
    assert main(["log", "--dir", str(tmp_path)]) == 2
    lock = tmp_path / "agent.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert main(["log", "--verify", "--dir", str(tmp_path)]) == 1
        assert "is running; ask it" in capsys.readouterr().err
    assert main(["log", "--verify", "--dir", str(tmp_path)]) == 1
    assert "not genuine" in capsys.readouterr().err


def test_an_agent_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_log(monkeypatch, ["--agent", "nobody"])[0] == 1
    assert "this mesh has no agent nobody; it has http://a, http://b" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "cancelled"), [(httpx.ConnectError("refused"), False), (httpx.ReadTimeout("silent"), True)]
)
def test_only_a_task_that_an_agent_may_have_heard_of_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, error: httpx.TransportError, cancelled: bool
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    told: list[str] = []
    over = attend.Canceller.over
    monkeypatch.setattr(attend, "taken", lambda client, task_id: True)
    monkeypatch.setattr(attend.Canceller, "over", lambda self: (told.append("over"), over(self)))
    with served(monkeypatch, answer) as client, pytest.raises(CtlError) as refused:
        run_module.run(client, run_arguments("--", "true"))
    assert ("is cancelled if an agent answers" in str(refused.value)) == cancelled
    assert told == ([] if cancelled else ["over"])
