"""Figures about texts."""


def average_length(text):
    """How long the words are on average; 0 when there is none."""
    words = text.split(" ")
    return sum(len(word) for word in words) / len(words)
