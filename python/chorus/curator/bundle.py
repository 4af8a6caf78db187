"""What goes into a task's context: its matter, and which of the candidates are worth their tokens. Pure.

Reading and verifying the records is left to whoever gets the bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chorus.curator.index import Candidate, Matter
from chorus.curator.words import FILES_MAX, QUERY_WORDS_MAX, file_names, words
from chorus.decisions import component

# A few decisions are read; many are skipped over.
ITEMS_MAX = 5
BUDGET_TOKENS = 2_000
# Counted without a model's own tokenizer: English and code have about so many characters to a token.
CHARS_PER_TOKEN = 4
SUMMARY_MAX_CHARS = 1_200
# Of the weight of a task's words, what an earlier decision has to share when it shares no file.
SHARE_MIN = 0.35
# The same inside a project of one's own.
SHARE_MIN_IN_PROJECT = 0.15
_COMMANDS_MAX_CHARS = 16_000
_KINDS = frozenset({"task_result", "hmmm_outcome"})


@dataclass(frozen=True, slots=True)
class Choice:
    """An earlier decision that matters, and why."""

    hash: str
    address: str
    why: tuple[str, ...]


def matter_of(task: Mapping[str, Any]) -> Matter:
    """What a task, as submitted, is about."""
    commands = [str(command) for name in ("commands", "checks") for command in task.get(name) or ()]
    said = [str(task.get("title") or ""), str(task.get("description") or ""), *commands]
    title = tuple(words(said[0]))
    others = [word for word in words("\n".join(said)[:_COMMANDS_MAX_CHARS]) if word not in title]
    source = task.get("source") or {}
    named = [str(path) for path in (source.get("files") or {})] + [
        str(glob) for glob in task.get("artifacts") or () if "*" not in str(glob)
    ]
    files = dict.fromkeys([*file_names(named), *file_names(said)])
    return Matter(
        project=component(str(task["project"])) if task.get("project") else "",
        title=title,
        words=tuple(others[: QUERY_WORDS_MAX - len(title)]),
        files=tuple(files)[:FILES_MAX],
    )


def choose(
    candidates: Iterable[Candidate],
    *,
    own: str | None = None,
    rejected: Callable[[str], bool] = lambda _: False,
) -> list[Choice]:
    """The few that matter, the closest first. `own` is the address of the task's own decision.

    Left out: what was superseded or voted down, and older decisions on what is the same to a reader.
    """
    chosen: list[Choice] = []
    seen: set[tuple[str, str]] = set()
    for item in candidates:
        least = SHARE_MIN_IN_PROJECT if item.same_project else SHARE_MIN
        if item.kind not in _KINDS or item.superseded or item.address == own:
            continue
        if not item.files and item.share < least:
            continue
        # Many runs of one thing: the newest of the closest stands for all.
        same = (item.project, item.title)
        if same in seen or rejected(item.hash):
            continue
        seen.add(same)
        chosen.append(Choice(item.hash, item.address, _why(item)))
        if len(chosen) == ITEMS_MAX:
            break
    return chosen


def excerpt(record: Mapping[str, Any]) -> str:
    """What of a verified record a reader needs, in a few lines."""
    decided = record["decided"]
    reason = f" ({decided['reason']})" if decided["reason"] else ""
    text = f"{record['title']}: {decided['outcome']}{reason}. {record['summary']}"
    return text if len(text) <= SUMMARY_MAX_CHARS else text[: SUMMARY_MAX_CHARS - 1] + "…"


def tokens(text: str) -> int:
    """About how many tokens a model reads it as."""
    return -(-len(text) // CHARS_PER_TOKEN)


def _why(item: Candidate) -> tuple[str, ...]:
    said = ["project"] if item.same_project else []
    if item.files:
        said.append("files: " + ", ".join(item.files[:4]))
    if item.words:
        said.append("words: " + ", ".join(item.words[:8]))
    return tuple(said)
