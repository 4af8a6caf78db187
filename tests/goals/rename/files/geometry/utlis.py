"""What shapes share."""

import math


def distance(a, b):
    """How far two points are apart."""
    return math.hypot(a[0] - b[0], a[1] - b[1])


def middle(a, b):
    """The point half way between two others."""
    return ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)


def near(a, b, limit=1e-9):
    """Whether two points are the same, as far as numbers can tell."""
    return distance(a, b) <= limit
