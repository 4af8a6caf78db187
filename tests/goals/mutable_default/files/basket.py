"""A shopping basket."""


def add(item, basket=[]):
    """The basket with the item in it; a new basket when none is given."""
    basket.append(item)
    return basket
