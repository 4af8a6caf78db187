"""Durations as people read them."""

from time import timedelta


def spoken(seconds):
    """A duration such as `1 day, 2:03:04`."""
    return str(timedelta(seconds=seconds))
