"""UCXL addresses from Python: the vectors that the core reads too, and what Python adds."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("chorus._core")

from chorus.core import Ucxl, UcxlError

VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "ucxl.json").read_text(encoding="utf-8")
)
PARTS = ("agent", "role", "project", "task", "path", "temporal")


@pytest.mark.parametrize("vector", VECTORS["addresses"], ids=lambda vector: vector["text"])
def test_addresses(vector: dict[str, Any]) -> None:
    address = Ucxl.parse(vector["text"])
    parts = {part: vector[part] for part in PARTS}
    assert {part: getattr(address, part) for part in PARTS} == parts
    assert address.is_pattern is vector["is_pattern"]
    assert str(address) == vector["text"]
    assert Ucxl(**parts) == address


@pytest.mark.parametrize("vector", VECTORS["errors"], ids=lambda vector: vector["text"])
def test_errors_are_to_the_letter(vector: dict[str, Any]) -> None:
    with pytest.raises(UcxlError) as raised:
        Ucxl.parse(vector["text"])
    field, message, text = vector["field"], vector["message"], vector["text"]
    assert (raised.value.field, raised.value.message, raised.value.raw) == (field, message, text)
    assert str(raised.value) == f"UCXL address validation error in {field}: {message} (address: {text})"
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("vector", VECTORS["versions"], ids=str)
def test_versions(vector: dict[str, Any]) -> None:
    address = Ucxl("a", "r", "p", "t", temporal=vector["temporal"])
    if vector["version"] is not None:
        assert address.resolve(vector["latest"]) == vector["version"]
    else:
        with pytest.raises(UcxlError) as raised:
            address.resolve(vector["latest"])
        assert raised.value.field == "temporal"
        assert raised.value.raw == str(address)


@pytest.mark.parametrize("vector", VECTORS["matches"], ids=str)
def test_matches(vector: dict[str, Any]) -> None:
    assert Ucxl.parse(vector["pattern"]).matches(Ucxl.parse(vector["address"])) is vector["matches"]


def test_parts_have_defaults() -> None:
    assert str(Ucxl("a", "r", "p", "t")) == "ucxl://a:r@p:t/*^/"


def test_a_part_is_checked_by_itself() -> None:
    with pytest.raises(UcxlError) as raised:
        Ucxl("a", "r", "p", "t", "y", "*^/x")
    assert raised.value.field == "temporal"


def test_another_time_is_the_same_place() -> None:
    address = Ucxl("a", "r", "p", "t", "x")
    assert str(address.at("~~2")) == "ucxl://a:r@p:t/~~2/x"
    with pytest.raises(UcxlError):
        address.at("now")


def test_an_address_is_a_value() -> None:
    texts = ["ucxl://b:r@p:t/*^/", "ucxl://a:r@p:t/*~2/x", "ucxl://a:r@p:t/*^/x"]
    addresses = [Ucxl.parse(text) for text in texts]
    assert [str(address) for address in sorted(addresses)] == sorted(texts)
    assert {Ucxl.parse(text) for text in texts * 2} == set(addresses)
    assert addresses[0] != texts[0]
    assert [pickle.loads(pickle.dumps(address)) for address in addresses] == addresses
    assert copy.deepcopy(addresses) == addresses
    assert repr(addresses[0]) == "Ucxl.parse('ucxl://b:r@p:t/*^/')"
    with pytest.raises(AttributeError):
        addresses[0].agent = "c"  # type: ignore[misc]


def test_an_error_survives_the_way_between_processes() -> None:
    with pytest.raises(UcxlError) as raised:
        Ucxl.parse("ucxl://a\x1b[2J" + "x" * 100_000)
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.field, again.raw) == (str(raised.value), "agent", raised.value.raw)
    assert "\x1b" not in str(again)
    assert len(str(again)) < 1000


@given(st.text() | st.text(alphabet="ab:@/*^~1.\ud800").map("ucxl://a:r@p".__add__))
def test_any_text_is_refused_or_comes_back_the_same(text: str) -> None:
    with contextlib.suppress(UcxlError):
        assert str(Ucxl.parse(text)) == text
