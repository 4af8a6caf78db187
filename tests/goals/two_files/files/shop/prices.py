"""Prices in cents."""


def total(prices, discount):
    """The sum less the discount, which is a share from 0 to 1, rounded to whole cents."""
    return round(sum(prices) * (1 - discount))
