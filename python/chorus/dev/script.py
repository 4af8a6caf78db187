"""The form of a script, and how scripts are read from files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

SCRIPT_BYTES_MAX: Final = 4 * 1024 * 1024
# In a folder, each file of this name is a script.
GOAL_FILE: Final = "goal.yaml"


class ScriptInvalid(ValueError):
    """A file that is no script; the text names the file, the field and what is wrong."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Call(_Part):
    """A tool call. `arguments` as text is sent as it stands: it need not be JSON."""

    tool: str
    arguments: dict[str, Any] | str = Field(default_factory=dict)


class Reply(_Part):
    """One answer of the model.

    `finish` "length" says that the answer was cut. `status` answers with that HTTP status and no reply.
    `fault` "broken" closes the connection in mid-answer, "exit" ends the server with it. A status or fault
    meets the first `times` requests at this place of the script (0: all of them); later ones are answered.
    `delay_s` passes before the answer begins.
    """

    text: str = ""
    calls: tuple[Call, ...] = ()
    finish: Literal["stop", "length"] = "stop"
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    retry_after_s: float | None = None
    fault: Literal["broken", "exit"] | None = None
    times: Annotated[int, Field(ge=0)] = 0
    delay_s: Annotated[float, Field(ge=0, le=3600)] = 0.0


class Discussed(_Part):
    """What to say in a discussion whose text has all the words of `when`."""

    when: tuple[str, ...] = ()
    intent: Literal["proposal", "question", "answer", "update", "objection", "agreement", "escalation"]
    message: str
    citations: tuple[dict[str, str], ...] = ()
    # Of an objection: the number of the earlier one to the same point.
    repeats: int | None = None


class Script(_Part):
    """What is said in every conversation whose opening has the text of `goal` (empty: in every one).

    `replies` are a run's steps in order; with `repeat` they begin again after the last one. `plan` answers
    the question for a plan, `advise` a question for advice, `summary` one for a summary of earlier turns. Of
    `discuss` the first that fits is said; where none does, the model agrees.
    """

    goal: str = ""
    replies: tuple[Reply, ...] = ()
    repeat: bool = False
    plan: str = "Look at the files, make the change, and run the checks."
    discuss: tuple[Discussed, ...] = ()
    advise: str = "Read the error again from its first line, and look at the file that it names."
    summary: str = "Files were read, commands were run; the goal is as it was."


def load_scripts(path: Path) -> tuple[Script, ...]:
    """The scripts of a file, or of all `goal.yaml` below a folder.

    A file holds one script, a list of them, or a goal with its script under `script`. Raises ScriptInvalid,
    and OSError when it cannot be read.
    """
    if path.is_dir():
        files = sorted(path.rglob(GOAL_FILE))
        if not files:
            raise ScriptInvalid(f"{path}: no {GOAL_FILE} in this folder")
        return tuple(script for file in files for script in load_scripts(file))
    with path.open("rb") as file:
        content = file.read(SCRIPT_BYTES_MAX + 1)
    if len(content) > SCRIPT_BYTES_MAX:
        raise ScriptInvalid(f"{path}: more than {SCRIPT_BYTES_MAX} bytes")
    try:
        document = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ScriptInvalid(f"{path}: no YAML: {error}") from None
    documents = document if isinstance(document, list) else [document]
    return tuple(_script(path, one) for one in documents)


def _script(path: Path, document: Any) -> Script:
    if isinstance(document, dict) and isinstance(document.get("script"), dict):
        document = {"goal": document.get("goal", ""), **document["script"]}
    try:
        return Script.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ScriptInvalid(f"{path}: {where}: {first['msg']}") from None
