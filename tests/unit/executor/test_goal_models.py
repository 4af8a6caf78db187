"""Which goals an agent takes: those that a model of its own fits, and none without one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chorus.config import AiSettings
from chorus.config.load import load_settings
from chorus.executor.goal import models
from chorus.executor.goal.model_rest import FIRST_S, MAX_S, ModelRest
from chorus.hub import Hub, Request
from chorus.testing.fake_hub import FakeMesh
from chorus.wire.task import parse_task

LOCAL = {"provider": "ollama", "model": "small", "local": True}
REMOTE = {"provider": "resetdata", "model": "large", "local": False}


def ai(provider: str) -> AiSettings:
    return replace(load_settings({"CHORUS_LICENSE_ID": "dev-x"}).ai, provider=provider)


async def agent(answers: list[dict[str, Any]]) -> Hub:
    """The hub of an executor whose mind answers these one after the other, and then the last for ever."""
    mesh = FakeMesh()

    async def mind(request: Request) -> dict[str, Any]:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    if answers:
        await mesh.hub("a", "mind").offer("mind", mind)
    return mesh.hub("a", "executor")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, ""),
        ({"required_model": "large"}, ""),
        ({"local_model": True}, ""),
        ({"local_model": True, "required_model": "large"}, "no model large answers here"),
        ({"required_model": "other"}, "no model other answers here"),
    ],
)
async def test_a_goal_is_taken_with_a_model_that_fits(fields: dict[str, Any], why: str) -> None:
    hub = await agent([{"models": [LOCAL, REMOTE], "reason": "", "ready": True}])
    assert await models.why_not(hub, ai("ollama"), parse_task({"title": "t", **fields}), ModelRest()) == why


async def test_without_a_provider_no_goal_is_taken() -> None:
    hub = await agent([{"models": [LOCAL]}])
    assert (
        await models.why_not(hub, ai("none"), parse_task({"title": "t"}), ModelRest()) == models.NO_PROVIDER
    )
    assert await models.said(hub, ai("none"), ModelRest()) == {
        "models": [],
        "model_reason": models.NO_PROVIDER,
    }


async def test_a_model_that_is_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_PATIENCE_S", 0.0)
    hub = await agent([{"models": [], "reason": "connection refused", "ready": False}])
    why = await models.why_not(hub, ai("ollama"), parse_task({"title": "t"}), ModelRest())
    assert why == "no model answers here: connection refused"
    nobody = await agent([])
    assert "mind does not answer" in await models.why_not(
        nobody, ai("ollama"), parse_task({"title": "t"}), ModelRest()
    )


@pytest.mark.parametrize("said", [{}, {"models": "x"}, {"models": [1, None], "reason": 7}])
async def test_whatever_mind_says_is_borne(monkeypatch: pytest.MonkeyPatch, said: dict[str, Any]) -> None:
    monkeypatch.setattr(models, "_PATIENCE_S", 0.0)
    hub = await agent([said])
    assert "no model answers here" in await models.why_not(
        hub, ai("ollama"), parse_task({"title": "t"}), ModelRest()
    )


async def test_a_mind_that_is_being_restarted_is_waited_for() -> None:
    hub = await agent([{"models": [], "reason": ""}, {"models": [LOCAL], "reason": ""}])
    assert await models.why_not(hub, ai("ollama"), parse_task({"title": "t"}), ModelRest()) == ""


async def test_a_goal_that_came_back_gives_the_models_a_rest() -> None:
    hub, now = await agent([{"models": [LOCAL], "reason": "", "ready": True}]), [0.0]
    rest, task = ModelRest(lambda: now[0]), parse_task({"title": "t"})
    rest.away("out of memory")
    known = await models.said(hub, ai("ollama"), rest)
    assert known["models"] == []
    assert "out of memory" in known["model_reason"]
    assert "out of memory" in await models.why_not(hub, ai("ollama"), task, rest)
    now[0] += FIRST_S - 0.1
    # The text stays: another one would be an entry of its own.
    assert (await models.said(hub, ai("ollama"), rest)) == known
    now[0] += 0.1
    assert (await models.said(hub, ai("ollama"), rest))["models"] == [LOCAL]
    assert await models.why_not(hub, ai("ollama"), task, rest) == ""


def test_the_rest_grows_up_to_a_limit_until_a_model_answers() -> None:
    now, rests = [0.0], list[float]()
    rest = ModelRest(lambda: now[0])
    for _ in range(7):
        begun = now[0]
        rest.away("why")
        rest.away("another goal at the same time")
        while rest.reason:
            now[0] += 1
        rests.append(now[0] - begun)
    assert rests == [FIRST_S, 20, 40, 80, 160, MAX_S, MAX_S]
    rest.there()
    rest.away("why")
    now[0] += FIRST_S
    assert rest.reason == ""
