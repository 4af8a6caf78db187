"""A mesh's settings: the same on every member, whatever its founding entry says and whatever its own are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import chorus
from chorus.config import MeshSettings
from chorus.config.load import load_settings
from chorus.config.mesh import SPAN_MAX_MS
from chorus.hub import RaftStatus

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = sorted(MeshSettings().to_entry())
SETTINGS = st.builds(
    MeshSettings,
    leaderless=st.sampled_from(["run", "wait"]),
    **{name: st.integers(1, SPAN_MAX_MS) for name in NAMES if name != "leaderless"},
)

# Settings that a mesh decides for its members, and who may read an agent's own: the founder, in one place.
DECIDED = {
    "voters",
    "heartbeat_s",
    "election_timeout_s",
    "task_lease_s",
    "member_absence_s",
    "leaderless",
}
# Those whose names the mesh's settings do not have.
OWN_NAMES = {"task_lease_s", "member_absence_s"}
READERS = {"config/mesh.py"}


def test_the_defaults_are_those_of_an_agent() -> None:
    assert MeshSettings.of_founder(load_settings({"CHORUS_LICENSE_ID": "dev-test"})) == MeshSettings()


def test_a_founder_gives_the_mesh_its_own() -> None:
    own = load_settings(
        {
            "CHORUS_LICENSE_ID": "dev-test",
            "CHORUS_VOTERS": "3",
            "CHORUS_ELECTION_HEARTBEAT": "1s",
            "CHORUS_ELECTION_TIMEOUT": "4s",
            "CHORUS_TASK_LEASE": "5m",
            "CHORUS_MEMBER_ABSENCE": "1h",
        }
    )
    made = MeshSettings.of_founder(own)
    assert made == MeshSettings(3, 1_000, 4_000, 300_000, 3_600_000, "run")
    assert (made.heartbeat_s, made.election_timeout_s, made.lease_s) == (1, 4, 300)


@given(SETTINGS)
def test_the_founding_entry_carries_them_unchanged(settings: MeshSettings) -> None:
    assert MeshSettings.of_entry(settings.to_entry()) == settings


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), JSON, max_size=8))
def test_whatever_a_founding_entry_says_is_read(said: dict[str, object]) -> None:
    made = MeshSettings.of_entry(said)
    assert MeshSettings.of_entry(made.to_entry()) == made


@pytest.mark.parametrize("value", [0, -1, True, 30.5, "30000", None, [], SPAN_MAX_MS + 1])
def test_a_value_that_cannot_be_used_is_the_default(value: object) -> None:
    said = {"lease_ms": value, "task_lease_s": 5, "voters": 3}
    assert MeshSettings.of_entry(said) == MeshSettings(voters=3)


def test_a_short_timeout_alone_has_heartbeats_that_fit_into_it() -> None:
    assert MeshSettings.of_entry({"election_timeout_ms": 400}).heartbeat_ms == 133


def test_without_a_mesh_there_are_none() -> None:
    assert RaftStatus.from_head({"settings": {"voters": 3}}).settings is None
    status = RaftStatus.from_head({"mesh": "m", "settings": {"voters": 3}})
    assert status.settings == MeshSettings(voters=3)


def test_nobody_else_reads_an_agents_own() -> None:
    root = Path(chorus.__file__).parent
    wrong = []
    for path in sorted(root.rglob("*.py")):
        if str(path.relative_to(root)) in READERS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and (
                node.attr in OWN_NAMES or (node.attr in DECIDED and _is_settings(node.value))
            ):
                wrong.append(f"{path.relative_to(root)}:{node.lineno} reads {ast.unparse(node)}")
    assert wrong == []


def _is_settings(value: ast.expr) -> bool:
    """`process.settings`, `self._process.settings` and the like: an agent's own."""
    return isinstance(value, ast.Attribute) and value.attr == "settings" and "process" in ast.unparse(value)
