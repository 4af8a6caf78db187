"""Which earlier decisions matter for a task, by project, files and words, and which are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("chorus._core")

from chorus.curator import bundle, documents
from chorus.curator.documents import Document
from chorus.curator.index import IndexReader, Matter
from chorus.curator.writer import IndexWriter

TASK = {
    "title": "fix the parser of dates", "description": "It fails on leap years.", "project": "calendar",
    "commands": ["pytest tests/test_dates.py"], "artifacts": ["report.xml", "*.log"],
    "source": {"kind": "inline", "files": {"calendar/dates.py": "", "tests/test_dates.py": ""}},
}  # fmt: skip


class Index:
    """An index filled by hand."""

    def __init__(self, path: Path) -> None:
        self.writer, self.reader, self.at = IndexWriter(path, ""), IndexReader(path), 0

    def add(self, title: str, **more: Any) -> Document:
        self.at += 6
        values: dict[str, Any] = {
            "project": "chorus",
            "task": f"T{self.at}",
            "body": "",
            "outcome": "",
            **more,
        }
        made = Document(
            id=self.at, hash=f"{self.at:064x}", address=f"ucxl://a:agent@{values['project']}:T/*^/{self.at}",
            version=1, kind=values.pop("kind", "task_result"), agent="a", role="agent",
            author=values.pop("author", "A"), at_ms=self.at, title=title, **values,
        )  # fmt: skip
        self.writer.settle([made])
        return made

    def chosen(self, task: dict[str, Any] = TASK, **more: Any) -> list[str]:
        return [choice.hash for choice in bundle.choose(self.reader.matching(bundle.matter_of(task)), **more)]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index(tmp_path / "curator.sqlite")
    for n in range(20):
        made.add(f"something else, number {n}", body="All 1 commands succeeded in 0.1 s.", project="other")
    return made


def test_the_matter_of_a_task() -> None:
    matter = bundle.matter_of(TASK)
    assert matter.project == "calendar"
    assert matter.title == ("fix", "parser", "dates")
    assert matter.words == ("fails", "leap", "years", "pytest", "tests", "test")
    assert matter.files == (
        "calendar/dates.py", "dates.py", "tests/test_dates.py", "test_dates.py", "report.xml",
    )  # fmt: skip
    assert bundle.matter_of({}) == Matter()


def test_an_earlier_task_of_the_same_words_matters(index: Index) -> None:
    like = index.add("fix the parser of dates")
    index.add("bake a cake", body="The command succeeded.")
    assert index.chosen() == [like.hash]


def test_files_in_common_matter_whatever_the_words(index: Index) -> None:
    like = index.add("tidy up", files=("calendar/dates.py", "dates.py"))
    index.add("tidy up more", files=("calendar/months.py", "months.py"))
    assert index.chosen() == [like.hash]


def test_the_own_project_is_believed_sooner(index: Index) -> None:
    words = "the parser of numbers"
    index.add(words)
    ours = index.add(words, project="calendar")
    assert index.chosen()[0] == ours.hash
    alone = index.add("unrelated", project="calendar")
    assert alone.hash not in index.chosen()


def test_what_is_common_says_little(index: Index) -> None:
    for n in range(300):
        index.add(f"fix number {n}")
    rare = index.add("parser")
    chosen = index.chosen({"title": "fix parser"})
    assert chosen[0] == rare.hash
    assert index.chosen({"title": "fix a tokenizer somewhere"}) == []


def test_what_was_superseded_or_voted_down_is_left_out(index: Index) -> None:
    first = index.add("fix the parser of dates", body="first")
    assert index.chosen() == [first.hash]
    # Nobody takes back what another decided on another task.
    index.add("unrelated", supersedes=(first.address,), author="B")
    assert index.chosen() == [first.hash]
    second = index.add("parser of dates fixed", supersedes=(first.address,), task=first.task, author="B")
    assert index.chosen() == [second.hash]
    third = index.add("parser dates fixed again", supersedes=(second.address,), author="B")
    assert index.chosen() == [third.hash]
    assert index.chosen(rejected=lambda name: name == third.hash) == []
    assert index.chosen(own=third.address) == []


def test_many_runs_of_one_thing_are_one(index: Index) -> None:
    runs = [index.add("fix the parser of dates") for _ in range(10)]
    other = index.add("parser of dates, again")
    assert index.chosen() == [runs[-1].hash, other.hash]


def test_contents_and_votes_are_no_earlier_decisions(index: Index) -> None:
    for kind in (documents.CONTENT, "vote"):
        index.add("fix the parser of dates", kind=kind)
    assert index.chosen() == []
    outcome = index.add("fix the parser of dates", kind="hmmm_outcome")
    assert index.chosen() == [outcome.hash]


def test_a_few_are_chosen_of_many_and_always_the_same(index: Index) -> None:
    for n in range(100):
        index.add(f"fix the parser of dates, case {n}")
    first = index.chosen()
    assert len(first) == bundle.ITEMS_MAX
    assert index.chosen() == first
    # In another order of arrival the same documents give the same answer.
    other = Index(index.writer.path.with_name("other.sqlite"))
    rows = index.writer._db.execute("SELECT * FROM docs ORDER BY hash DESC").fetchall()
    other.writer.settle([Document(*row) for row in rows])
    assert other.chosen() == first


@pytest.mark.parametrize(
    "text", ['"', "'; DROP TABLE docs; --", "a AND OR NEAR(", "\0", "*", "{title}:x", "x" * 10_000]
)
def test_hostile_words_are_words(index: Index, text: str) -> None:
    index.add(text, body=text, files=(text[:256],), project="p")
    index.chosen({"title": text, "description": text, "project": text, "commands": [text]})
    index.reader.search(text)
    assert len(index.reader.search("something")) == 20


def test_an_excerpt_keeps_to_its_size() -> None:
    record = {
        "title": "t", "decided": {"outcome": "failed", "reason": "why"}, "summary": "s" * 10_000,
    }  # fmt: skip
    text = bundle.excerpt(record)
    assert text.startswith("t: failed (why). sss")
    assert len(text) == bundle.SUMMARY_MAX_CHARS
    assert bundle.tokens(text) == 300
