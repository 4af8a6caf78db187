"""Four tiers decide on the image."""

from __future__ import annotations

import pytest

from chorus.executor.images import ImageRefused, allowed, choose

TABLE = {"base": "b", "python": "p", "node": "n", "rust": "r", "cpp": "c"}


@pytest.mark.parametrize(
    ("language", "files", "words", "image"),
    [
        ("Python", ["Cargo.toml"], "rust", "p"),
        ("c++", [], "", "c"),
        ("", ["src/x.py", "package.json"], "", "n"),
        ("", ["a.py", "b.py", "c.rs"], "rust", "p"),
        ("", ["examples/deep/down/package.json", "main.rs"], "", "r"),
        ("", [], "Run the pytest suite", "p"),
        ("", ["README"], "go on and see", "b"),
        ("", ["Main.java"], "", "b"),
        ("", [], "", "b"),
    ],
)
def test_choice(language: str, files: list[str], words: str, image: str) -> None:
    assert choose(language, files, words, TABLE).image == image


def test_a_language_without_an_image_is_refused() -> None:
    with pytest.raises(ImageRefused, match="cobol"):
        choose("cobol", [], "", TABLE)


def test_only_the_table_and_the_allow_list_may_run() -> None:
    assert allowed("p", TABLE, ())
    assert allowed("x", TABLE, ("x",))
    assert not allowed("x", TABLE, ())
