"""The first record of a goal's journal: the task, its limits, its files, and what is known about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from chorus.config import AiSettings
from chorus.executor.driver import Job
from chorus.executor.goal.inputs import Begun
from chorus.wire.task import TaskSubmission

NAMES_MAX: Final = 200
# A task may ask for so many times the steps, tokens and money that a run has when it asks for none.
CEILING_TIMES: Final = 10

Number = TypeVar("Number", int, float)


def record(
    job: Job,
    begun: Begun,
    ai: AiSettings,
    *,
    role: str,
    language: str,
    word: str,
    context: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """The fields of `start`. `word` is the random word of the marks around data."""
    task = job.task
    names = sorted(begun.begun)
    fields: dict[str, Any] = {
        "goal": task.goal,
        "title": task.title,
        "language": language,
        "workdir": job.workdir,
        "setup": list(task.setup),
        "checks": list(task.checks),
        "protected": list(task.protected),
        "budget": _budget(task, ai),
        "timeout_s": task.timeout_s,
        "files": {"count": len(names), "names": [_shown(name) for name in names[:NAMES_MAX]]},
        "taken": begun.taken,
        "context": list(context),
        "word": word,
        "role": role,
        "network": task.network,
    }
    if begun.earlier is not None:
        fields["continues"] = begun.earlier.summary
    return fields


def budget_words(task: TaskSubmission, ai: AiSettings) -> list[str]:
    """Where the budget that holds is not what the task asks for, in words."""
    holds, words = _budget(task, ai), []
    for name, asked in task.budget:
        if asked is not None and holds[name] < asked:
            words.append(f"budget.{name} is {holds[name]:g} instead of {asked:g}: this agent allows no more")
    models = sorted({ai.model_of(name) for name in ai.providers} - ai.prices.keys())
    if task.budget.usd is not None and models:
        costs = f"what {', '.join(models)} costs"
        words.append(f"budget.usd does not count {costs}: CHORUS_AI_PRICES has no price for it")
    return words


def _budget(task: TaskSubmission, ai: AiSettings) -> dict[str, Any]:
    """Steps, tokens and USD that a run may take; None: no limit."""
    asked = task.budget
    return {
        "steps": _limit(asked.steps, ai.max_steps),
        "tokens": _limit(asked.tokens, ai.max_tokens),
        "usd": asked.usd if ai.max_usd is None else _limit(asked.usd, ai.max_usd),
    }


def _limit(asked: Number | None, usual: Number) -> Number:
    return usual if asked is None else min(asked, usual * CEILING_TIMES)


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
