"""What a run may take: what its task asks for, below the agent's ceilings, and what is not counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chorus.config import AiSettings
from chorus.config.load import load_settings
from chorus.executor.backend import Limits
from chorus.executor.driver import Job
from chorus.executor.goal import start
from chorus.executor.goal.inputs import Begun
from chorus.wire.ids import new_id
from chorus.wire.task import parse_task


def ai(**changes: Any) -> AiSettings:
    known = load_settings({"CHORUS_LICENSE_ID": "dev-x"}).ai
    return replace(known, max_steps=25, max_tokens=1000, **changes)


def holds(settings: AiSettings, **budget: Any) -> dict[str, Any]:
    """The budget of a run whose task asks for one."""
    task = parse_task({"title": "t", "budget": budget})
    job = Job(new_id(), 1, task, (), Limits(1, 1, 1, 1), Path())
    begun = Begun(task, {}, {}, None, [])
    said = start.record(job, begun, settings, role="", language="", word="w", context=())
    found: dict[str, Any] = said["budget"]
    return found


@pytest.mark.parametrize(("asked", "given"), [(None, 25), (3, 3), (40, 40), (250, 250), (251, 250)])
def test_a_task_may_ask_for_more_steps_up_to_the_ceiling(asked: int | None, given: int) -> None:
    assert holds(ai(), **({} if asked is None else {"steps": asked}))["steps"] == given


@pytest.mark.parametrize(("asked", "given"), [(None, 1000), (7, 7), (9999, 9999), (10**9, 10_000)])
def test_a_task_may_ask_for_more_tokens_up_to_the_ceiling(asked: int | None, given: int) -> None:
    assert holds(ai(), **({} if asked is None else {"tokens": asked}))["tokens"] == given


@pytest.mark.parametrize(
    ("usual", "asked", "given"),
    [(None, None, None), (None, 7.5, 7.5), (2.0, None, 2.0), (2.0, 0.5, 0.5), (2.0, 20, 20), (2.0, 21, 20)],
)
def test_a_task_may_ask_for_more_money_up_to_the_ceiling(
    usual: float | None, asked: float | None, given: float | None
) -> None:
    assert holds(ai(max_usd=usual), **({} if asked is None else {"usd": asked}))["usd"] == given


def test_a_budget_that_is_cut_to_the_ceiling_is_said() -> None:
    task = parse_task({"title": "t", "budget": {"steps": 251, "tokens": 10_000, "usd": 21}})
    words = start.budget_words(task, ai(max_usd=2.0, prices={"m": (1.0, 1.0)}, ollama_model="m"))
    assert words == [
        "budget.steps is 250 instead of 251: this agent allows no more",
        "budget.usd is 20 instead of 21: this agent allows no more",
    ]


@pytest.mark.parametrize(
    ("usd", "prices", "named"),
    [
        (None, {}, ""),
        (1.5, {"small": (1.0, 2.0), "large": (1.0, 2.0)}, ""),
        (1.5, {"large": (1.0, 2.0)}, "does not count what small costs"),
        (1.5, {}, "does not count what large, small costs"),
    ],
)
def test_what_a_budget_in_money_does_not_count_is_said(usd: float | None, prices: Any, named: str) -> None:
    task = parse_task({"title": "t", "budget": {} if usd is None else {"usd": usd}})
    settings = ai(
        provider="ollama", fallback="resetdata", ollama_model="small", resetdata_model="large", prices=prices
    )
    words = "; ".join(start.budget_words(task, settings))
    assert named in words
    assert bool(words) is bool(named)
