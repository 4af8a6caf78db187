"""Docker's stats as both versions of cgroups give them.

`stats/cgroup1.json` is one answer of Engine 20.10 on cgroup v1 for a busy loop that had read files, for which
`docker stats` showed 9.152 MiB; `stats/cgroup2.json` is the same container in the form that the Engine API's
reference gives for v2 (no single CPUs, no peak, other names), not an answer of an engine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chorus.executor.docker.stats import read_sample

STATS = Path(__file__).with_name("stats")


def stats(version: int) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((STATS / f"cgroup{version}.json").read_bytes())
    return read


@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_say_the_same(version: int) -> None:
    sample = read_sample(stats(version))
    assert sample is not None
    assert sample.cpu_cores == pytest.approx(0.5479, abs=1e-4)
    assert sample.memory_bytes == 9_601_024


def test_cpus_are_counted_where_they_are_not_told() -> None:
    raw = stats(1)
    del raw["cpu_stats"]["online_cpus"]
    sample = read_sample(raw)
    assert sample is not None
    assert sample.cpu_cores == pytest.approx(0.5479, abs=1e-4)


@pytest.mark.parametrize("version", [1, 2])
def test_files_alone_do_not_make_it_negative(version: int) -> None:
    raw = stats(version)
    raw["memory_stats"]["usage"] = 1000
    sample = read_sample(raw)
    assert sample is not None
    assert sample.memory_bytes == 1000


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("lacks", ["precpu_stats", "memory_stats"])
def test_the_first_line_and_the_last_are_none(version: int, lacks: str) -> None:
    raw = stats(version)
    raw[lacks] = {}
    assert read_sample(raw) is None
