"""The report of a goal in its result, made from the records of its journal. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chorus.executor import summary
from chorus.executor.goal.records import PROMPT
from chorus.executor.patch import Patch

# What an entry has room for: it holds 256 KiB, with the summary, the commands and the artifacts in it.
LEFT_OUT_MAX: Final = 50
_CHECKS_BYTES: Final = 24 * 1024
_REASON_CHARS: Final = 500
_PATH_CHARS: Final = 500


@dataclass(slots=True)
class Tally:
    """Adds up what the model did."""

    provider: str = ""
    model: str = ""
    steps: int = 0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float | None = None
    model_s: float = 0.0
    summary: str = ""
    prompts_sha256: str = ""
    checks: list[dict[str, Any]] = field(default_factory=list)

    def add(self, record: Mapping[str, Any]) -> None:
        """Counts a record of the loop, as the journal has it."""
        if record["kind"] == "note" and record["kind2"] == PROMPT:
            self.prompts_sha256 = hashlib.sha256(record["text"].encode("utf-8", "replace")).hexdigest()
        if not record.get("model"):
            return
        self.provider, self.model = record["provider"][:64], record["model"][:64]
        self.tokens_in += record.get("tokens_in", 0)
        self.tokens_out += record.get("tokens_out", 0)
        self.model_s += record.get("seconds", 0.0)
        # One request, whatever it was for.
        self.calls += 1
        if record.get("usd") is not None:
            self.usd = (self.usd or 0.0) + record["usd"]
        if record["kind"] == "reply":
            self.steps = max(self.steps, record["step"])


def goal_report(
    tally: Tally,
    *,
    unchecked: bool,
    checks: Sequence[Mapping[str, Any]],
    patch: Patch | None,
    patch_sha256: str,
    transcript_sha256: str,
    discussion: str | None,
) -> dict[str, Any]:
    """The `goal` of a result; long lists and texts are cut."""
    return {
        "provider": tally.provider,
        "model": tally.model,
        "prompts_sha256": tally.prompts_sha256,
        "steps": tally.steps,
        "calls": tally.calls,
        "tokens_in": tally.tokens_in,
        "tokens_out": tally.tokens_out,
        "usd": None if tally.usd is None else round(tally.usd, 9),
        "model_s": round(tally.model_s, 3),
        "unchecked": unchecked,
        "checks": _shortened([dict(one) for one in checks]),
        "patch": None if patch is None or not patch.text else _patch(patch, patch_sha256),
        "transcript_sha256": transcript_sha256,
        "discussion": discussion,
    }


def _patch(patch: Patch, sha256: str) -> dict[str, Any]:
    left_out = [
        {"path": summary.shorten(one.path, _PATH_CHARS), "reason": summary.shorten(one.reason, _REASON_CHARS)}
        for one in patch.left_out[:LEFT_OUT_MAX]
    ]
    if (more := len(patch.left_out) - LEFT_OUT_MAX) > 0:
        left_out.append({"path": "", "reason": f"{more} more were left out"})
    return {"sha256": sha256, "size": len(patch.text), "files": patch.files, "left_out": left_out}


def _shortened(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    room = _CHECKS_BYTES // max(1, len(checks))
    return [{**one, "command": summary.shorten(one["command"], room)} for one in checks]


# Of a goal that ended before its run began.
NOTHING_DONE: Final = goal_report(
    Tally(),
    unchecked=False,
    checks=(),
    patch=None,
    patch_sha256="",
    transcript_sha256="",
    discussion=None,
)
