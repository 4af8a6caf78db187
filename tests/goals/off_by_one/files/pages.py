"""Which items stand on a page."""


def page(items, number, size):
    """The items of page `number`, counted from 1, with `size` items on each page."""
    first = (number - 1) * size
    return items[first : first + size - 1]


def pages(items, size):
    """How many pages there are."""
    return len(items) // size
