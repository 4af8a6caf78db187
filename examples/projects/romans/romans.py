"""Roman numerals, both ways."""

_SIGNS = (
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"),
    (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
)  # fmt: skip
MOST = 3999


def to_roman(number: int) -> str:
    """The numeral of 1 to 3999."""
    if not 1 <= number <= MOST:
        raise ValueError(f"{number} has no numeral; 1 to {MOST} have")
    text = ""
    for value, sign in _SIGNS:
        count, number = divmod(number, value)
        text += sign * count
    return text


def from_roman(text: str) -> int:
    """The number of a numeral in its one correct form."""
    number, rest = 0, text
    for value, sign in _SIGNS:
        while rest.startswith(sign):
            number, rest = number + value, rest[len(sign) :]
    if rest or not number or to_roman(number) != text:
        raise ValueError(f"{text!r} is no numeral")
    return number
