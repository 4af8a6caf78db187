"""Records are built, signed and verified; anything wrong is named."""

from __future__ import annotations

import sys
import types
from typing import Any

import orjson
import pytest

from chorus import decisions


@pytest.fixture(autouse=True)
def core(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("chorus.core")

    def verify_json(data: bytes, peer: str) -> None:
        if orjson.loads(data)["sig"] != f"by {peer}":
            raise ValueError("tampered")

    stand_in.canonical_json = lambda data: orjson.dumps(orjson.loads(data), option=orjson.OPT_SORT_KEYS)  # type: ignore[attr-defined]
    stand_in.verify_json = verify_json  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "chorus.core", stand_in)


def made(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "kind": "task_result", "peer": "p1", "agent_id": "a 1", "role": "", "project": "my/project",
        "task_id": "T", "attempt": 2, "mesh": "m", "title": "t", "decided": {"outcome": "completed"},
        "summary": "s", "inputs": {}, "commands": [], "artifacts": [], "usage": {}, "created_at": "now",
    }  # fmt: skip
    return decisions.build(**{**values, **changes})


async def signed(record: dict[str, Any]) -> bytes:
    async def sign(data: bytes) -> str:
        assert b'"sig"' not in data
        return "by p1"

    return await decisions.sign(record, sign)


async def test_what_is_signed_verifies() -> None:
    encoded = await signed(made())
    verified = decisions.verify(encoded, expected_hash=decisions.hash_of(encoded))
    assert verified.author == "p1"
    assert verified.record["address"] == "ucxl://a-1:agent@my-project:T/*^/2/decision.json"


async def test_what_is_wrong_is_named() -> None:
    encoded = await signed(made())
    record = orjson.loads(encoded)
    cases: list[tuple[bytes, str]] = [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (orjson.dumps({**record, "kind": "whim"}), "kind"),
        (orjson.dumps({**record, "schema": "x"}), "schema"),
        (orjson.dumps({k: v for k, v in record.items() if k != "sig"}), "sig"),
        (orjson.dumps(record, option=orjson.OPT_INDENT_2), "canonical"),
        (decisions.encode({**record, "sig": "by p2"}), "signature"),
    ]
    for data, reason in cases:
        with pytest.raises(decisions.DecisionError, match=reason):
            decisions.verify(data)
    with pytest.raises(decisions.DecisionError, match="hash"):
        decisions.verify(encoded, expected_hash="0" * 64)
