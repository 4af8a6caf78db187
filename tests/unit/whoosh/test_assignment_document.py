"""WHOOSH's document: what it may say, and how it is refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.config import Assignment
from chorus.config.values import as_json, from_json
from chorus.whoosh import Document, DocumentRefused, read_document

PEER = "/ip4/192.168.1.100/tcp/9000"
CONTRACT = {
    "agent_id": "agent-123",
    "role": "developer",
    "expertise": ["rust", "go"],
    "reports_to": "agent-admin",
    "max_tasks": 5,
    "bootstrap_peers": [PEER],
    "join_stagger_ms": 5000,
}


def problems_of(said: Any, *, trusted: bool = True) -> list[str]:
    content = said if isinstance(said, bytes) else json.dumps(said).encode()
    with pytest.raises(DocumentRefused) as caught:
        read_document(content, trusted=trusted)
    return caught.value.problems


def test_the_contract_s_document() -> None:
    document = read_document(json.dumps(CONTRACT).encode(), trusted=True)
    assert (document.agent_id, document.join_stagger_ms) == ("agent-123", 5000)
    environment = Assignment(role="admin", specialization="audits", max_tasks=1)
    assert document.over(environment) == Assignment(
        role="developer", expertise=("rust", "go"), specialization="audits", reports_to="agent-admin",
        max_tasks=5, bootstrap_peers=(PEER,),
    )  # fmt: skip


def test_every_field_may_be_left_out_or_emptied() -> None:
    environment = Assignment(role="admin", expertise=("go",), max_tasks=4)
    assert read_document(b"{}", trusted=True).over(environment) == environment
    emptied = read_document(b'{"role": "", "expertise": [], "specialization": ""}', trusted=True)
    assert emptied.over(environment) == Assignment(max_tasks=4)


def test_all_wrong_fields_are_named_at_once() -> None:
    wrong = {
        "agent_id": "a b", "role": "a/b", "expertise": "rust", "reports_to": 7, "max_tasks": True,
        "bootstrap_peers": ["nowhere"], "join_stagger_ms": -1, "colour": "red", "specialization": None,
    }  # fmt: skip
    named = {problem.partition(":")[0].strip("'") for problem in problems_of(wrong)}
    assert named == set(wrong)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000, b'{"max_tasks": 1e99}'])
def test_what_is_no_document(content: bytes) -> None:
    assert problems_of(content)


@pytest.mark.parametrize("value", [["a,b"], [""], [1], {"a": 1}, "go"])
def test_lists_are_lists_of_words(value: Any) -> None:
    [problem] = problems_of({"expertise": value})
    assert problem.startswith("expertise: expected a list")


def test_admin_is_not_taken_from_who_could_be_anybody() -> None:
    [problem] = problems_of({"role": "admin"}, trusted=False)
    assert "https" in problem
    assert read_document(b'{"role": "admin"}', trusted=True).fields["role"] == "admin"
    assert read_document(b'{"role": "developer"}', trusted=False).fields["role"] == "developer"


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*CONTRACT, "specialization", "x"]), _ANY) | _ANY)
def test_any_document_is_read_or_refused(said: Any) -> None:
    try:
        document = read_document(json.dumps(said).encode(), trusted=True)
    except DocumentRefused:
        return
    else:
        assert isinstance(document, Document)
        # What is taken is of the forms that the environment's has.
        assert from_json(Assignment, as_json(document.over(Assignment()))) is not None


@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(DocumentRefused):
        assert isinstance(read_document(content, trusted=True), Document)
