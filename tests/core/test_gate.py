"""What the core lets onto a topic, every reader in Python reads, to finite values."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given

from chorus.core import Node
from chorus.hub import HubError, HubInvalid
from chorus.testing.anything import RAW, SPOILED, examples

from .conftest import PATIENCE_S, SECRET

NUMBER_MAX = 2**53


def tame(value: Any, depth: int = 1) -> bool:
    """Whether all of a value is finite, exact, and not nested too deep."""
    if isinstance(value, dict):
        return depth <= 32 and all(tame(item, depth + 1) for item in (*value, *value.values()))
    if isinstance(value, list):
        return depth <= 32 and all(tame(item, depth + 1) for item in value)
    if isinstance(value, str):
        return bool(value.encode("utf-8") is not None)
    if isinstance(value, int | float):
        return math.isfinite(value) and abs(value) <= NUMBER_MAX
    return value is None


async def publish(node: Node, data: bytes) -> HubError | None:
    """Offers the core raw bytes as a message's data; the error if it refuses them."""
    try:
        await node.hub.call("publish", {"topic": "chorus/tasks", "type": "task_announcement"}, data)
    except HubError as error:
        return error
    return None


def test_what_the_core_publishes_reads_to_finite_values(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        node = Node(SECRET, data_dir=tmp_path, threads=1)
        runner.run(node.__aenter__())
        accepted = []

        @examples
        @example(b'{"a": [1, 2.5, "\xc3\xa4"]}')
        @example(b"[" * 31 + b"]" * 31)
        @example(b"9007199254740992")
        @given(RAW)
        def run(data: bytes) -> None:
            if runner.run(publish(node, data)) is None:
                accepted.append(1)
                assert tame(json.loads(data)), data
                assert tame(orjson.loads(data)), data

        try:
            run()
        finally:
            runner.run(node.__aexit__(None, None, None))
    assert accepted


@pytest.mark.parametrize(
    "name", ["not UTF-8", "a lone surrogate", "no finite number", "a long integer", "deep nesting", "no JSON"]
)
async def test_what_no_reader_could_read_is_refused_before_it_is_signed(tmp_path: Path, name: str) -> None:
    async with asyncio.timeout(PATIENCE_S), Node(SECRET, data_dir=tmp_path, threads=1) as node:
        assert isinstance(await publish(node, SPOILED[name]), HubInvalid)


async def test_the_error_names_the_place(tmp_path: Path) -> None:
    async with asyncio.timeout(PATIENCE_S), Node(SECRET, data_dir=tmp_path, threads=1) as node:
        with pytest.raises(HubInvalid, match=r"data\.resources\.cpus\[1\]: a number beyond 2\^53"):
            await node.publish("chorus/tasks", "task_announcement", {"resources": {"cpus": [1, 2**53 + 2]}})
