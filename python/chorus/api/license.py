"""What is shown and counted of the licence: the parent's word, and which kind of licence it is."""

from __future__ import annotations

from typing import Any

from chorus.config import Settings
from chorus.license.gate import DEV_AGENTS_MAX
from chorus.license.status import LicenceStatus, load
from chorus.process import metrics
from chorus.wire.times import rfc3339_of


def licence_status(settings: Settings) -> LicenceStatus:
    """What holds now; counts it too. An agent with a licence server that knows nothing has no licence."""
    if settings.license_kind == "development":
        failures = {"setting": settings.license_failures} if settings.license_failures else {}
        limits = {"max_agents": DEV_AGENTS_MAX}
        status = LicenceStatus("valid", checks=settings.license_checks, failures=failures, limits=limits)
    else:
        status = load(settings.paths.license_status) or LicenceStatus(
            "unlicensed", detail="the agent's parent has not said yet what holds"
        )
    metrics.note_licence(status.checks, status.failures)
    return status


def licence_detail(settings: Settings, status: LicenceStatus) -> str:
    """One line for the check of that name."""
    if settings.license_kind == "development":
        return settings.license_shown
    shown = f"{settings.license_shown}: {status.state}"
    if status.until is not None:
        shown += f" until {rfc3339_of(status.until)}"
    return f"{shown}: {status.detail}" if status.detail else shown


def licence_view(settings: Settings, status: LicenceStatus) -> dict[str, Any]:
    """The part `license` of `/health` and of `GET /api/v1/status`."""
    return {
        "valid": status.holds,
        "id": settings.license_shown,
        "kind": settings.license_kind,
        "state": status.state,
        "reason": status.reason,
        "detail": status.detail,
        "checked_at": rfc3339_of(status.checked),
        "until": rfc3339_of(status.until),
        "limits": dict(status.limits),
    }
