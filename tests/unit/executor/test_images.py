"""Four tiers decide on the image."""

from __future__ import annotations

import pytest

from chorus.executor.images import ImageRefused, allowed, base_instead, choose

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


def test_a_guess_falls_back_to_base_and_a_named_language_does_not() -> None:
    guess = choose("", [], "from a JavaScript member", TABLE)
    assert (guess.image, guess.guessed) == ("n", True)
    base = base_instead(guess, TABLE, "image n could not be pulled")
    assert base is not None
    assert (base.image, base.language) == ("b", "base")
    assert "mentions JavaScript, but image n could not be pulled" in base.why
    assert base_instead(base, TABLE, "gone too") is None
    assert base_instead(choose("js", [], "", TABLE), TABLE, "gone") is None


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
