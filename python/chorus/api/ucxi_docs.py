"""What `/docs` says about UCXI: the bodies of its answers with examples, and every code of every route."""

from __future__ import annotations

from typing import Any, Final

from chorus.api.ucxi_answers import SOURCE, Code
from chorus.decisions.content import VALUE_MAX_BYTES

# The form of an address, for programs that read this page; what is checked is the core's parser.
_PART: Final = "[A-Za-z0-9_-]{1,128}"
_SEGMENT: Final = r"(?!\.\.?(/|$))[A-Za-z0-9_.-]+"
_FORM: Final = f"^ucxl://{_PART}:{_PART}@{_PART}:{_PART}/%s/({_SEGMENT}(/{_SEGMENT})*/?)?$"
ANY_TIME: Final = {"pattern": _FORM % r"(\*\^|\*~|(\*~|~~|\^\^)(0|[1-9][0-9]{0,8}))"}
LATEST: Final = {"pattern": _FORM % r"\*\^"}

ADDRESS: Final = "ucxl://alice:developer@chorus:docs/*^/notes/ucxl.md"
_AT_3: Final = "ucxl://alice:developer@chorus:docs/*~3/notes/ucxl.md"
_PATTERN: Final = "ucxl://any:any@chorus:any/*^/notes/"
_TIME: Final = "2026-03-01T12:00:00.000Z"
_ID: Final = "01KJ0W3V1Y9T4ZQ8F6B2N5C7DE"
_PEER: Final = "12D3KooWAdgQ2W6PiCk5iCT5LTVQPCDnBGiA6rcwZaVmDjWCtQqA"
_HASH: Final = "3bcfdeb17d842e7f4e3e9bfa1a1ef4a5b3f6b2f1bfa8a0f0e9a4c0a3c7a6e5d4"

_VERSION: Final[dict[str, Any]] = {
    "address": _AT_3,
    "version": 3,
    "latest": 3,
    "deleted": False,
    "kind": "content",
    "content_type": "text/markdown",
    "size": 8,
    "hash": _HASH,
    "author": _PEER,
    "agent_id": "alice",
    "role": "developer",
    "created_at": _TIME,
    "index": 4711,
}
_TYPES: Final = {str: "string", int: "integer", bool: "boolean", float: "number"}


def _object(example: dict[str, Any], *optional: str, nullable: tuple[str, ...] = ()) -> dict[str, Any]:
    """The schema of a flat object, by an example of it."""
    properties: dict[str, Any] = {}
    for name, value in example.items():
        kind: Any = "array" if isinstance(value, list) else _TYPES.get(type(value), "object")
        properties[name] = {"type": [kind, "null"] if name in nullable else kind}
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in example if name not in optional],
    }


def _success(code: Code, message: str, data: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    example = {
        "response": {
            "code": code,
            "message": message,
            "data": data,
            "details": {},
            "request_id": _ID,
            "timestamp": _TIME,
        }
    }
    inner = _object(example["response"])
    inner["properties"] = {**inner["properties"], "code": {"const": code}, "data": schema}
    body = {"type": "object", "properties": {"response": inner}, "required": ["response"]}
    return {"description": code, "content": {"application/json": {"schema": body, "example": example}}}


def _failure(message: str, codes: tuple[Code, ...]) -> dict[str, Any]:
    error: dict[str, Any] = {
        "code": codes[0],
        "message": message,
        "details": {},
        "source": SOURCE,
        "path": "/ucxi/v1/get",
        "request_id": _ID,
        "timestamp": _TIME,
        "cause": None,
    }
    inner = _object(error, nullable=("cause",))
    inner["properties"] |= {"code": {"enum": list(codes)}, "cause": {"type": ["string", "null"]}}
    body = {"type": "object", "properties": {"error": inner}, "required": ["error"]}
    described = ", ".join(codes)
    example = {"error": error}
    return {"description": described, "content": {"application/json": {"schema": body, "example": example}}}


_BAD = (Code.BAD_REQUEST, Code.INVALID_ADDRESS, Code.INVALID_PAYLOAD, Code.TEMPORAL_INVALID)
_FORBIDDEN = f"{_AT_3} is sealed to the role developer; agent bob has the role tester"
# What every route can answer. "4XX" and "5XX" are the problem details of the rest of the API: not here.
ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: _failure(
        "UCXL address validation error in role: is empty (address: ucxl://alice:@chorus:docs/*^/)", _BAD
    ),
    401: _failure("a token is required", (Code.UNAUTHORIZED,)),
    403: _failure(_FORBIDDEN, (Code.FORBIDDEN,)),
    404: _failure("nothing was written there yet", (Code.NOT_FOUND, Code.RESOLUTION_FAILED)),
    405: _failure("PATCH is not answered here", (Code.METHOD_NOT_ALLOWED,)),
    409: _failure("the latest is version 3, not 2", (Code.CONFLICT,)),
    413: _failure(f"the body is larger than {VALUE_MAX_BYTES} bytes", (Code.PAYLOAD_TOO_LARGE,)),
    422: _failure("the value holds a secret (rule aws-access-key-id)", (Code.UNPROCESSABLE,)),
    429: _failure("this agent handles as much content as it can", (Code.TOO_MANY_REQUESTS,)),
    500: _failure("an error inside the agent; its log has the details", (Code.INTERNAL,)),
    503: _failure("the mesh could not decide in time", (Code.SERVICE_UNAVAILABLE,)),
}

