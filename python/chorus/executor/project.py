"""The file `.chorus.yaml` of a source: what a project says once, so that its goals need not say it."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from chorus.executor.patch.tree import LINK, Tree
from chorus.wire.schema import Schema
from chorus.wire.task import (
    ARTIFACTS_MAX,
    COMMANDS_MAX,
    Command,
    Glob,
    TaskSubmission,
    Variables,
    Word,
)

# At the top of the source.
PROJECT_FILE: Final = ".chorus.yaml"
PROJECT_BYTES_MAX: Final = 64 * 1024

Task = TypeVar("Task", bound=TaskSubmission)


class Project(Schema):
    """What `.chorus.yaml` may say; all of it as the fields of a goal of the same names."""

    model_config = ConfigDict(extra="forbid", strict=True)

    language: Word = ""
    setup: Annotated[tuple[Command, ...], Field(max_length=COMMANDS_MAX, strict=False)] = ()
    checks: Annotated[tuple[Command, ...], Field(max_length=COMMANDS_MAX, strict=False)] = ()
    protected: Annotated[tuple[Glob, ...], Field(max_length=ARTIFACTS_MAX, strict=False)] = ()
    artifacts: Annotated[tuple[Glob, ...], Field(max_length=ARTIFACTS_MAX, strict=False)] = ()
    env: Variables = Field(default_factory=dict)


class ProjectInvalid(ValueError):
    """A `.chorus.yaml` that cannot be used; the message names each field and what to do about it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(f"{PROJECT_FILE}: {'; '.join(problems)}")
        self.problems = problems


def read_project(content: bytes) -> Project:
    """Reads the file; an empty one says nothing. Raises ProjectInvalid."""
    # PyYAML takes 1 MB, and few repositories have such a file.
    from chorus.config import plain_yaml

    try:
        value = plain_yaml.load(content, bytes_max=PROJECT_BYTES_MAX)
    except plain_yaml.YamlInvalid as invalid:
        raise ProjectInvalid([str(invalid)]) from None
    if value is None:
        return Project()
    if not isinstance(value, dict):
        raise ProjectInvalid([f"expected fields, as in `checks: [make test]`; there are {_fields()}"])
    try:
        return Project.model_validate(value)
    except ValidationError as error:
        raise ProjectInvalid(_problems(error)) from None


def project_of(tree: Tree) -> Project:
    """What the project file of a source says. Raises ProjectInvalid, OSError when it cannot be read."""
    file = tree.get(PROJECT_FILE)
    if file is None:
        return Project()
    if file.mode == LINK:
        raise ProjectInvalid(["it is a link; send the file itself"])
    if file.size > PROJECT_BYTES_MAX:
        raise ProjectInvalid([f"it is larger than {PROJECT_BYTES_MAX} bytes"])
    return read_project(file.read())


def merge(task: Task, project: Project) -> tuple[Task, list[str]]:
    """The task with what it leaves open filled in, and the names of the fields that the project gave
    (`env.NAME` for a variable). What the task says itself stays.

    Raises ProjectInvalid when both together are more than a task may say.
    """
    given: dict[str, Any] = {}
    for name in ("language", "setup", "checks", "protected", "artifacts"):
        if (value := getattr(project, name)) and not getattr(task, name):
            given[name] = value
    variables = {
        name: value
        for name, value in project.env.items()
        if name not in task.env and name not in task.secrets
    }
    taken = [*given, *(f"env.{name}" for name in variables)]
    if not taken:
        return task, []
    given["env"] = {**variables, **task.env}
    try:
        merged = type(task).model_validate({**task.model_dump(), **given})
    except ValidationError as error:
        raise ProjectInvalid([f"{problem} (with the task's own)" for problem in _problems(error)]) from None
    return merged, taken


def _fields() -> str:
    return ", ".join(Project.model_fields)


def _problems(error: ValidationError) -> list[str]:
    return [_problem(dict(item)) for item in error.errors(include_url=False)]


def _problem(item: dict[str, Any]) -> str:
    field = ".".join(str(part) for part in item["loc"])[:200]
    what = str(item["msg"]).removeprefix("Value error, ")
    match item["type"]:
        case "extra_forbidden":
            what = f"unknown field; there are {_fields()}"
        case "string_type":
            what = f"a text is expected: put {item['input']!r:.80} into quotation marks"
        case "tuple_type":
            what = "a list is expected: write each entry on a line of its own, after `- `"
        case "dict_type":
            what = "names with values are expected, as in `NAME: value`"
        case "too_long":
            what = f"at most {item['ctx']['max_length']} entries are allowed; there are more"
    return f"{field}: {what}"
