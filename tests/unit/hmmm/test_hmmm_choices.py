"""Who takes part in a discussion, what ids it has, and which goals depend on each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.hmmm.dependencies import GOALS_MAX, PATHS_MAX, Dependencies, rule_of
from chorus.hmmm.ids import alert_id, message_id, session_id
from chorus.hmmm.participants import PARTICIPANTS_MAX, Candidate, Topic, choose
from chorus.wire.ids import is_id

TASK = "01J00000000000000000000001"


def test_ids_are_the_same_everywhere_and_differ_by_what_they_are_of() -> None:
    assert session_id(TASK, 1) == session_id(TASK, 1)
    ids = {
        session_id(TASK, 1),
        session_id(TASK, 2),
        message_id("s", "p", "", "plan"),
        message_id("s", "q", "", "plan"),
        message_id("s", "p", "m", "plan"),
    }
    assert len(ids) == 5
    assert all(is_id(ident) for ident in ids)
    assert alert_id("a", "b") == alert_id("b", "a")


def test_the_fittest_present_members_that_can_answer_take_part() -> None:
    members = [
        Candidate("owner"),
        Candidate("away", present=False),
        Candidate("mute", answers=False),
        Candidate("busy", load=1.0),
        Candidate("knows", expertise=frozenset({"python"})),
        Candidate("role", role="tester"),
        *(Candidate(f"idle{number}") for number in range(5)),
    ]
    topic = Topic("tester", frozenset({"python"}))
    chosen = choose(members, "owner", topic)
    assert chosen == ("role", "knows", "idle0", "idle1", "idle2")
    assert len(chosen) == PARTICIPANTS_MAX


@given(st.lists(st.builds(Candidate, st.text(max_size=3), st.text(max_size=3)), max_size=20), st.randoms())
def test_every_agent_chooses_the_same(members: list[Candidate], rng: object) -> None:
    members = list({member.peer: member for member in members}.values())
    shuffled = list(members)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose(members, "o", Topic()) == choose(shuffled, "o", Topic())


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("api/users.py", "api_contract"),
        ("proto/a.proto", "api_contract"),
        ("docs/openapi.yaml", "api_contract"),
        ("db/migrations/0001_users.py", "database_schema"),
        ("app/models.py", "database_schema"),
        ("schema.SQL", "database_schema"),
        ("Dockerfile", "configuration"),
        ("pyproject.toml", "configuration"),
        ("src/config/a.py", "configuration"),
        ("src/auth/login.py", "security"),
        ("certs/server.pem", "security"),
        ("src/main.py", None),
        ("README.md", None),
        ("authors.txt", None),
    ],
)
def test_paths_fall_under_four_rules(path: str, rule: str | None) -> None:
    assert rule_of(path) == rule


def test_an_alert_is_raised_once_for_a_pair_of_goals_of_one_project() -> None:
    made = Dependencies()
    assert made.touch("a", "p", ["api/x.py", "src/main.py"]) == []
    (alert,) = made.touch("b", "p", ["api/y.py"])
    assert (alert.rule, alert.task_id, alert.other) == ("api_contract", "b", "a")
    assert (alert.paths, alert.other_paths) == (("api/y.py",), ("api/x.py",))
    assert made.touch("b", "p", ["api/z.py", "Dockerfile"]) == []
    assert made.touch("a", "p", ["Dockerfile"]) == []
    assert made.touch("c", "other", ["api/y.py"]) == []
    assert made.touch("d", "", ["api/y.py"]) == []
    # A later leader knows what was raised.
    later = Dependencies([alert.id])
    later.touch("a", "p", ["api/x.py"])
    assert later.touch("b", "p", ["api/y.py"]) == []
    # What has ended depends on nothing.
    made.end("a")
    made.end("b")
    assert made.touch("e", "p", ["api/x.py"]) == []


def test_what_goals_touch_takes_bounded_memory() -> None:
    made = Dependencies()
    made.touch("a", "", (f"api/{number}" for number in range(PATHS_MAX * 2)))
    assert len(made._goals["a"].paths) == PATHS_MAX
    for number in range(GOALS_MAX + 10):
        made.touch(str(number), "", [])
    assert len(made.running()) == GOALS_MAX


@given(st.text())
def test_any_path_has_a_rule_or_none(path: str) -> None:
    rule_of(path)
