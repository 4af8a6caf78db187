"""A task inside a `submit` entry and a goal inside a `goal` entry, as schemas that are frozen.

What HTTP takes today is `chorus.wire.task`, which fills in defaults and refuses what this release cannot do
before an entry is made. Here a task is only read, alike by every release: a new meaning of a field, or a new
field, is a new version. Pure.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, Strict

from chorus.wire.schema import Schema

# Frozen with the schema; what HTTP allows may be less.
TITLE_MAX_CHARS: Final = 200
DESCRIPTION_MAX_BYTES: Final = 64 * 1024
COMMANDS_MAX: Final = 64
COMMAND_MAX_BYTES: Final = 16 * 1024
INLINE_MAX_BYTES: Final = 64 * 1024
INLINE_MAX_FILES: Final = 4096
PATH_MAX_BYTES: Final = 1024
VARIABLES_MAX: Final = 128
VARIABLES_MAX_BYTES: Final = 64 * 1024
NAMES_MAX: Final = 64
TIMEOUT_MAX_S: Final = 7 * 24 * 3600
BUDGET_STEPS_MAX: Final = 10_000
BUDGET_TOKENS_MAX: Final = 10**12
BUDGET_USD_MAX: Final = 1_000_000
# The end of the year 9998, in milliseconds since 1970.
TIME_MAX_MS: Final = 253_370_764_799_999

_DAY_MS: Final = 86_400_000
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
# Agents before this schema wrote times as texts.
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def moment(value: object) -> object:
    """Milliseconds since 1970 of a time written as RFC 3339; anything else stays as it is.

    Raises ValueError for a text that is no time.
    """
    if not isinstance(value, str):
        return value
    found = _TIME.fullmatch(value)
    if found is None:
        raise ValueError("not a time")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("not a time")
    thousandths = int((found[7] or "").ljust(3, "0")[:3])
    away = int(found[9] or 0) * 60 + int(found[10] or 0)
    minutes = hour * 60 + minute + (away if found[8] == "-" else -away)
    days = date(year, month, day).toordinal() - _EPOCH_DAY
    return days * _DAY_MS + minutes * 60_000 + second * 1000 + thousandths


def _at_most(limit: int) -> AfterValidator:
    def check(text: str) -> str:
        if "\0" in text or len(text.encode()) > limit:
            raise ValueError("too long, or with a zero byte")
        return text

    return AfterValidator(check)


def _path(path: str) -> str:
    if "\0" in path or len(path.encode()) > PATH_MAX_BYTES or path.startswith(("/", "\\")):
        raise ValueError("not a path")
    if any(part in ("..", ".", "") for part in path.split("/")):
        raise ValueError("not a path")
    return path


def _maybe_path(path: str) -> str:
    return _path(path) if path else path


def _variables(values: dict[str, str]) -> dict[str, str]:
    if sum(len(name) + len(value.encode()) for name, value in values.items()) > VARIABLES_MAX_BYTES:
        raise ValueError("too long")
    if any(not _VARIABLE.fullmatch(name) or "\0" in value for name, value in values.items()):
        raise ValueError("not a variable")
    return values


def _files(files: dict[str, str]) -> dict[str, str]:
    for path in files:
        _path(path)
    if sum(len(path.encode()) + len(text.encode()) for path, text in files.items()) > INLINE_MAX_BYTES:
        raise ValueError("too long")
    return files


TaskId = Annotated[str, Field(pattern=r"^[0-9A-Z]{26}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MaybeSha256 = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
Moment = Annotated[int, BeforeValidator(moment), Field(ge=0, le=TIME_MAX_MS)]
Word = Annotated[str, Field(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")]
Name = Annotated[str, Field(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
Variables = Annotated[dict[str, str], Field(max_length=VARIABLES_MAX), AfterValidator(_variables)]
Command = Annotated[str, Field(min_length=1), _at_most(COMMAND_MAX_BYTES)]
Glob = Annotated[str, Field(min_length=1), AfterValidator(_path)]
# JSON knows no tuples; everything else is taken as it is, or not at all.
Words = Annotated[tuple[Word, ...], Strict(False), Field(max_length=NAMES_MAX)]
Commands = Annotated[tuple[Command, ...], Strict(False), Field(max_length=COMMANDS_MAX)]
Globs = Annotated[tuple[Glob, ...], Strict(False), Field(max_length=NAMES_MAX)]
TaskIds = Annotated[tuple[TaskId, ...], Strict(False), Field(max_length=NAMES_MAX)]


class Part(Schema):
    """A part of a task: nothing beside its fields, no value turned into another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Resources(Part):
    """What a sandbox may use."""

    cpus: Annotated[float, Field(gt=0, le=1024)] = 1
    memory_mb: Annotated[int, Field(ge=16, le=16 * 1024 * 1024)] = 1024
    pids: Annotated[int, Field(ge=4, le=1_000_000)] = 128
    disk_mb: Annotated[int, Field(ge=1, le=16 * 1024 * 1024)] = 2048


