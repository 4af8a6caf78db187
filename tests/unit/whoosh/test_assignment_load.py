"""Loading the assignment from a server over a real socket: bounds, the copy, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chorus.config.private import is_private
from chorus.dev import WhooshServer
from chorus.whoosh import FetchFailed, Load, fetch, fetching, load, shown


def nothing_wrong(document: object) -> list[str]:
    return []


@pytest.fixture
def whoosh(tmp_path: Path) -> Iterator[WhooshServer]:
    folder = tmp_path / "assignments"
    folder.mkdir()
    with WhooshServer(folder) as server:
        yield server


def say(server: WhooshServer, name: str = "default", **fields: Any) -> None:
    (server.folder / f"{name}.json").write_text(json.dumps(fields))


def loaded(server: WhooshServer, copy: Path, token: str = "") -> Load:
    done = load(f"{server.url}/assignments/agent.3.json", token, copy, nothing_wrong)
    if done.copy is not None:
        done.copy.save(copy)
    return done


def test_templates_serve_the_replicas(whoosh: WhooshServer, tmp_path: Path) -> None:
    say(whoosh, agent_id="replica-{slot}", role="developer")
    first, second = loaded(whoosh, tmp_path / "copy"), loaded(whoosh, tmp_path / "copy")
    assert first.document == second.document
    assert first.document is not None
    assert first.document.agent_id == "replica-3"
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    # The second time nothing had to be sent.
    assert second.copy is None
    assert [seen["etag"] != "" for seen in whoosh.seen] == [False, True]
    say(whoosh, role="reviewer")
    third = loaded(whoosh, tmp_path / "copy")
    assert third.document is not None
    assert third.document.fields == {"role": "reviewer"}


@pytest.mark.parametrize("mode", ["failing", "wrong", "garbled", "huge", "looping", "elsewhere"])
def test_the_copy_counts_when_the_server_has_nothing_good(
    whoosh: WhooshServer, tmp_path: Path, mode: str
) -> None:
    whoosh.be(mode)
    say(whoosh, role="developer")
    without = loaded(whoosh, tmp_path / "copy")
    assert (without.document, without.source) == (None, None)
    assert without.error or without.refused
    whoosh.be("well")
    good = loaded(whoosh, tmp_path / "copy")
    whoosh.be(mode)
    again = loaded(whoosh, tmp_path / "copy")
    assert (again.document, again.source) == (good.document, "copy")
    assert (again.error, again.refused) == (without.error, without.refused)


def test_wrong_fields_are_all_named(whoosh: WhooshServer, tmp_path: Path) -> None:
    whoosh.be("wrong")
    say(whoosh)
    refused = "\n".join(loaded(whoosh, tmp_path / "copy").refused)
    assert all(field in refused for field in ("role", "max_tasks", "colour"))


def test_a_server_that_says_nothing_is_given_up(
    whoosh: WhooshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "FETCH_TIMEOUT_S", 0.2)
    whoosh.be("silent")
    say(whoosh)
    assert "timed out" in loaded(whoosh, tmp_path / "copy").error


def test_the_copy_of_another_address_is_not_used(whoosh: WhooshServer, tmp_path: Path) -> None:
    say(whoosh, role="developer")
    loaded(whoosh, tmp_path / "copy")
    whoosh.be("failing")
    assert load(f"{whoosh.url}/assignments/b.json", "", tmp_path / "copy", nothing_wrong).document is None
    for content in (b"", b"{}", b"[]", b"\xff", b'{"url": 1}'):
        (tmp_path / "copy").write_bytes(content)
        assert loaded(whoosh, tmp_path / "copy").document is None


def test_what_does_not_fit_this_agent_is_refused_like_a_wrong_field(
    whoosh: WhooshServer, tmp_path: Path
) -> None:
    say(whoosh, role="developer")
    url = f"{whoosh.url}/assignments/a.json"
    assert load(url, "", tmp_path / "copy", lambda document: ["role: no keys"]).refused == ("role: no keys",)


def test_a_token_is_shown_to_the_server_that_was_named(tmp_path: Path) -> None:
    (tmp_path / "default.json").write_text("{}")
    with WhooshServer(tmp_path, token="t0ken") as server:
        url = f"{server.url}/assignments/a.json"
        with pytest.raises(FetchFailed, match="401, look at ASSIGN_TOKEN"):
            fetch(url)
        assert fetch(url, "t0ken").content == b"{}"


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "with a blank.json"
    path.write_text('{"role": "admin"}')
    url = path.as_uri()
    assert load(url, "", tmp_path / "copy", nothing_wrong).document is not None
    path.write_bytes(b" " * (fetching.DOCUMENT_MAX_BYTES + 1))
    with pytest.raises(FetchFailed, match="larger than"):
        fetch(url)
    path.unlink()
    with pytest.raises(FetchFailed, match="No such file"):
        fetch(url)


def test_who_could_have_changed_it_on_the_way() -> None:
    for url in ("https://h/a", "file:///a", "http://127.0.0.1:1/a", "http://[::1]/a", "http://localhost/a"):
        assert is_private(url), url
    for url in ("http://10.0.0.1/a", "http://localhost.example/a", "http://127.0.0.1.example/a"):
        assert not is_private(url), url
    assert shown("https://h/a?key=secret#x") == "https://h/a"
