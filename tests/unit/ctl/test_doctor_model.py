"""What the doctor says of models: whether there is one, what is missing, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from chorus.ctl import doctor, model_check
from chorus.dev import ModelServer, policy

Answer = Callable[[httpx.Request], httpx.Response]
OLLAMA = {"OLLAMA_ENDPOINT": "http://o:1", "OLLAMA_MODEL": "m:1"}
RESETDATA = {
    "CHORUS_AI_PROVIDER": "resetdata",
    "RESETDATA_BASE_URL": "https://r",
    "RESETDATA_API_KEY": "the-key",
    "RESETDATA_MODEL": "org/m",
}


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*OLLAMA, *RESETDATA, "CHORUS_AI_FALLBACK", "CHORUS_API_URL", "CHORUS_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> tuple[list[httpx.Request], list[Answer | Exception]]:
    """What was asked, and what answers."""
    seen, answers = list[httpx.Request](), list[Answer | Exception]()

    def request(method: str, url: str, **more: Any) -> httpx.Response:
        assert (more.pop("trust_env"), more.pop("follow_redirects")) == (False, False)
        more.pop("timeout")
        seen.append(httpx.Request(method, url, **more))
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer(seen[-1])

    monkeypatch.setattr(model_check.httpx, "request", request)
    return seen, answers


def found(monkeypatch: pytest.MonkeyPatch, **environ: str) -> list[tuple[bool, str, str]]:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    findings = doctor._model()
    # An agent without a model works.
    assert not any(finding.needed for finding in findings)
    return [(finding.ok, finding.detail, finding.remedy) for finding in findings]


def says(status: int, body: object) -> Answer:
    return lambda request: httpx.Response(status, json=body)


def test_no_provider_is_said_with_how_to_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    [(ok, detail, remedy)] = found(monkeypatch)
    assert not ok
    assert "commands only" in detail
    assert "CHORUS_AI_PROVIDER" in remedy


@pytest.mark.parametrize(
    ("answer", "ok", "detail", "remedy"),
    [
        (says(200, {"capabilities": ["completion", "tools"]}), True, "has m:1, which calls tools", ""),
        (says(200, {"model_info": {}}), True, "has m:1; whether it calls tools", ""),
        (says(200, {"capabilities": ["completion"]}), False, "calls no tools", "ollama show"),
        (says(404, {"error": "model 'm:1' not found"}), False, "has no model m:1", "ollama pull m:1"),
        (says(500, {}), False, "with status 500", "OLLAMA_ENDPOINT"),
        (says(307, {}), False, "with status 307", "OLLAMA_ENDPOINT"),
        (says(200, []), False, "with no JSON", "OLLAMA_ENDPOINT"),
        (lambda _: httpx.Response(200, text="<html>"), False, "with no JSON", "OLLAMA_ENDPOINT"),
        (httpx.ConnectError("refused"), False, "does not answer: refused", "ollama serve"),
        (httpx.ReadTimeout(""), False, "does not answer: ReadTimeout", "ollama serve"),
    ],
)
def test_an_ollama_is_asked_for_its_model(
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[list[httpx.Request], list[Any]],
    answer: Any,
    ok: bool,
    detail: str,
    remedy: str,
) -> None:
    asked[1].append(answer)
    [said] = found(monkeypatch, **OLLAMA)
    assert said[0] is ok
    assert detail in said[1]
    assert remedy in said[2]
    assert str(asked[0][0].url) == "http://o:1/api/show"
    assert json.loads(asked[0][0].content) == {"model": "m:1"}


@pytest.mark.parametrize(
    ("answer", "ok", "detail", "remedy"),
    [
        (says(200, {"data": [{"id": "org/m"}, 3]}), True, "has org/m", ""),
        (says(200, {"data": [{"id": "other"}]}), False, "has no model org/m", "RESETDATA_MODEL"),
        (says(200, {"data": 3}), True, "does not say whether", ""),
        (says(404, {}), True, "does not say whether", ""),
        (says(401, {}), False, "does not take the key", "RESETDATA_API_KEY"),
        (says(503, {}), False, "with status 503", "RESETDATA_BASE_URL"),
        (httpx.ConnectError("refused"), False, "does not answer", "RESETDATA_BASE_URL"),
    ],
)
def test_the_other_wire_is_asked_for_its_list(
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[list[httpx.Request], list[Any]],
    answer: Any,
    ok: bool,
    detail: str,
    remedy: str,
) -> None:
    asked[1].append(answer)
    [said] = found(monkeypatch, **RESETDATA)
    assert said[0] is ok
    assert detail in said[1]
    assert remedy in said[2]
    assert "the-key" not in said[1] + said[2]
    assert str(asked[0][0].url) == "https://r/v1/models"
    assert asked[0][0].headers["Authorization"] == "Bearer the-key"


def test_both_providers_are_asked(monkeypatch: pytest.MonkeyPatch, asked: Any) -> None:
    asked[1].extend([says(200, {"data": [{"id": "org/m"}]}), httpx.ConnectError("refused")])
    said = found(monkeypatch, **RESETDATA, **OLLAMA, CHORUS_AI_FALLBACK="ollama")
    assert [ok for ok, _, _ in said] == [True, False]


def test_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    [(ok, detail, _)] = found(monkeypatch, CHORUS_AI_PROVIDER="resetdata")
    assert not ok
    assert "RESETDATA_BASE_URL" in detail


def test_a_server_over_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with ModelServer(policy("oracle")) as server:
        [(ok, detail, _)] = found(monkeypatch, OLLAMA_ENDPOINT=server.url, OLLAMA_MODEL=server.model)
    assert ok, detail
    assert f"has {server.model}, which calls tools" in detail
