"""Puts the routes of the API port together behind the guard."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from chorus.api import (
    artifacts,
    decisions,
    hmmm,
    log,
    members,
    mesh,
    messages,
    output,
    tasks,
    ucxi,
    ucxi_find,
)
from chorus.api.context import Context
from chorus.api.guard import Guard
from chorus.api.problems import MEDIA_TYPE, install
from chorus.process import metrics

METRICS_MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# Everything else needs the token.
OPEN_PATHS: Final = frozenset({"/metrics"})

_PROBLEM: Final = {
    "description": "an error as RFC 9457 problem details",
    "content": {
        MEDIA_TYPE: {
            "schema": {
                "type": "object",
                "required": ["title", "status", "detail"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "errors": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
                        },
                    },
                },
            }
        }
    },
}


_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {"4XX": _PROBLEM, "5XX": _PROBLEM}


def api_app(context: Context) -> FastAPI:
    """The application on the API port, without the guard."""
    # The guard checks the token; here the scheme is only declared, so that /docs can send it.
    bearer = Security(HTTPBearer(auto_error=False, description="content of the file api-token"))
    app = FastAPI(
        title="CHORUS agent",
        version=context.settings.version,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[bearer],
    )
    app.state.context = context
    for part in (tasks, messages, output, artifacts, mesh, members, decisions, hmmm, log):
        app.include_router(part.router, responses=_PROBLEMS)
    if context.settings.ucxi_enabled:
        app.include_router(ucxi.router)
        app.include_router(ucxi_find.router)
    install(app)

    @app.get("/metrics", tags=["metrics"], response_class=PlainTextResponse, responses=_PROBLEMS)
    def get_metrics() -> Response:
        """Prometheus metrics of all processes of this agent."""
        return Response(metrics.render(), media_type=METRICS_MEDIA_TYPE)

    return app


def guarded(app: ASGIApp, context: Context) -> Guard:
    """The API behind token, cross-site and body checks."""
    settings = context.settings
    return Guard(
        app,
        token=settings.api_token.get_secret_value(),
        open_paths=OPEN_PATHS,
        loopback=ipaddress.ip_address(settings.api_host).is_loopback,
    )


def guarded_probes(app: ASGIApp) -> Guard:
    """The probes need no token, and orchestrators call them by any name."""
    return Guard(app, token=None, open_paths=frozenset(), loopback=False)
