"""Errors as RFC 9457 problem details, which clients get in place of a stack trace."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from chorus.api import ucxi_answers as ucxi
from chorus.hub import DISK_PREFIX, HubError

MEDIA_TYPE: Final = "application/problem+json"
# How long a client should wait before it repeats what a missing leader or process made fail.
RETRY_AFTER_S: Final = 1
# A body may have a hundred thousand wrong fields, and a field's name a million characters.
ERRORS_MAX_COUNT: Final = 100
FIELD_MAX_CHARS: Final = 200
TEXT_MAX_CHARS: Final = 2000

log = logging.getLogger(__name__)

# What the hub's codes mean to a client of HTTP. Codes that are not here are our own fault.
_HUB_STATUS: Final = {
    "invalid": 422,
    "not_found": 404,
    "unavailable": 503,
    "timeout": 503,
    "refused": 409,
    "too_large": 413,
    "no_mesh": 503,
    "no_leader": 503,
    "not_leader": 503,
    "closed": 503,
    "quorum_failed": 503,
    "not_permitted": 403,
    "tampered": 502,
}
# A disk that is full takes nothing, one that fails may recover; other errors of the system are our own fault.
_DISK_STATUS: Final = {errno.ENOSPC: 507, errno.EDQUOT: 507, errno.EIO: 503, errno.EROFS: 503}
# How a refusal begins that is about a bound of the mesh, not about the request (tasks.md, bounds).
LIMIT_PREFIX: Final = "limit:"
# How an executor begins to say that it had what is asked for, and has removed it.
GONE_PREFIX: Final = "gone:"


class Problem(Exception):
    """An answer that is an error. `errors` names fields: `(field, what is wrong and what to do)`."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[tuple[str, str]] = (),
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}
        self.more = more

    def body(self) -> bytes:
        """The problem document."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": _shortened(self.detail),
        }
        if self.errors:
            document["errors"] = self.named_errors()
        return orjson.dumps({**document, **self.more}, default=str)

    def named_errors(self) -> list[dict[str, str]]:
        """What is wrong with each field, as far as a client will read it."""
        return [
            {"field": _shortened(field, FIELD_MAX_CHARS), "message": _shortened(message)}
            for field, message in self.errors[:ERRORS_MAX_COUNT]
        ]

    def response(self, path: str) -> Response:
        """The whole answer to a request for `path`; below /ucxi/ errors have a form of their own."""
        headers = dict(self.headers)
        if self.status in (408, 413):
            # The rest of the body is not wanted, so the connection cannot be used again (guard.py ends it).
            headers["Connection"] = "close"
        if path.startswith(ucxi.PREFIX):
            return ucxi.of_status(
                self.status, self.detail, errors=self.named_errors(), more=self.more, headers=headers
            ).response(path)
        return Response(self.body(), self.status, headers, MEDIA_TYPE)


def _shortened(text: str, most: int = TEXT_MAX_CHARS) -> str:
    """Text of a client's, which may be as long as its request; JSON takes no lone surrogates."""
    whole = text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"
    return whole.encode("utf-8", "replace").decode()


def unexpected_problem() -> Problem:
    """What a client is told of an error that nobody foresaw."""
    # Its body may not have been read to the end, so the connection ends (guard.py).
    headers = {"Connection": "close"}
    return Problem(500, "an error inside the agent; its log has the details", headers=headers)


def from_hub(error: HubError) -> Problem:
    """What a refusal or failure inside the agent means to the client."""
    message = error.message
    if error.code == "refused" and message.startswith(LIMIT_PREFIX):
        detail = message.removeprefix(LIMIT_PREFIX).strip()
        return Problem(429, detail, headers={"Retry-After": str(RETRY_AFTER_S)})
    if error.code == "not_found" and message.startswith(GONE_PREFIX):
        return Problem(410, message.removeprefix(GONE_PREFIX).strip())
    status = 503 if message.startswith(DISK_PREFIX) else _HUB_STATUS.get(error.code, 500)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    if status == 500:
        log.error("answered 500 for a hub error %s: %s", error.code, message)
    return Problem(status, message, headers=headers, code=error.code)


def install(app: FastAPI) -> None:
    """Makes every error of `app` a problem document, also those of the framework."""

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response(request.url.path)

    async def refusal(request: Request, error: Exception) -> Response:
        assert isinstance(error, ucxi.Refusal)
        return error.response(request.url.path)

    async def hub(request: Request, error: Exception) -> Response:
        assert isinstance(error, HubError)
        return from_hub(error).response(request.url.path)

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return Problem(
            error.status_code, _explain(request, error), headers=dict(error.headers or {})
        ).response(request.url.path)

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [
            (".".join(str(part) for part in item["loc"][1:]), str(item["msg"])) for item in error.errors()
        ]
        if request.url.path.startswith(ucxi.PREFIX):
            named = [{"field": field, "message": message} for field, message in errors]
            return ucxi.bad_parameters(named).response(request.url.path)
        return Problem(422, "the request has invalid parameters", errors=errors).response(request.url.path)

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=400)  # nobody is left to read it

    async def table(request: Request, error: Exception) -> Response:
        detail = f"this agent's table cannot be read now: {error}"
        return Problem(503, detail, headers={"Retry-After": str(RETRY_AFTER_S)}).response(request.url.path)

    async def disk(request: Request, error: Exception) -> Response:
        assert isinstance(error, OSError)
        status = _DISK_STATUS.get(error.errno or 0)
        if status is None:
            raise error
        detail = f"this agent's disk did not take it: {error.strerror}"
        return Problem(status, detail, headers={"Retry-After": str(RETRY_AFTER_S)}).response(request.url.path)

    async def unexpected(request: Request, error: Exception) -> Response:
        return unexpected_problem().response(request.url.path)

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(ucxi.Refusal, refusal)
    app.add_exception_handler(HubError, hub)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(sqlite3.OperationalError, table)
    app.add_exception_handler(OSError, disk)
    app.add_exception_handler(Exception, unexpected)


def _explain(request: Request, error: HTTPException) -> str:
    if error.status_code == 404:
        return f"there is nothing at {request.url.path}; GET /docs lists what there is"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return f"{request.method} is not answered here" + (f"; use {allowed}" if allowed else "")
    return str(error.detail)
