"""Benches of the curator: a task's context among 10², 10⁴ and 10⁶ decisions."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from bench.figures import Comparison, Figures, figures
from chorus.curator import bundle
from chorus.curator.documents import Document
from chorus.curator.index import IndexReader
from chorus.curator.writer import IndexWriter

SIZES = (100, 10_000, 1_000_000)
QUERIES = 300
BATCH = 2_000
# A decision is listed every so many entries, as when tasks run.
ENTRIES_APART = 6
WORDS = 50_000
PROJECTS = 200
FILES = 20_000
# What grows with the logarithm of what there is, and with the disk's caches, may cost this much more.
GROWTH_MAX = 3.0


def context() -> list[Comparison]:
    """How the cost grows with what came before: each index beside one of a hundredth of its size."""
    rng = random.Random(1)
    taken: dict[int, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="chorus-bench-") as folder:
        path = Path(folder) / "curator.sqlite"
        writer, reader, made = IndexWriter(path, ""), IndexReader(path), 0
        for size in SIZES:
            for start in range(made, size, BATCH):
                writer.settle(_documents(rng, start, min(size, start + BATCH)))
            made = size
            tasks = [_task(rng) for _ in range(QUERIES)]
            taken[size] = figures(f"among {size:,}", _times(tasks, lambda task: _chosen(reader, task)))
        reader.close()
        writer.close()
    return [
        Comparison("context of a task", taken[many], taken[few], GROWTH_MAX) for few, many in pairwise(SIZES)
    ]


def _chosen(reader: IndexReader, task: dict[str, str]) -> object:
    return bundle.choose(reader.matching(bundle.matter_of(task)))


def _times(tasks: list[dict[str, str]], once: Callable[[dict[str, str]], object]) -> list[float]:
    taken = []
    for task in tasks:
        started = time.perf_counter_ns()
        once(task)
        taken.append((time.perf_counter_ns() - started) / 1000)
    return taken


def _text(rng: random.Random, count: int) -> str:
    # As in any language: few words stand in most texts, most words in few.
    return " ".join(f"word{int(WORDS ** rng.random())}" for _ in range(count))


def _documents(rng: random.Random, start: int, end: int) -> Iterator[Document]:
    for number in range(start, end):
        place = f"project{rng.randrange(PROJECTS)}"
        yield Document(
            id=(number + 1) * ENTRIES_APART,
            hash=f"{number:064x}",
            address=f"ucxl://agent:agent@{place}:T{number}/*^/1/decision.json",
            version=1,
            kind="task_result",
            agent="agent",
            role="agent",
            project=place,
            task=f"T{number}",
            author="A",
            at_ms=number,
            title=_text(rng, 6),
            body=_text(rng, 30),
            outcome="completed",
            files=(f"src/file{rng.randrange(FILES)}.py",),
        )


def _task(rng: random.Random) -> dict[str, str]:
    return {
        "title": _text(rng, 6),
        "description": f"{_text(rng, 20)} src/file{rng.randrange(FILES)}.py",
        "project": f"project{rng.randrange(PROJECTS)}",
    }
