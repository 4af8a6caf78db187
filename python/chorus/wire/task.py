"""A task as submitted: the fields of `POST /api/v1/tasks` and of a `task_announcement`, with their bounds.

A task has commands, or it is a goal, which an agent's model reaches by itself. What becomes of it is the
table's business.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    model_validator,
)

from chorus.wire.ids import ID_PATTERN
from chorus.wire.schema import Schema
from chorus.wire.source import INLINE_MAX_BYTES, INLINE_REQUEST_MAX_BYTES, Sha256, Source, check_path
from chorus.wire.times import TIME_MAX_MS, rfc3339, stamp_of

TITLE_MAX_CHARS = 200
DESCRIPTION_MAX_BYTES = 64 * 1024
COMMANDS_MAX = 64
COMMAND_MAX_BYTES = 16 * 1024
STDIN_MAX_BYTES = INLINE_MAX_BYTES
ENV_MAX_BYTES = 32 * 1024
ENV_MAX_NAMES = 128
TIMEOUT_MAX_S = 7 * 24 * 3600
DEPENDENCIES_MAX = 64
ARTIFACTS_MAX = 64
PROTECTED_MAX = 64
ATTEMPTS_MAX = 100
EXPERTISE_MAX = 64
BUDGET_STEPS_MAX = 10_000
BUDGET_TOKENS_MAX = 10**12
BUDGET_USD_MAX = 1_000_000
# Fields that a goal alone may set.
GOAL_FIELDS = ("setup", "checks", "protected", "budget", "required_model", "local_model", "continues")
# An entry holds 256 KiB; what is left is for the envelope around the task.
TASK_MAX_BYTES = 240 * 1024

_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")
_OPTIND = re.compile(r"[0-9]{1,9}")


def _size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("not Unicode: it holds half of a surrogate pair") from None


def _bytes(limit: int) -> AfterValidator:
    def check(text: str) -> str:
        if "\0" in text:
            raise ValueError("a zero byte is not allowed")
        size = _size(text)
        if size > limit:
            raise ValueError(f"{size} bytes, the limit is {limit}")
        return text

    return AfterValidator(check)


def _variables(values: dict[str, str]) -> dict[str, str]:
    for name, value in values.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name of an environment variable")
        if "\0" in value:
            raise ValueError(f"the value of {name} holds a zero byte")
        if name == "OPTIND" and not _OPTIND.fullmatch(value):
            raise ValueError(
                f"OPTIND is {value!r}: the shell that runs the commands ends at once unless it is a number; "
                "set it in the command itself"
            )
    size = sum(len(name) + _size(value) for name, value in values.items())
    if size > ENV_MAX_BYTES:
        raise ValueError(f"{size} bytes in all, the limit is {ENV_MAX_BYTES}")
    return values


def _workdir(path: str) -> str:
    return check_path(path) if path else path


def _glob(glob: str) -> str:
    # A folder as people write it.
    return check_path(glob.removeprefix("./").rstrip("/") or glob)


def _moment(value: datetime) -> datetime:
    if not 0 <= stamp_of(value) <= TIME_MAX_MS:
        raise ValueError("give a time of the years 1970 to 9998")
    return value


Moment = Annotated[AwareDatetime, AfterValidator(_moment)]
TaskId = Annotated[str, Field(pattern=ID_PATTERN)]
Word = Annotated[str, Field(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")]
Variables = Annotated[dict[str, str], Field(max_length=ENV_MAX_NAMES), AfterValidator(_variables)]
Command = Annotated[str, Field(min_length=1), _bytes(COMMAND_MAX_BYTES)]
Glob = Annotated[str, Field(min_length=1), _bytes(1024), AfterValidator(_glob)]


class Resources(Schema):
    """What a sandbox may use; the agent's own ceiling cuts it further."""

    model_config = ConfigDict(extra="forbid")

    cpus: Annotated[float, Field(gt=0, le=1024, allow_inf_nan=False)] = 1
    memory_mb: Annotated[int, Field(ge=16, le=16 * 1024 * 1024)] = 1024
    pids: Annotated[int, Field(ge=4, le=1_000_000)] = 128
    disk_mb: Annotated[int, Field(ge=1, le=16 * 1024 * 1024)] = 2048


