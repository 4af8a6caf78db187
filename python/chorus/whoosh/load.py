"""One load of the assignment: what the server says, else the last good copy of it, and what was wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chorus.config import Settings
from chorus.config.files import write_private
from chorus.config.role_keys import role_keys_problem
from chorus.whoosh.document import Document, DocumentRefused, read_document
from chorus.whoosh.fetching import FetchFailed, fetch

# What is wrong with a document for this agent alone, such as a role that it has no keys for.
Check = Callable[[Document], list[str]]


@dataclass(frozen=True, slots=True)
class Copy:
    """A document that was good, as it is kept on the disk."""

    url: str
    etag: str
    private: bool
    text: str

    def save(self, path: Path) -> None:
        """Writes it in one step; raises OSError."""
        said = {"url": self.url, "etag": self.etag, "private": self.private, "document": self.text}
        write_private(path, json.dumps(said))


@dataclass(frozen=True, slots=True)
class Load:
    """What a load brought. `source` is where the document comes from; None where there is no document."""

    document: Document | None = None
    source: Literal["server", "copy"] | None = None
    # Why the server's word is not there, or what of it cannot be used.
    error: str = ""
    refused: tuple[str, ...] = ()
    # To be kept in place of the old one.
    copy: Copy | None = None


def load_for(settings: Settings) -> Load:
    """One load with these settings; may take as long as a fetch."""

    def check(document: Document) -> list[str]:
        file, role = settings.role_keys_file, document.fields.get("role", "")
        problem = role_keys_problem(file, role) if file is not None and role else ""
        return [f"role: {problem}"] if problem else []

    token = settings.assign_token.get_secret_value()
    return load(settings.assign_url, token, settings.paths.assigned_json, check)


def load(url: str, token: str, path: Path, check: Check) -> Load:
    """Asks the server; falls back on the copy in the file `path`."""
    copy, kept = _read_copy(path, url, check)
    try:
        fetched = fetch(url, token, copy.etag if copy is not None else "")
    except FetchFailed as failed:
        return Load(kept, "copy" if kept is not None else None, error=str(failed))
    if fetched.content is None:
        return Load(kept, "server")
    try:
        document = _read(fetched.content, fetched.private, check)
    except DocumentRefused as refused:
        return Load(kept, "copy" if kept is not None else None, refused=tuple(refused.problems))
    text = fetched.content.decode("utf-8", "replace")
    return Load(document, "server", copy=Copy(url, fetched.etag, fetched.private, text))


def _read(content: bytes, private: bool, check: Check) -> Document:
    document = read_document(content, trusted=private)
    if problems := check(document):
        raise DocumentRefused(problems)
    return document


def _read_copy(path: Path, url: str, check: Check) -> tuple[Copy | None, Document | None]:
    """The copy of what this address gave out before, if it can be used still."""
    try:
        said = json.loads(path.read_bytes())
        copy = Copy(str(said["url"]), str(said["etag"]), said["private"] is True, str(said["document"]))
        if copy.url != url:
            return None, None
        return copy, _read(copy.text.encode(), copy.private, check)
    except (OSError, ValueError, KeyError, TypeError, DocumentRefused):
        return None, None
