"""The first record of a goal's journal: the task, its limits, its files, and what is known about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chorus.config import AiSettings
from chorus.executor.driver import Job
from chorus.executor.goal.inputs import Begun
from chorus.wire.task import TaskSubmission

NAMES_MAX: Final = 200
# A task may ask for so many times the steps and tokens that a run has when it asks for none.
CEILING_TIMES: Final = 10


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
        "budget": {
            "steps": _limit(task.budget.steps, ai.max_steps),
            "tokens": _limit(task.budget.tokens, ai.max_tokens),
            "usd": task.budget.usd,
        },
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


def unpriced(task: TaskSubmission, ai: AiSettings) -> str:
    """What a budget in money does not count, in words; empty when it counts everything, or there is none."""
    models = sorted({ai.model_of(name) for name in ai.providers} - ai.prices.keys())
    if task.budget.usd is None or not models:
        return ""
    return f"budget.usd does not count what {', '.join(models)} costs: CHORUS_AI_PRICES has no price for it"


def _limit(asked: int | None, usual: int) -> int:
    return min(asked or usual, usual * CEILING_TIMES)


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
