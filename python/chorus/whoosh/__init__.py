"""WHOOSH, which assigns agents their roles: the client. What it says is fetched, read or refused, kept."""

from chorus.whoosh.document import Document, DocumentRefused, read_document
from chorus.whoosh.fetching import FETCH_TIMEOUT_S, FetchFailed, fetch, in_thread, shown
from chorus.whoosh.load import Copy, Load, load, load_for

__all__ = [
    "FETCH_TIMEOUT_S",
    "Copy",
    "Document",
    "DocumentRefused",
    "FetchFailed",
    "Load",
    "fetch",
    "in_thread",
    "load",
    "load_for",
    "read_document",
    "shown",
]
