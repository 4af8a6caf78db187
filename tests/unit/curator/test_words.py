"""Words, file names and queries out of text that may hold anything."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus.curator import words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Count the words, count them in report-2291.txt", ["count", "words", "report", "2291", "txt"]),
        ("ÄRGER ärger Straße", ["ärger", "strasse"]),
        ("a b of to snake_case", ["snake", "case"]),
        ("", []),
        ("計算する Python言語", ["計算", "算す", "する", "python", "言語"]),
        ("단어를 세다", ["단어", "어를", "세다"]),
    ],
)
def test_words_worth_looking_for(text: str, found: list[str]) -> None:
    assert words.words(text) == found


def test_a_query_has_so_many_words_and_no_more() -> None:
    assert len(words.words(" ".join(f"word{n}" for n in range(1000)))) == words.QUERY_WORDS_MAX


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pytest tests/unit/test_x.py -q", ["tests/unit/test_x.py", "test_x.py"]),
        ("./setup.sh && cat docs/api.md.", ["setup.sh", "docs/api.md", "api.md"]),
        ("version 1.2 and 3.14, e.g. nothing", []),
        ("python3 -c 'print(6*7)'", []),
    ],
)
def test_file_names_in_commands(text: str, found: list[str]) -> None:
    assert words.file_names([text]) == found


def test_no_text_takes_longer_than_it_is_long() -> None:
    """One letter 65,536 times took a minute; these would take hours, and take a moment."""
    script = """
from chorus.curator.words import all_of, file_names, words
for text in ("a", "-", ".", "/", "a/", "a.", "./", "-a.", "_a"):
    assert len(words(text * 65536)) <= 16
    all_of(text * 65536)
    for _ in range(20):
        assert file_names([text * 65536]) == []
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


TEXT = st.text(max_size=60) | st.text(alphabet="\"'*()^:+-NEARANDOR \0{}ab,\\", max_size=60)


@settings(max_examples=500, deadline=None)
@given(TEXT)
def test_no_text_is_syntax(text: str) -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE t USING fts5(a)")
    db.execute("INSERT INTO t VALUES ('something else')")
    for query in (words.all_of(text), words.phrase(text)):
        if query is not None:
            db.execute("SELECT rowid FROM t WHERE t MATCH ?", (query,)).fetchall()
    for name in words.file_names([text]):
        assert 4 <= len(name) <= 256


UNSPACED = "数える単語をかぞえるカタカナーｶﾅ々한국어는词语ภาษาไทย\U00020000"


@settings(deadline=None)
@given(st.text(alphabet=UNSPACED + "aé1_ .,\u3099\u0e31\u200b", max_size=40), st.data())
def test_any_part_of_a_text_without_spaces_is_found(text: str, data: st.DataObject) -> None:
    text = unicodedata.normalize("NFC", text)
    begin = data.draw(st.integers(0, max(0, len(text) - 1)))
    part = text[begin : data.draw(st.integers(begin, len(text)))]
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE t USING fts5(x, tokenize='unicode61 remove_diacritics 2')")
    db.execute("INSERT INTO t VALUES (?)", (words.spread(text),))
    assert words.joined(words.spread(text)) == words.joined(text)
    # What begins or ends within a word of letters is no word.
    if set(part) <= set(UNSPACED) and (query := words.all_of(part)) is not None:
        assert db.execute("SELECT count(*) FROM t WHERE t MATCH ?", (query,)).fetchone() == (1,), (text, part)
