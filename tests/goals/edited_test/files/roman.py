"""Roman numerals."""

VALUES = [(1000, "M"), (500, "D"), (100, "C"), (50, "L"), (10, "X"), (5, "V"), (1, "I")]


def roman(number):
    """The number, from 1 to 3999, in Roman numerals."""
    said = ""
    for value, letter in VALUES:
        while number >= value:
            said += letter
            number -= value
    return said
