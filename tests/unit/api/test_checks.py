"""What the rules of health say about each criterion, and about processes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chorus.api.checks import SIBLINGS, Answer, Check, Findings, judge, siblings_of
from chorus.license.status import LicenceStatus

WELL = Findings(
    license=LicenceStatus("valid"),
    license_detail="",
    siblings={name: Answer(True, "running") for name in SIBLINGS},
    peers=1,
    clock_skew=False,
    dht_enabled=False,
    dht_ok=True,
    dht_latency_ms=None,
    mesh="m",
    raft_state="leader",
    leader="a",
    term=1,
    active=0,
    max_tasks=3,
)


def test_without_a_model_an_agent_is_healthy_and_not_ready() -> None:
    assert siblings_of("none") == SIBLINGS
    assert siblings_of("ollama") == (*SIBLINGS, "mind")
    assert judge(WELL).ready
    assert "ai" not in {check.name for check in judge(WELL).checks}
    there = replace(WELL, siblings={**WELL.siblings, "mind": Answer(True, "qwen answers")})
    assert judge(there).ready
    away = replace(WELL, siblings={**WELL.siblings, "mind": Answer(False, "connection refused")})
    verdict = judge(away)
    assert (verdict.status, verdict.ready, verdict.alive) == ("healthy", False, True)
    assert [check.detail for check in verdict.checks if check.name == "ai"] == ["connection refused"]
    gone = replace(WELL, siblings={**WELL.siblings, "mind": Answer(False, "no answer", away_s=61.0)})
    assert not judge(gone).alive


def without(sibling: str) -> Findings:
    """All well but one process, which does not answer."""
    return replace(WELL, siblings={**WELL.siblings, sibling: Answer(False, "no answer")})


NO_DOCKER = Answer(True, "running", more={"docker": {"ok": False, "detail": "connection refused"}})


@pytest.mark.parametrize(
    ("found", "check", "healthy"),
    [
        (replace(WELL, license=LicenceStatus("expired")), "license", False),
        (without("node"), "p2p", False),
        (replace(WELL, peers=0), "peers", False),
        (without("election"), "election", False),
        (without("coordinator"), "coordinator", False),
        (replace(WELL, active=3), "capacity", True),
        (replace(WELL, siblings={**WELL.siblings, "executor": NO_DOCKER}), "docker", True),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_each_criterion_of_health_and_readiness_counts(found: Findings, check: str, healthy: bool) -> None:
    assert (judge(WELL).status, judge(WELL).ready) == ("healthy", True)
    verdict = judge(found)
    assert [one.name for one in verdict.checks if not one.ok] == [check]
    assert (verdict.status == "healthy", verdict.ready) == (healthy, False)


def test_what_decides_nothing_is_no_reason() -> None:
    away = Answer(False, "no beat has come yet")
    told = replace(WELL, clock_skew=True, dht_enabled=True, dht_ok=False, backbeat=away)
    verdict = judge(told)
    assert [one.name for one in verdict.checks if not one.ok] == ["dht", "backbeat", "clock"]
    assert (verdict.ready, verdict.reasons) == (True, [])
    alone = judge(replace(told, peers=0))
    assert not alone.ready
    assert [reason.partition(":")[0] for reason in alone.reasons] == ["peers"]


def detail(found: Findings) -> tuple[bool, str]:
    [check] = [check for check in judge(found).checks if check.name == "processes"]
    return check.ok, check.detail


def test_a_process_that_hung_is_named_and_the_agent_goes_on() -> None:
    assert detail(WELL) == (True, "steady")
    hung = replace(WELL, unresponsive={"executor": 2})
    assert detail(hung) == (True, "steady; ended because it did not answer: executor 2 times")
    assert judge(hung).ready
    dying = replace(hung, repeating=("executor",))
    assert detail(dying)[0] is False
    assert "dying again and again: executor; ended" in detail(dying)[1]


def test_telemetry_that_is_away_is_told_and_nothing_waits_for_it() -> None:
    verdict = judge(replace(WELL, backbeat=Answer(False, "no pulse")))
    assert (verdict.status, verdict.ready) == ("healthy", True)
    assert Check("backbeat", False, False, "no pulse") in verdict.checks
    assert "backbeat" not in {check.name for check in judge(WELL).checks}
