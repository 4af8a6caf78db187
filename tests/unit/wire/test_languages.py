"""Names that people give languages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.wire.languages import BASE, LANGUAGES, canonical

NAMES = {
    "python": "python Python PYTHON py python3 python3.12 Python-3 py3",
    "node": "node nodejs Node.js node-js JavaScript js TypeScript ts node20",
    "rust": "rust Rust rs",
    "go": "go Go golang go1.22",
    "java": "java Java17 java-21 kotlin",
    "cpp": "c C c++ C++ cpp c++17 c11 cxx",
    "base": "bash sh shell Bash base posix",
    "csharp": "c# C# csharp .NET",
    "cobol": "cobol COBOL",
}


@pytest.mark.parametrize(
    ("name", "said"), [(key, one) for key, many in NAMES.items() for one in many.split()]
)
def test_one_name(name: str, said: str) -> None:
    assert canonical(said) == canonical(f" {said} ") == name


@given(st.text(max_size=64))
def test_a_name_is_its_own(text: str) -> None:
    once = canonical(text)
    if once in LANGUAGES or once == BASE:
        assert canonical(once) == once
    else:
        assert once == text.strip().lower()
