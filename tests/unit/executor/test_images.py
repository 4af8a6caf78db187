"""Four tiers decide on the image."""

from __future__ import annotations

import pytest

from chorus.executor.images import ImageChoice, ImageRefused, allowed, choose, instead

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


def test_every_guess_is_tried_before_base() -> None:
    """Manifests first, then the endings of files, then words; each language once."""
    files = ["main.rs", "a.py", "b.py", "web/package.json", "x.java"]
    choice: ImageChoice | None = choose("", files, "port it from JavaScript to C++", TABLE)
    tried = []
    while choice is not None:
        tried.append(choice.language)
        choice = instead(choice, "it is gone")
    assert tried == ["node", "python", "rust", "cpp", "base"]


def test_it_is_said_why_another_image_was_taken() -> None:
    base = instead(choose("", [], "from a JavaScript member", TABLE), "image n could not be pulled")
    assert base is not None
    assert (base.image, base.language) == ("b", "base")
    assert "mentions JavaScript, but image n could not be pulled" in base.why


def test_a_named_language_insists() -> None:
    assert instead(choose("js", ["a.py"], "python", TABLE), "gone") is None


@pytest.mark.parametrize(
    ("words", "language"),
    [
        ("a go program", "go"),
        ("Go module", "go"),
        ("with Node.js", "node"),
        ("cargo", "rust"),
        ("in C++", "cpp"),
    ],
)
def test_words(words: str, language: str) -> None:
    assert choose("", [], words, {**TABLE, "go": "g"}).language == language


def test_only_the_table_and_the_allow_list_may_run() -> None:
    assert allowed("p", TABLE, ())
    assert allowed("x", TABLE, ("x",))
    assert not allowed("x", TABLE, ())
