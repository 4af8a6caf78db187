"""The form of UCXI's answers: its codes, the bodies of success and failure, what other errors become in it.

UCXI is the HTTP face of UCXL, the addresses of what the mesh remembers. Its routes are in `ucxi` and
`ucxi_find`.
"""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Any, Final

import orjson
from starlette.responses import Response

from chorus.wire.ids import new_id
from chorus.wire.times import rfc3339

PREFIX: Final = "/ucxi/"
SOURCE: Final = "ucxi-server"


class Code(StrEnum):
    """Everything that UCXI says, as `UCXL-<HTTP status>-<name>`."""

    SUCCESS = "UCXL-200-SUCCESS"
    CREATED = "UCXL-201-CREATED"
    ACCEPTED = "UCXL-202-ACCEPTED"
    # Said with HTTP 200: the answer has a body.
    NO_CONTENT = "UCXL-204-NO_CONTENT"
    BAD_REQUEST = "UCXL-400-BAD_REQUEST"
    INVALID_ADDRESS = "UCXL-400-INVALID_ADDRESS"
    INVALID_PAYLOAD = "UCXL-400-INVALID_PAYLOAD"
    TEMPORAL_INVALID = "UCXL-400-TEMPORAL_INVALID"
    UNAUTHORIZED = "UCXL-401-UNAUTHORIZED"
    FORBIDDEN = "UCXL-403-FORBIDDEN"
    NOT_FOUND = "UCXL-404-NOT_FOUND"
    RESOLUTION_FAILED = "UCXL-404-RESOLUTION_FAILED"
    METHOD_NOT_ALLOWED = "UCXL-405-METHOD_NOT_ALLOWED"
    CONFLICT = "UCXL-409-CONFLICT"
    PAYLOAD_TOO_LARGE = "UCXL-413-PAYLOAD_TOO_LARGE"
    UNPROCESSABLE = "UCXL-422-UNPROCESSABLE"
    TOO_MANY_REQUESTS = "UCXL-429-TOO_MANY_REQUESTS"
    INTERNAL = "UCXL-500-INTERNAL"
    SERVICE_UNAVAILABLE = "UCXL-503-SERVICE_UNAVAILABLE"

    @property
    def status(self) -> int:
        """The HTTP status that it travels with."""
        number = int(self.split("-")[1])
        return 200 if self is Code.NO_CONTENT else number


# What an error that knows only its status is called. Others below 500 are bad requests, the rest our fault.
_BY_STATUS: Final = {
    400: Code.BAD_REQUEST,
    401: Code.UNAUTHORIZED,
    403: Code.FORBIDDEN,
    404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    408: Code.INVALID_PAYLOAD,
    409: Code.CONFLICT,
    413: Code.PAYLOAD_TOO_LARGE,
    415: Code.INVALID_PAYLOAD,
    422: Code.UNPROCESSABLE,
    429: Code.TOO_MANY_REQUESTS,
    502: Code.RESOLUTION_FAILED,
    503: Code.SERVICE_UNAVAILABLE,
    # The disk is full.
    507: Code.SERVICE_UNAVAILABLE,
}


class Refusal(Exception):
    """A request that UCXI says no to, or cannot serve now. `cause` is what was said by who was asked."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        cause: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or {}
        self.cause = cause
        self.headers = headers or {}

    def response(self, path: str) -> Response:
        """The whole answer."""
        error = {
            "code": self.code,
            "message": self.message,
            "details": self.details,
            "source": SOURCE,
            "path": path,
            "request_id": new_id(),
            "timestamp": now(),
            "cause": self.cause,
        }
        body = orjson.dumps({"error": error}, default=str)
        return Response(body, self.code.status, self.headers, "application/json")


def success(
    code: Code,
    message: str,
    data: Any,
    *,
    details: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The answer to a request that was served."""
    said = {
        "code": code,
        "message": message,
        "data": data,
        "details": details or {},
        "request_id": new_id(),
        "timestamp": now(),
    }
    return Response(orjson.dumps({"response": said}), code.status, headers, "application/json")


def of_status(
    status: int, message: str, *, errors: list[dict[str, str]], more: dict[str, Any], headers: dict[str, str]
) -> Refusal:
    """An error of the whole API in UCXI's form."""
    code = _BY_STATUS.get(status) or (Code.BAD_REQUEST if status < 500 else Code.INTERNAL)
    details = {**more, **({"errors": errors} if errors else {})}
    return Refusal(code, message, details=details, headers=headers)


def bad_parameters(errors: list[dict[str, str]]) -> Refusal:
    """Parameters that cannot be read: a missing or overlong address is an address that is none."""
    about_address = any(error["field"] == "address" for error in errors)
    code = Code.INVALID_ADDRESS if about_address else Code.BAD_REQUEST
    message = "; ".join(f"{error['field']}: {error['message']}" for error in errors)
    return Refusal(code, message, details={"errors": errors})


def now() -> str:
    """The time as UCXI says it."""
    return rfc3339(time.time_ns() // 1_000_000)
