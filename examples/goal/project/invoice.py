"""Invoices: what a customer pays."""


def total(prices, tax_percent):
    """The sum of the prices (such as "19.99") with tax, rounded to cents, as text."""
    net = sum(float(price) for price in prices)
    return f"{net * (1 + tax_percent / 100):.2f}"
