"""The probes on the health port, and what they say of what the observer found."""

from __future__ import annotations

from typing import Any, Final

import orjson
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from chorus.api.checks import Answer, Findings, docker_answer
from chorus.api.license import licence_view
from chorus.api.observer import Observer
from chorus.api.problems import install
from chorus.config import AiSettings

NO_MODEL: Final = "no model is configured: this agent takes only tasks with commands"
NO_BACKBEAT: Final = "telemetry is off (CHORUS_BACKBEAT_ENABLED)"

router = APIRouter(tags=["health"])


def _observer(request: Request) -> Observer:
    observer = request.app.state.observer
    assert isinstance(observer, Observer)
    return observer


@router.get("/healthz")
async def healthz(request: Request) -> Response:
    """200 while the processes of the agent live; orchestrators restart on this alone."""
    # Not looked at afresh: it turns on what has lasted a minute, and whoever restarts the agent because of it
    # is not to wait for a process that hangs.
    verdict = _observer(request).verdict
    alive = verdict is None or verdict.alive
    return _json({"status": "alive" if alive else "dead"}, 200 if alive else 503)


@router.get("/ready")
async def ready(request: Request) -> Response:
    """200 while the agent would take a task, 503 with the reasons otherwise."""
    observer = _observer(request)
    await observer.fresh()
    verdict = observer.verdict
    if verdict is None:
        return _json({"ready": False, "reasons": ["starting"]}, 503)
    return _json({"ready": verdict.ready, "reasons": verdict.reasons}, 200 if verdict.ready else 503)


@router.get("/health")
async def health(request: Request) -> Response:
    """Everything that is known about the agent's health."""
    observer = _observer(request)
    await observer.fresh()
    if observer.verdict is None or observer.findings is None:
        return _json({"status": "starting", "ready": False, "checks": []}, 503)
    return _json(health_view(observer), 200 if observer.verdict.status == "healthy" else 503)


def health_view(observer: Observer) -> dict[str, Any]:
    """The body of /health as surface.md shapes it."""
    found, verdict, settings = observer.findings, observer.verdict, observer.context.settings
    assert found is not None
    assert verdict is not None
    docker = docker_answer(found.siblings["executor"])
    election, coordinator = found.siblings["election"], found.siblings["coordinator"]
    return {
        "status": verdict.status,
        "ready": verdict.ready,
        "agent_id": settings.agent_id,
        "version": settings.version,
        "license": licence_view(settings, found.license),
        "sealing": {"role_keys": found.role_keys},
        "p2p": {"connected": found.siblings["node"].ok, "peers": found.peers},
        "dht": {"enabled": found.dht_enabled, "reachable": found.dht_ok, "latency_ms": found.dht_latency_ms},
        "election": {
            "ok": election.ok,
            "state": found.raft_state,
            "leader": found.leader,
            "term": found.term,
            "mesh": found.mesh,
            "other_meshes": election.more.get("other_meshes", []),
            "detail": election.detail,
        },
        "coordinator": {**coordinator.more, "ok": coordinator.ok, "detail": coordinator.detail},
        "api": {"ok": True, "port": settings.api_port},
        "docker": {**docker.more, "ok": docker.ok, "detail": docker.detail},
        "ai": ai_view(settings.ai, found.siblings.get("mind")),
        "backbeat": backbeat_view(found.backbeat),
        "tasks": tasks_view(found),
        "last_heartbeat": observer.last_heartbeat,
        "warnings": list(found.warnings),
        "crashes": dict(found.crashes),
        "unresponsive": dict(found.unresponsive),
        "checks": [
            {
                "name": check.name,
                "ok": check.ok,
                "critical": check.critical,
                "detail": check.detail,
                "checked_at": observer.checked_at,
            }
            for check in verdict.checks
        ],
    }


def backbeat_view(backbeat: Answer | None) -> dict[str, Any]:
    """The pulse and what waits to be sent; without BACKBEAT there is nothing to be away."""
    if backbeat is None:
        return {"enabled": False, "ok": True, "detail": NO_BACKBEAT}
    return {"enabled": True, **backbeat.more, "ok": backbeat.ok, "detail": backbeat.detail}


def ai_view(ai: AiSettings, mind: Answer | None) -> dict[str, Any]:
    """Provider and model, and what `mind` says of them; without a provider there is nothing to be away."""
    if mind is None:
        return {"provider": "none", "model": "", "ok": True, "detail": NO_MODEL}
    told = {"provider": ai.provider, "model": ai.model_of(ai.provider)}
    return {**mind.more, **told, "ok": mind.ok, "detail": mind.detail}


def tasks_view(found: Findings) -> dict[str, int]:
    """Load and room."""
    return {
        "active": found.active,
        "max": found.max_tasks,
        "available": max(0, found.max_tasks - found.active),
    }


def health_app(observer: Observer) -> FastAPI:
    """The application on the health port."""
    app = FastAPI(title="CHORUS probes", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.observer = observer
    app.include_router(router)
    install(app)
    return app


def _json(content: Any, status: int) -> Response:
    return Response(
        orjson.dumps(content, default=str), status, {"Cache-Control": "no-store"}, "application/json"
    )