_CONTENT = {**_VERSION, "content": "# Notes\n", "content_base64": "AP8="}
_ONE = {name: value for name, value in _CONTENT.items() if name != "content_base64"}
_NOTE = {"type": "string", "format": "binary"}

GET: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        **_success(Code.SUCCESS, "version 3 of 3", _ONE, _object(_CONTENT, "content", "content_base64")),
        "description": "the version; with `raw=true` its content as it was written, of its own content type",
    },
    304: {"description": "If-None-Match names the version that is there"},
}
GET[200]["content"]["*/*"] = {"schema": _NOTE}
BODY: Final = {
    "requestBody": {
        "required": False,
        "description": f"the content, at most {VALUE_MAX_BYTES} bytes; its Content-Type is kept with it",
        "content": {
            "application/octet-stream": {"schema": _NOTE},
            "text/plain": {"schema": {"type": "string"}, "example": "# Notes\n"},
        },
    }
}
_WRITTEN = _object(_VERSION)
_CREATED = _success(Code.CREATED, "version 1 is written", {**_VERSION, "version": 1, "latest": 1}, _WRITTEN)
PUT: Final[dict[int | str, dict[str, Any]]] = {
    200: _success(Code.SUCCESS, "version 3 is written", _VERSION, _WRITTEN),
    201: _CREATED,
}
POST: Final[dict[int | str, dict[str, Any]]] = {
    200: {**PUT[200], "description": "what a PUT with the same `Idempotency-Key` has written"},
    201: _CREATED,
}
DELETE: Final[dict[int | str, dict[str, Any]]] = {
    200: _success(
        Code.NO_CONTENT,
        "deleted by version 4",
        {**_VERSION, "version": 4, "latest": 4, "deleted": True, "size": 0, "hash": ""},
        _WRITTEN,
    )
}
NAVIGATE: Final[dict[int | str, dict[str, Any]]] = {
    200: _success(Code.SUCCESS, "version 2 of 3", {**_VERSION, "from": 3}, _object({**_VERSION, "from": 3}))
}
_HELD = {"address": _AT_3, "version": 3, "hash": _HASH}
ANNOUNCE: Final[dict[int | str, dict[str, Any]]] = {
    202: _success(
        Code.ACCEPTED, "announced", {**_HELD, "provider": _PEER}, _object({**_HELD, "provider": _PEER})
    )
}
_PROVIDER = {"peer_id": _PEER, "agent_id": "alice", "present": True, "author": True, "announced": False}
_PROVIDERS = _object({**_HELD, "providers": [_PROVIDER]})
_PROVIDERS["properties"]["providers"]["items"] = _object(_PROVIDER, nullable=("agent_id",))
DISCOVER: Final[dict[int | str, dict[str, Any]]] = {
    200: _success(Code.SUCCESS, "1 known", {**_HELD, "providers": [_PROVIDER]}, _PROVIDERS)
}
_HIT = {**_VERSION, "score": 1.5, "snippet": "… the <b>notes</b> …"}
_PAGE = {
    "type": "object",
    "properties": {
        "items": {"type": "array", "items": _object(_HIT, "score", "snippet")},
        "next": {"type": ["string", "null"]},
    },
    "required": ["items", "next"],
}
QUERY: Final[dict[int | str, dict[str, Any]]] = {
    200: _success(Code.SUCCESS, "1 on this page", {"items": [_VERSION], "next": None}, _PAGE)
}
SUBSCRIBE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": f"server-sent events `version` and `deleted`, here of {_PATTERN}",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": f'id: 4711\nevent: version\ndata: {{"address":"{_AT_3}","version":3}}\n\n',
            }
        },
    }
}
_STATUS = {
    "agent_id": "alice",
    "peer_id": _PEER,
    "mesh": _ID,
    "leader": _PEER,
    "writable": True,
    "addresses": 120,
    "versions": 340,
    "applied": 4711,
    "dht": True,
    "full_text": True,
    "roles": ["developer", "member"],
    "content_max_bytes": VALUE_MAX_BYTES,
}
STATUS: Final[dict[int | str, dict[str, Any]]] = {
    200: _success(Code.SUCCESS, "serving", _STATUS, _object(_STATUS, nullable=("mesh", "leader")))
}
