"""What the rules of health say about processes."""

from __future__ import annotations

from dataclasses import replace

from chorus.api.checks import SIBLINGS, Answer, Findings, judge

WELL = Findings(
    license_ok=True,
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
    ai_provider="none",
)


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
