"""What `/health`, `/ready` and the metrics say of a licence of KACHING, which the parent looks after."""

from __future__ import annotations

import pytest

from chorus.license.status import LicenceStatus, save

from .conftest import Surface

LIMITS = {"max_agents": 10, "lease_ttl_s": 60.0, "permissions": ["agent:run"]}

KACHING = {
    "CHORUS_LICENSE_ID": "prod-0123456789abcdef",
    "CHORUS_KACHING_URL": "https://kaching.example",
    "CHORUS_KACHING_PUBLIC_KEY": "5e" * 32,
    "CHORUS_CLUSTER_SECRET": "a cluster secret of 32 bytes ...",
}
CHECKED, UNTIL = 1_800_000_000.0, 1_800_086_400.0


@pytest.mark.parametrize("more_environ", [KACHING])
@pytest.mark.parametrize(
    ("status", "ok", "told"),
    [
        (LicenceStatus("valid", checked=CHECKED, limits=LIMITS), True, "production …cdef: valid"),
        (
            LicenceStatus("grace", "slow", "KACHING does not answer in time", CHECKED, UNTIL),
            True,
            "grace until 2027-01-16T08:00:00.000Z: KACHING does not answer in time",
        ),
        (LicenceStatus("expired", "slow", "for too long", CHECKED), False, "expired: for too long"),
        (LicenceStatus("suspended", "suspended", "have it resumed", CHECKED), False, "suspended: have it"),
        (None, False, "unlicensed"),
    ],
)
async def test_each_state_is_shown(
    surface: Surface, status: LicenceStatus | None, ok: bool, told: str
) -> None:
    paths = surface.observer.context.settings.paths
    if status is not None:
        paths.run.mkdir(exist_ok=True)
        save(paths.license_status, status)
    await surface.observer.observe()
    health = (await surface.probes.get("/health")).json()
    assert health["license"]["valid"] is ok
    assert health["license"]["state"] == (status.state if status else "unlicensed")
    [check] = [check for check in health["checks"] if check["name"] == "license"]
    assert (check["ok"], check["critical"]) == (ok, True)
    assert told in check["detail"]
    ready = await surface.probes.get("/ready")
    assert ready.status_code == (200 if ok else 503)
    if not ok:
        assert any(reason.startswith("license: ") for reason in ready.json()["reasons"])
    assert health["license"]["limits"] == (status.limits if status else {})
    assert (await surface.api.get("/api/v1/status")).json()["license"] == health["license"]
    assert KACHING["CHORUS_LICENSE_ID"] not in str(health)


@pytest.mark.parametrize("more_environ", [KACHING])
async def test_each_change_of_state_is_told_to_the_mesh(surface: Surface) -> None:
    paths = surface.observer.context.settings.paths
    paths.run.mkdir(exist_ok=True)
    for state in ("valid", "valid", "grace", "grace", "valid", "suspended"):
        save(paths.license_status, LicenceStatus(state, checked=CHECKED))
        await surface.observer.observe()
        await surface.observer._announce()
    said = [data["license"] for _, _, type, data in surface.mesh.published if type == "health_status"]
    assert said == ["valid", "grace", "valid", "suspended"]
