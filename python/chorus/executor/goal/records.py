"""The records of a goal's journal that the loop appends, with their bounds. Pure.

The executor makes its own records where what they tell happens.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from chorus.wire.schema import DEFERRED, Schema
from chorus.wire.task import BUDGET_STEPS_MAX

# A reply holds 64 KiB of text and as much in its calls; a character may take six bytes in JSON.
RECORD_BYTES_MAX = 1024 * 1024
TEXT_CHARS_MAX = 256 * 1024
CALLS_MAX = 64
# The note with the system prompt that a run began with.
PROMPT = "prompt"

Id = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(max_length=TEXT_CHARS_MAX)]
Name = Annotated[str, Field(max_length=256)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Amount = Annotated[float, Field(ge=0, le=2**53, allow_inf_nan=False)]
StepNumber = Annotated[int, Field(ge=1, le=BUDGET_STEPS_MAX)]


class RecordInvalid(ValueError):
    """A record that the journal does not take; the message names the field."""


class _Cost(Schema):
    """What a record cost, and who was asked; all zero where nobody was."""

    model_config = ConfigDict(extra="forbid", strict=True)

    provider: Name = ""
    model: Name = ""
    tokens_in: Count = 0
    tokens_out: Count = 0
    seconds: Amount = 0.0
    usd: Amount | None = None


class ReplyCall(Schema):
    """One call of a reply."""

    model_config = ConfigDict(extra="forbid", strict=True)

    call: Annotated[int, Field(ge=1, le=CALLS_MAX)]
    tool: Name
    arguments: dict[str, Any]


class Reply(_Cost):
    """What the model said as step `step`."""

    kind: Literal["reply"]
    step: StepNumber
    text: Text
    calls: Annotated[tuple[ReplyCall, ...], Field(max_length=CALLS_MAX, strict=False)]
    unreadable: Text = ""
    # The calls stood in the text of a model that could have called tools.
    written: bool = False
    finish: Literal["stop", "length", "calls"]


class Plan(_Cost):
    """The plan before the first step, and what came of talking it over."""

    model_config = ConfigDict(extra="allow", strict=True)

    kind: Literal["plan"]
    step: Literal[0] = 0
    id: Id
    text: Text


class Note(_Cost):
    """What the loop has to know again after a restart; its kind says which fields it has besides."""

    model_config = ConfigDict(extra="allow", strict=True)

    kind: Literal["note"]
    kind2: Name
    id: Id
    text: Text


_FORM: TypeAdapter[Reply | Plan | Note] = TypeAdapter(
    Annotated[Reply | Plan | Note, Field(discriminator="kind")], config=DEFERRED
)


def read_record(payload: bytes) -> tuple[dict[str, Any], tuple[str, str | int]]:
    """A record as the loop sent it, and the key under which the journal takes it once.

    Raises RecordInvalid.
    """
    if len(payload) > RECORD_BYTES_MAX:
        raise RecordInvalid(f"a record of {len(payload)} bytes; at most {RECORD_BYTES_MAX} are taken")
    try:
        said = orjson.loads(payload)
        form = _FORM.validate_python(said)
    except orjson.JSONDecodeError:
        raise RecordInvalid("the record is no JSON") from None
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in item["loc"][1:])
        raise RecordInvalid(f"{field or 'kind'}: {item['msg']}") from None
    if {"n", "at"} & said.keys():
        raise RecordInvalid("n and at are the journal's own")
    return said, (form.kind, form.step if isinstance(form, Reply) else form.id)
