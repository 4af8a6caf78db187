"""Records are built, signed and verified; a wrong one is refused by the name of the check it fails."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("chorus._core")

from chorus import decisions
from chorus.decisions.verify import RECORD_BYTES_MAX, VerifiedRecord, check_role
from chorus.testing.decision_records import AUTHOR, DECIDED, GOAL, HASH, NOW, OTHER, TASK, made, signed

BEFORE_GOALS = Path(__file__).parents[2] / "vectors" / "decision_0.6.json"
SCHEMA_FILE = Path(__file__).parents[3] / "docs" / "decision-record.schema.json"


@dataclass(frozen=True)
class Row:
    """What a table says of a record."""

    hash: str
    address: str
    kind: str
    task_id: str | None
    attempt: int | None
    author: str


def listed(encoded: bytes) -> Row:
    record = orjson.loads(encoded)
    return Row(
        decisions.hash_of(encoded), record["address"], record["kind"], record["task_id"], record["attempt"],
        record["agent"]["peer"],
    )  # fmt: skip


def refusal(encoded: bytes, **more: Any) -> str:
    with pytest.raises(decisions.DecisionError) as caught:
        decisions.verify(encoded, **more)
    assert caught.value.reason
    return caught.value.name


@pytest.mark.parametrize("kind", decisions.KINDS)
def test_what_is_signed_verifies(kind: decisions.Kind) -> None:
    encoded = signed(made(kind))
    verified = decisions.verify(
        encoded, expected_hash=decisions.hash_of(encoded), author=AUTHOR.peer_id, listed=listed(encoded)
    )
    assert verified.author == AUTHOR.peer_id
    file = {"task_result": "decision", "hmmm_outcome": "discussion", "vote": "vote"}[kind]
    assert verified.record["address"] == f"ucxl://a-1:agent@my-project:{TASK}/*^/2/{file}.json"


# How a goal's attempt is decided, and its record.
FINISHED = {**DECIDED["task_result"], "ended_by": "finished", "exit_code": None}
OF_A_GOAL = made(decided=FINISHED, goal=GOAL)


def test_the_record_of_a_goal_says_what_the_model_did() -> None:
    record = decisions.verify(signed(OF_A_GOAL)).record
    assert (record["inputs"]["model"], record["inputs"]["prompts_sha256"]) == ("qwen2.5-coder:1.5b", HASH)
    assert record["goal"].keys() == GOAL.keys() - {"model", "prompts_sha256"}
    assert all(record["goal"][name] == GOAL[name] for name in record["goal"])
    nothing = {**GOAL, "patch": None, "usd": 0.25, "discussion": None, "transcript_sha256": "", "checks": []}
    assert decisions.verify(signed(made(decided=FINISHED, goal=nothing))).record["goal"]["usd"] == 0.25


def test_a_record_of_commands_is_encoded_as_before_there_were_goals() -> None:
    # Made by the release before; signed by a key that nobody kept.
    encoded = BEFORE_GOALS.read_bytes()
    verified = decisions.verify(encoded)
    assert decisions.hash_of(decisions.encode(verified.record)) == decisions.hash_of(encoded)
    assert made().keys() == verified.record.keys() - {"sig"}


async def test_the_signer_sees_the_record_without_its_signature() -> None:
    seen = []

    async def sign(data: bytes) -> str:
        seen.append(data)
        return "x"

    encoded = await decisions.sign({**made(), "sig": "old"}, sign)
    assert b'"sig"' not in seen[0]
    assert orjson.loads(encoded)["sig"] == "x"


def test_the_published_schema_is_the_one_that_is_checked() -> None:
    # To renew it:
    # python -c 'import json, chorus.decisions as d; print(json.dumps(d.json_schema(), indent=2))'
    assert json.loads(SCHEMA_FILE.read_text()) == decisions.json_schema()


ENCODED = signed(made())
RECORD: dict[str, Any] = orjson.loads(ENCODED)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_altered_byte_is_refused(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(ENCODED) - 1))
    how = data.draw(st.sampled_from(["change", "cut", "insert", "end"]))
    byte = bytes([data.draw(st.integers(0, 255).filter(lambda b: b != ENCODED[place]))])
    altered = {
        "change": ENCODED[:place] + byte + ENCODED[place + 1 :],
        "cut": ENCODED[:place] + ENCODED[place + 1 :],
        "insert": ENCODED[:place] + byte + ENCODED[place:],
        "end": ENCODED[:place],
    }[how]
    # With the hash it is named by, and as a file of which nothing is known.
    assert refusal(altered, expected_hash=decisions.hash_of(ENCODED)) == "altered"
    assert refusal(altered) != "altered"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        found += paths(item, (*at, name))
    return found


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(copy[path[0]], path[1:], new)
    return copy


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([*map(made, decisions.KINDS), OF_A_GOAL]), st.data())
def test_a_field_of_any_other_value_is_refused_or_another_record(
    plain: dict[str, Any], data: st.DataObject
) -> None:
    """A hostile author signs whatever it likes: it is a record of the published form, or refused by name."""
    path = data.draw(st.sampled_from(paths(plain)))
    changed = put(plain, path, data.draw(JSON))
    try:
        encoded = signed(changed)
    except decisions.DecisionError:
        return
    named = None
    try:
        verified = decisions.verify(encoded)
    except decisions.DecisionError as error:
        named = error.name
    if named is None:
        assert decisions.encode(verified.record) == encoded
        assert verified.author == AUTHOR.peer_id
    assert named in (
        None, "malformed", "unknown_schema", "wrong_address", "bad_signature", "not_canonical"
    )  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_refused(data: bytes) -> None:
    assert refusal(data) in ("malformed", "unknown_schema", "not_canonical")


def deep(field: str, **changes: Any) -> bytes:
    return signed(put(RECORD, tuple(field.split(".")), changes["to"]))


@pytest.mark.parametrize(
    ("encoded", "name"),
    [
        (b"{", "malformed"),
        (b"[]", "malformed"),
        (b"[" * 100_000, "malformed"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "not_canonical"),
        (b" " * (RECORD_BYTES_MAX + 1), "too_large"),
        (deep("schema", to="chorus/decision/v9"), "unknown_schema"),
        (deep("kind", to="whim"), "malformed"),
        (deep("attempt", to="2"), "malformed"),
        (deep("attempt", to=True), "malformed"),
        (deep("decided.outcome", to="excellent"), "malformed"),
        (deep("decided", to={**RECORD["decided"], "more": 1}), "malformed"),
        (deep("commands", to=[{"command": "x", "exit_code": "0", "duration_s": 1}]), "malformed"),
        (deep("artifacts", to=[{"path": "x", "size": -1, "sha256": HASH}]), "malformed"),
        (deep("links.influenced_by", to=["http://x"]), "malformed"),
        (deep("links.influenced_by", to=[RECORD["address"]] * 65), "malformed"),
        (deep("usage", to={"cpu_s": "much"}), "malformed"),
        (signed({**RECORD, "goal": {}}), "malformed"),
        (signed({**made("vote"), "goal": OF_A_GOAL["goal"]}), "malformed"),
        (signed(put(OF_A_GOAL, ("goal", "steps"), -1)), "malformed"),
        (signed(put(OF_A_GOAL, ("goal", "patch", "sha256"), "x")), "malformed"),
        (signed(put(OF_A_GOAL, ("goal", "discussion"), "http://x")), "malformed"),
        (signed(put(OF_A_GOAL, ("goal", "checks"), [{"command": "x"}])), "malformed"),
        (deep("created_at", to="yesterday"), "malformed"),
        (deep("summary", to="x" * 32_001), "malformed"),
        (signed({**RECORD, "surprise": 1}), "malformed"),
        (signed({k: v for k, v in RECORD.items() if k != "inputs"}), "malformed"),
        (decisions.encode({k: v for k, v in RECORD.items() if k != "sig"}), "malformed"),
        (orjson.dumps(RECORD, option=orjson.OPT_INDENT_2), "not_canonical"),
        (ENCODED[:-1] + b',"title":"t"}', "not_canonical"),
        (signed(RECORD, OTHER), "bad_signature"),
        (decisions.encode({**RECORD, "sig": "A" * 86 + "=="}), "bad_signature"),
        (deep("project", to="another"), "wrong_address"),
        (deep("role", to="architect"), "wrong_address"),
        (deep("agent.agent_id", to="b"), "wrong_address"),
        (deep("task_id", to="01J00000000000000000000009"), "wrong_address"),
        (deep("attempt", to=3), "wrong_address"),
        (deep("address", to=RECORD["address"].replace("decision.json", "vote.json")), "wrong_address"),
        (deep("address", to=RECORD["address"].replace("*^", "*~1")), "wrong_address"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(encoded: bytes, name: str) -> None:
    assert refusal(encoded) == name


def test_a_record_of_another_author_is_refused() -> None:
    stolen = signed(made(identity=OTHER), OTHER)
    assert decisions.verify(stolen).author == OTHER.peer_id
    assert refusal(stolen, author=AUTHOR.peer_id) == "wrong_key"
    assert refusal(stolen, listed=replace(listed(stolen), author=AUTHOR.peer_id)) == "wrong_key"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"task_id": "01J00000000000000000000009"}, "replayed"),
        ({"attempt": 3}, "replayed"),
        ({"attempt": None}, "replayed"),
        ({"kind": "vote"}, "replayed"),
        ({"address": RECORD["address"].replace("my-project", "theirs")}, "wrong_address"),
        ({"hash": "0" * 64}, "altered"),
    ],
)
def test_a_record_that_is_listed_as_another_is_refused(change: dict[str, Any], name: str) -> None:
    assert decisions.verify(ENCODED, listed=listed(ENCODED)).record == RECORD
    assert refusal(ENCODED, listed=replace(listed(ENCODED), **change)) == name


@pytest.mark.parametrize(("role", "sealed"), [("", "architect"), ("developer", None), ("developer", "admin")])
def test_a_record_sealed_for_others_is_refused(role: str, sealed: str | None) -> None:
    verified = decisions.verify(signed(made(role=role)))
    check_role(verified, role or None)
    with pytest.raises(decisions.DecisionError) as caught:
        check_role(verified, sealed)
    assert caught.value.name == "wrong_role"


def test_the_address_follows_what_redaction_left() -> None:
    record = decisions.addressed({**made(), "project": "[REDACTED:x]"})
    assert record["address"] == f"ucxl://a-1:agent@REDACTED-x:{TASK}/*^/2/decision.json"
    assert isinstance(decisions.verify(signed(record)), VerifiedRecord)


def test_times_are_utc_with_milliseconds() -> None:
    assert refusal(signed(made(created_at=NOW.replace("Z", "+00:00")))) == "malformed"
