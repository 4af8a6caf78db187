"""The SQLite form of the index file, shared by its one writer and its readers."""

from __future__ import annotations

# A file of another form is made anew: everything in it can be fetched again.
FORM_VERSION = 2

# The words of decisions and of contents, apart: much of the one must not hide the other.
DECISION_WORDS = "decision_words"
CONTENT_WORDS = "content_words"

DOCUMENT_COLUMNS = (
    "id", "hash", "address", "version", "kind", "agent", "role", "project", "task", "author", "at_ms",
    "title", "outcome", "body",
)  # fmt: skip

TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE docs (id INTEGER PRIMARY KEY, hash TEXT NOT NULL, address TEXT NOT NULL, version INTEGER,"
    " kind TEXT NOT NULL, agent TEXT NOT NULL, role TEXT NOT NULL, project TEXT NOT NULL, task TEXT NOT NULL,"
    " author TEXT NOT NULL, at_ms INTEGER NOT NULL, title TEXT NOT NULL, outcome TEXT NOT NULL,"
    # Last, so that nobody has to read past it.
    " body TEXT NOT NULL)",
    "CREATE INDEX docs_project ON docs(project, id) WHERE kind IN ('task_result', 'hmmm_outcome')",
    "CREATE INDEX docs_address ON docs(address, id)",
    *(
        # The text itself stands in docs, as `words.spread` makes it.
        f"CREATE VIRTUAL TABLE {words} USING fts5(title, body, content='docs', content_rowid='id',"
        " tokenize='unicode61 remove_diacritics 2')"
        for words in (DECISION_WORDS, CONTENT_WORDS)
    ),
    "CREATE TABLE files (name TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (name, id)) WITHOUT ROWID",
    "CREATE INDEX files_id ON files(id)",
    "CREATE TABLE supersedes (address TEXT NOT NULL, id INTEGER NOT NULL, task TEXT NOT NULL,"
    " author TEXT NOT NULL, PRIMARY KEY (address, id)) WITHOUT ROWID",
    # What is listed and not indexed yet: to be fetched when it is due.
    "CREATE TABLE pending (id INTEGER PRIMARY KEY, listed BLOB NOT NULL, tries INTEGER NOT NULL,"
    " due_ms INTEGER NOT NULL)",
    "CREATE INDEX pending_due ON pending(due_ms)",
)
