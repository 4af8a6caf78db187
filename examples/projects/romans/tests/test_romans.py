import pytest
from romans import MOST, from_roman, to_roman


@pytest.mark.parametrize(("number", "text"), [(1, "I"), (4, "IV"), (1994, "MCMXCIV"), (3999, "MMMCMXCIX")])
def test_known_numerals(number: int, text: str) -> None:
    assert to_roman(number) == text
    assert from_roman(text) == number


def test_all_numerals_come_back() -> None:
    assert [from_roman(to_roman(number)) for number in range(1, MOST + 1)] == list(range(1, MOST + 1))


@pytest.mark.parametrize("text", ["", "IIII", "IC", "VX", "Z", "i"])
def test_what_is_no_numeral(text: str) -> None:
    with pytest.raises(ValueError, match="no numeral"):
        from_roman(text)
