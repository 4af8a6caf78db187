"""Shapes."""

from geometry.utlis import distance


def perimeter(points):
    """The way around all points and back to the first."""
    return sum(distance(a, b) for a, b in zip(points, [*points[1:], points[0]], strict=True))
