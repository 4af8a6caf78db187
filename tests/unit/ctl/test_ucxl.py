"""`chorusctl ucxl` without a mesh: its words, pages, repeats, and what is sent."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from chorus.ctl import ucxl
from chorus.ctl.cli import build_parser, main
from chorus.ctl.client import Client
from chorus.ctl.contexts import Endpoint, Target
from chorus.ctl.problems import CtlError

ADDRESS = "ucxl://a:agent@p:t/*^/dir/a.md"


def row(address: str = "ucxl://a:agent@p:t/*~1/dir/a.md", **more: Any) -> dict[str, Any]:
    made = {
        "address": address, "version": 1, "latest": 1, "deleted": False, "size": 1,
        "content_type": "text/plain", "agent_id": "agent-1", "author": "peer",
        "created_at": "2026-03-01T12:00:00.000Z", "index": 9,
    }  # fmt: skip
    return {**made, **more}


def said(data: Any) -> httpx.Response:
    return httpx.Response(200, json={"response": {"code": "UCXL-200-SUCCESS", "data": data}})


class Mesh:
    """Two agents that answer from a list, and what they were asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.asked = list(answers), list[httpx.Request]()
        self.client = Client(Target((Endpoint("http://a", "t"), Endpoint("http://b", "t"))))
        self.client._http = httpx.Client(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run(self, *words: str) -> int:
        arguments = build_parser().parse_args(["ucxl", *words])
        return int(getattr(ucxl, words[0])(self.client, arguments))


def test_options_stand_before_or_after_the_verb() -> None:
    parse = build_parser().parse_args
    for words in (["--json", "--context", "x", "get", ADDRESS], ["get", "--json", "--context", "x", ADDRESS]):
        arguments = parse(["ucxl", *words])
        assert (arguments.json, arguments.context, arguments.address) == (True, "x", ADDRESS)
    plain = parse(["ucxl", "query"])
    assert (plain.json, plain.context, plain.address) == (False, None, "ucxl://any:any@any:any/*^/")
    with pytest.raises(SystemExit):
        parse(["ucxl"])


def test_completion_knows_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        told = capsys.readouterr().out
        for word in ("history", "follow", "since"):
            assert word in told


def test_a_put_is_repeated_elsewhere_under_one_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytes(range(256))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    mesh = Mesh(httpx.ConnectError("gone"), said(row()))
    assert mesh.run("put", ADDRESS, "--after", "3") == 0
    first, second = mesh.asked
    assert (first.url.host, second.url.host) == ("a", "b")
    assert first.content == second.content == content
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert (second.headers["if-match"], second.headers["content-type"]) == ('"3"', "text/markdown")
    assert second.url.params["address"] == ADDRESS
    assert capsys.readouterr().out == "ucxl://a:agent@p:t/*~1/dir/a.md\n"


def test_the_media_type_is_said_or_guessed(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "nameless").write_text("")
    for words, expected in (
        ((ADDRESS, str(tmp_path / "x.json"), "--type", "a/b"), "a/b"),
        ((ADDRESS, str(tmp_path / "x.json")), "application/json"),
        ((ADDRESS, str(tmp_path / "nameless")), "text/markdown"),
        (("ucxl://a:agent@p:t/*^/x", str(tmp_path / "nameless")), "application/octet-stream"),
    ):
        mesh = Mesh(said(row()))
        mesh.run("put", *words)
        assert mesh.asked[0].headers["content-type"] == expected
    with pytest.raises(CtlError, match="no-such"):
        Mesh().run("put", ADDRESS, str(tmp_path / "no-such"))


def test_lists_go_through_all_pages(capsys: pytest.CaptureFixture[str]) -> None:
    pages = [said({"items": [row(version=n)], "next": "c" if n < 3 else None}) for n in (1, 2, 3)]
    mesh = Mesh(*pages)
    assert mesh.run("query", "--json", "--text", "words") == 0
    assert [item["version"] for item in json.loads(capsys.readouterr().out)["items"]] == [1, 2, 3]
    assert [request.url.params.get("cursor") for request in mesh.asked] == [None, "c", "c"]
    assert mesh.asked[0].url.params["text"] == "words"
    mesh = Mesh(said({"items": [row(), row()], "next": "c"}))
    mesh.run("query", "--limit", "2")
    assert len(mesh.asked) == 1


def test_a_history_is_asked_for_by_its_place() -> None:
    mesh = Mesh(said({"items": [], "next": None}))
    mesh.run("history", ADDRESS)
    assert mesh.asked[0].url.params["address"] == ADDRESS.replace("*^", "*~")
    with pytest.raises(CtlError, match=r"\*\^"):
        Mesh().run("history", ADDRESS.replace("*^", "*~2"))


def test_a_tree_says_each_step_once(capsys: pytest.CaptureFixture[str]) -> None:
    items = [
        row("ucxl://b:agent@p:t/*~1/dir/b"), row("ucxl://a:agent@p:t/*~2/dir/b", latest=2),
        row("ucxl://a:agent@p:t/*~1/dir/a"), row("ucxl://a:agent@q:t/*~1/"),
    ]  # fmt: skip
    Mesh(said({"items": items, "next": None})).run("tree")
    assert capsys.readouterr().out.splitlines() == [
        "p", "  t", "    a:agent", "      dir", "        a  (1 version)", "        b  (2 versions)",
        "    b:agent", "      dir", "        b  (1 version)", "q", "  t", "    a:agent",
        "        (1 version)",
    ]  # fmt: skip


def test_following_begins_now_and_goes_on_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("chorus.ctl.follow.PAUSE_FIRST_S", 0.001)
    monkeypatch.setattr("chorus.ctl.follow.GIVE_UP_S", 0.01)
    name = json.dumps(row(agent_id="a\x1b[2Jb"))
    stream = httpx.ByteStream(f"id: 12\nevent: version\ndata: {name}\n\n".encode())
    event = httpx.Response(200, stream=stream)
    mesh = Mesh(said({"applied": 7}), httpx.ConnectError("gone"), event, *[httpx.ConnectError("gone")] * 50)
    with pytest.raises(CtlError, match="cannot be followed"):
        mesh.run("follow", ADDRESS)
    assert [request.headers.get("last-event-id") for request in mesh.asked[:4]] == [None, "7", "7", "12"]
    assert mesh.asked[1].url.params["address"] == ADDRESS
    told = capsys.readouterr().out
    assert "  1 byte  " in told
    assert "\x1b" not in told
