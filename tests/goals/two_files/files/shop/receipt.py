"""What a customer takes home."""

from shop.prices import total


def receipt(prices, percent=0):
    """One line with the total; the discount is given in percent."""
    cents = total(prices, percent)
    return f"Total: {cents // 100}.{cents % 100}"