class Budget(Schema):
    """What a goal may cost at most; None leaves it to the agent that runs it.

    `steps` are replies of the model, `tokens` all that it reads and writes, `usd` money in US dollars.
    """

    model_config = ConfigDict(extra="forbid")

    steps: Annotated[int, Field(ge=1, le=BUDGET_STEPS_MAX)] | None = None
    tokens: Annotated[int, Field(ge=1, le=BUDGET_TOKENS_MAX)] | None = None
    usd: Annotated[float, Field(gt=0, le=BUDGET_USD_MAX, allow_inf_nan=False)] | None = None


class TaskSubmission(Schema):
    """A task as somebody asks for it. Only `title` is required; unknown fields are refused.

    Without `commands` it is a goal. The fields in `GOAL_FIELDS` belong to goals: `setup` prepares the source,
    `checks` are commands that must pass on it once it is changed, `protected` are globs of files that the
    checks take from the source as sent, and `continues` is an ended goal whose patch and story it goes on
    from. A member takes it that has `required_model`, or, for `local_model`, one that stays on private
    addresses.
    """

    model_config = ConfigDict(extra="forbid")

    task_id: TaskId | None = None
    title: Annotated[str, Field(min_length=1, max_length=TITLE_MAX_CHARS), _bytes(4 * TITLE_MAX_CHARS)]
    description: Annotated[str, _bytes(DESCRIPTION_MAX_BYTES)] = ""
    language: Word = ""
    commands: Annotated[tuple[Command, ...], Field(max_length=COMMANDS_MAX)] = ()
    source: Source | None = None
    env: Variables = Field(default_factory=dict)
    secrets: Variables = Field(default_factory=dict)
    workdir: Annotated[str, AfterValidator(_workdir)] = ""
    stdin: Annotated[str, _bytes(INLINE_REQUEST_MAX_BYTES)] = ""
    stdin_sha256: Sha256 | Literal[""] = ""
    project: Word = ""
    required_role: Word = ""
    required_expertise: Annotated[tuple[Word, ...], Field(max_length=EXPERTISE_MAX)] = ()
    specialization: Word = ""
    priority: Annotated[int, Field(ge=0, le=10)] = 5
    timeout_s: Annotated[float, Field(gt=0, le=TIMEOUT_MAX_S, allow_inf_nan=False)] = 900
    start_by: Moment | None = None
    resources: Resources = Field(default_factory=Resources)
    network: Literal["none", "egress"] = "none"
    artifacts: Annotated[tuple[Glob, ...], Field(max_length=ARTIFACTS_MAX)] = ()
    depends_on: Annotated[tuple[TaskId, ...], Field(max_length=DEPENDENCIES_MAX)] = ()
    max_attempts: Annotated[int, Field(ge=1, le=ATTEMPTS_MAX)] = 3
    idempotency_key: Annotated[str, Field(max_length=256)] = ""
    submitted_by: Annotated[str, Field(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    submitted_at: Moment | None = None
    setup: Annotated[tuple[Command, ...], Field(max_length=COMMANDS_MAX)] = ()
    checks: Annotated[tuple[Command, ...], Field(max_length=COMMANDS_MAX)] = ()
    protected: Annotated[tuple[Glob, ...], Field(max_length=PROTECTED_MAX)] = ()
    budget: Budget = Field(default_factory=Budget)
    required_model: Word = ""
    local_model: bool = False
    continues: TaskId | None = None

    @model_validator(mode="after")
    def _together(self) -> TaskSubmission:
        if self.network == "egress":
            raise ValueError("network: egress is not supported yet; use none")
        if self.idempotency_key:
            raise ValueError("idempotency_key: not supported yet; send a task_id of your own instead")
        if self.stdin and self.stdin_sha256:
            raise ValueError("stdin: it and stdin_sha256 exclude each other")
        if self.task_id and self.task_id in self.depends_on:
            raise ValueError("depends_on: a task cannot wait for itself")
        if set(self.env) & set(self.secrets):
            raise ValueError("secrets: a name stands in env too")
        if self.task_id and self.task_id == self.continues:
            raise ValueError("continues: a task cannot continue itself")
        for name in GOAL_FIELDS if self.commands else ():
            if getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True):
                raise ValueError(f"{name}: only for a goal, which is a task without commands")
        return self

    @field_serializer("start_by", "submitted_at", when_used="json")
    def _time(self, value: datetime | None) -> str | None:
        return None if value is None else rfc3339(stamp_of(value))

    @property
    def is_goal(self) -> bool:
        """Whether it has no commands, so that a model has to reach it."""
        return not self.commands

    @property
    def goal(self) -> str:
        """What a goal asks for, in words; empty for a task with commands."""
        return (self.description or self.title) if self.is_goal else ""

    def body(self) -> dict[str, Any]:
        """The JSON of the task as HTTP and gossip carry it, defaults filled in.

        A task with commands has no fields of goals there: releases that know no goals refuse them.
        """
        return self.model_dump(mode="json", exclude=None if self.is_goal else set(GOAL_FIELDS))

    def entry(self) -> dict[str, Any]:
        """The JSON that the entry carries (`chorus.table.submitted`): times in milliseconds since 1970."""
        times = {name: getattr(self, name) for name in ("start_by", "submitted_at")}
        return {**self.body(), **{name: stamp_of(time) if time else None for name, time in times.items()}}

    @property
    def fits_entry(self) -> bool:
        """Whether source and stdin may travel in the entry; otherwise they are to be made blobs first."""
        inline = self.source.size if self.source is not None else 0
        return inline <= INLINE_MAX_BYTES and len(self.stdin.encode()) <= STDIN_MAX_BYTES

    @property
    def blobs(self) -> tuple[str, ...]:
        """The hashes of the blobs this task needs on disk before it can run."""
        source = self.source.blob if self.source is not None else ""
        return tuple(sha for sha in (source, self.stdin_sha256) if sha)

    @property
    def has_inputs(self) -> bool:
        """Whether something of it has to be in the sandbox before its commands run."""
        return bool(self.source is not None or self.stdin or self.stdin_sha256)


class TaskInvalid(ValueError):
    """A task that cannot be taken. `problems` has one `(field, what is wrong)` for each mistake."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{field}: {what}" if field else what for field, what in problems))


def parse_task(value: object) -> TaskSubmission:
    """Reads a task from decoded JSON; raises TaskInvalid naming every mistake at once."""
    try:
        return TaskSubmission.model_validate(value)
    except ValidationError as error:
        raise TaskInvalid([_problem(dict(item)) for item in error.errors(include_url=False)]) from None


def check_entry_size(task: TaskSubmission) -> None:
    """Raises TaskInvalid when the task cannot travel in an entry: too large, or its source is not named."""
    if not task.fits_entry:
        raise TaskInvalid(
            [("source", f"inline files or stdin above {INLINE_MAX_BYTES} bytes must be made a blob first")]
        )
    if task.source is not None and task.source.kind != "inline" and not task.source.sha256:
        raise TaskInvalid([("source.sha256", "missing: store the archive first and name it by its hash")])
    size = len(orjson.dumps(task.body()))
    if size > TASK_MAX_BYTES:
        raise TaskInvalid([("", f"the task holds {size} bytes in all, the limit is {TASK_MAX_BYTES}")])


def _problem(item: dict[str, Any]) -> tuple[str, str]:
    field = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return field, "unknown field"
    what = str(item["msg"]).removeprefix("Value error, ")
    # What is wrong with several fields together begins with the one to change.
    named, colon, rest = what.partition(": ")
    if not field and colon and named in TaskSubmission.model_fields:
        return named, rest
    return field, what
