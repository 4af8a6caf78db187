"""Reads a JSON body: bytes that are no JSON, or do not fit a model, are a 4xx that names what is odd."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from chorus.api.problems import Problem

Model = TypeVar("Model", bound=BaseModel)

_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii"})


def parse_json(content: bytes, what: str) -> object:
    """The value that the bytes say. `what` begins the sentence of the Problem (400) for those that say none.

    Text is UTF-8 without lone surrogates, numbers are finite.
    """
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"{what} is not JSON: {error}") from None


def check_charset(content_type: str) -> None:
    """Refuses (415) a body that says it is written in another encoding than JSON's."""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _CHARSETS:
            raise Problem(415, "Content-Type: JSON is read as UTF-8; leave charset out or say utf-8")


async def read_model(request: Request, model: type[Model], *, empty: dict[str, Any] | None = None) -> Model:
    """The body as a model; an empty one is `empty`, where that is given. Raises Problem (400, 415, 422)."""
    check_charset(request.headers.get("content-type", ""))
    content = await request.body()
    value = empty if empty is not None and not content.strip() else parse_json(content, "the body")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        errors = [
            (".".join(map(str, item["loc"])), str(item["msg"])) for item in error.errors(include_url=False)
        ]
        fields = ", ".join(model.model_fields)
        raise Problem(422, f"the body does not fit; its fields are {fields}", errors=errors) from None