class Source(Part):
    """Where the task's files come from."""

    kind: Literal["inline", "archive", "blob", "git"]
    url: Annotated[str, Field(max_length=2048)] = ""
    ref: Annotated[str, Field(max_length=256)] = ""
    files: Annotated[dict[str, str], Field(max_length=INLINE_MAX_FILES), AfterValidator(_files)] = Field(
        default_factory=dict
    )
    sha256: MaybeSha256 = ""


class SubmittedTask(Part):
    """A task as an entry carries it and as the table keeps it. Times are milliseconds since 1970."""

    task_id: TaskId | None = None
    title: Annotated[str, Field(min_length=1, max_length=TITLE_MAX_CHARS), _at_most(4 * TITLE_MAX_CHARS)]
    description: Annotated[str, _at_most(DESCRIPTION_MAX_BYTES)] = ""
    language: Word = ""
    commands: Commands = ()
    source: Source | None = None
    env: Variables = Field(default_factory=dict)
    secrets: Variables = Field(default_factory=dict)
    workdir: Annotated[str, AfterValidator(_maybe_path)] = ""
    stdin: Annotated[str, _at_most(INLINE_MAX_BYTES)] = ""
    stdin_sha256: MaybeSha256 = ""
    project: Word = ""
    required_role: Word = ""
    required_expertise: Words = ()
    specialization: Word = ""
    priority: Annotated[int, Field(ge=0, le=10)] = 5
    timeout_s: Annotated[float, Field(gt=0, le=TIMEOUT_MAX_S)] = 900
    start_by: Moment | None = None
    resources: Resources = Field(default_factory=Resources)
    network: Literal["none", "egress"] = "none"
    artifacts: Globs = ()
    depends_on: TaskIds = ()
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    idempotency_key: Annotated[str, Field(max_length=256)] = ""
    submitted_by: Name = ""
    submitted_at: Moment | None = None

    def body(self, task_id: str) -> dict[str, Any]:
        """The task as the table keeps it, under the id that its entry gives it."""
        return {**self.model_dump(mode="json"), "task_id": task_id}


class Budget(Part):
    """What a goal may cost at most; None leaves it to the agent that runs it."""

    steps: Annotated[int, Field(ge=1, le=BUDGET_STEPS_MAX)] | None = None
    tokens: Annotated[int, Field(ge=1, le=BUDGET_TOKENS_MAX)] | None = None
    usd: Annotated[float, Field(gt=0, le=BUDGET_USD_MAX)] | None = None


class SubmittedGoal(SubmittedTask):
    """A task without commands, which a model reaches: of version 3 of the table."""

    commands: Annotated[Commands, Field(max_length=0)] = ()
    setup: Commands = ()
    checks: Commands = ()
    protected: Globs = ()
    budget: Budget = Field(default_factory=Budget)
    required_model: Word = ""
    local_model: bool = False
    continues: TaskId | None = None
