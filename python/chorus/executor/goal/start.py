"""The first record of a goal's journal: the task, its limits, its files, and what is known about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chorus.config import AiSettings
from chorus.executor.driver import Job
from chorus.executor.goal.inputs import Begun

NAMES_MAX: Final = 200


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
            "steps": min(task.budget.steps or ai.max_steps, ai.max_steps),
            "tokens": min(task.budget.tokens or ai.max_tokens, ai.max_tokens),
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


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
