"""The calendar."""


def is_leap(year):
    """Whether the year has a 29th of February."""
    return year % 4 == 0 or year % 100 == 0
