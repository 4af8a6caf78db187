"""`chorusctl config`: all mistakes at once, the source of each value, and no secret on the screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chorus.ctl import cli
from chorus.ctl.config import MASK

SECRET = "a cluster secret that nobody may read"
TOKEN = "a-token-that-nobody-may-read"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without settings."""
    import os

    for name in list(os.environ):
        if name.startswith(("CHORUS_", "OLLAMA_", "RESETDATA_")) or name in ("ASSIGN_URL", "DOCKER_HOST"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = cli.main(["config", *words])
    return code, capsys.readouterr().out


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, Any]]:
    code, out = call(capsys, "show", "--json", *words)
    assert code == 0
    return {row["name"]: row for row in json.loads(out)["settings"]}


def test_every_wrong_setting_is_named_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHORUS_API_PORT", "many")
    monkeypatch.setenv("CHORUS_VOTERS", "0")
    monkeypatch.setenv("CHORUS_API_TOKEN", "short")
    monkeypatch.setenv("CHORUS_VOTER", "3")
    code, out = call(capsys, "check", "--json")
    said = json.loads(out)
    assert (code, said["ok"]) == (1, False)
    named = [problem.partition(":")[0] for problem in said["problems"]]
    assert named == ["CHORUS_LICENSE_ID", "CHORUS_API_PORT", "CHORUS_API_TOKEN", "CHORUS_VOTERS"]
    assert all("expected" in problem for problem in said["problems"][1:])
    assert "did you mean CHORUS_VOTERS" in said["warnings"][0]
    assert "short" not in out
    code, out = call(capsys, "check")
    assert (code, out.count("wrong ")) == (1, 4)


def test_what_is_well(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHORUS_LICENSE_ID", "dev-123")
    monkeypatch.setenv("CHORUS_P2P_HOST", "0.0.0.0")
    code, out = call(capsys, "check")
    assert code == 0
    assert "ok " in out
    assert "listens beyond loopback" in out


def test_each_value_has_its_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("CHORUS_LICENSE_ID", "dev-0123456789abcdef")
    monkeypatch.setenv("CHORUS_API_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("CHORUS_AGENT_MAX_TASKS", "7")
    rows = shown(capsys)
    said = {name: (row["value"], row["source"]) for name, row in rows.items()}
    assert said["CHORUS_AGENT_MAX_TASKS"] == ("7", "environment")
    assert said["CHORUS_API_TOKEN"] == (MASK, "file")
    assert said["CHORUS_CLUSTER_SECRET"] == (MASK, "licence")
    assert said["CHORUS_P2P_HOST"] == ("127.0.0.1,::1", "licence")
    assert said["CHORUS_ELECTION_TIMEOUT"] == ("15s", "default")
    assert said["CHORUS_DATA_DIR"] == (f"{tmp_path}/.local/state/chorus/p2p-9000", "default")
    assert said["CHORUS_LICENSE_ID"] == ("development …cdef", "environment")
    assert rows["CHORUS_AGENT_MAX_TASKS"]["live"]
    assert not rows["CHORUS_P2P_PORT"]["live"]


def test_no_secret_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHORUS_LICENSE_ID", "dev-0123456789abcdef")
    monkeypatch.setenv("CHORUS_CLUSTER_SECRET", SECRET)
    monkeypatch.setenv("CHORUS_API_TOKEN", TOKEN)
    monkeypatch.setenv("RESETDATA_API_KEY", "a-key-that-nobody-may-read")
    for words in (("show",), ("show", "--json"), ("check",), ("check", "--json")):
        code, out = call(capsys, *words)
        assert code == 0
        assert "nobody" not in out
        assert "0123456789" not in out


def test_a_file_of_variables_stands_in_for_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHORUS_API_PORT", "many")
    path = tmp_path / "agent.env"
    path.write_text("# an agent\n\nCHORUS_LICENSE_ID=dev-1\nCHORUS_AGENT_ROLE = reviewer\n")
    assert shown(capsys, "--env-file", str(path))["CHORUS_AGENT_ROLE"]["value"] == "reviewer"
    assert call(capsys, "check", "--env-file", str(path))[0] == 0


def test_what_is_assigned_is_shown_as_such(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHORUS_LICENSE_ID", "dev-1")
    monkeypatch.setenv("CHORUS_AGENT_ROLE", "tester")
    monkeypatch.setenv("CHORUS_AGENT_MAX_TASKS", "7")
    path = tmp_path / "one.json"
    path.write_text('{"agent_id": "one", "role": "reviewer", "expertise": ["rust", "go"]}')
    monkeypatch.setenv("ASSIGN_URL", path.as_uri())
    rows = {name: (row["value"], row["source"]) for name, row in shown(capsys).items()}
    assert rows["CHORUS_AGENT_ID"] == ("one", "assignment")
    assert rows["CHORUS_AGENT_ROLE"] == ("reviewer", "assignment")
    assert rows["CHORUS_AGENT_EXPERTISE"] == ("rust,go", "assignment")
    assert rows["CHORUS_AGENT_MAX_TASKS"] == ("7", "environment")
    path.write_text('{"role": 3}')
    assert shown(capsys)["CHORUS_AGENT_ROLE"]["value"] == "tester"
    assert cli.main(["config", "show"]) == 0
    assert "ASSIGN_URL: role: expected" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"CHORUS_LICENSE_ID\n", b"\xff=1\n", b"export A=1\n", None])
def test_a_file_that_is_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "agent.env"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["config", "check", "--env-file", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


def test_with_a_licence_server_cluster_and_secret_are_the_licences(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHORUS_LICENSE_ID", "prod-1")
    monkeypatch.setenv("CHORUS_KACHING_URL", "https://kaching.example")
    code, out = call(capsys, "check")
    assert (code, out.count("wrong ")) == (1, 1)
    assert "CHORUS_KACHING_PUBLIC_KEY is not set" in out
    monkeypatch.setenv("CHORUS_KACHING_PUBLIC_KEY", "5e" * 32)
    assert call(capsys, "check")[0] == 0
    rows = shown(capsys)
    assert (rows["CHORUS_CLUSTER_ID"]["value"], rows["CHORUS_CLUSTER_ID"]["source"]) == (
        "(from the licence)",
        "licence",
    )
    assert (rows["CHORUS_CLUSTER_SECRET"]["value"], rows["CHORUS_CLUSTER_SECRET"]["source"]) == (
        MASK,
        "licence",
    )
    monkeypatch.setenv("CHORUS_KACHING_URL", "http://kaching.example")
    code, out = call(capsys, "check")
    assert (code, out.count("wrong ")) == (1, 1)
    assert "an https URL" in out
