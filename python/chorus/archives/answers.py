"""What the child that reads archives answers, and what it may use: all that its callers know of it."""

from __future__ import annotations

# Some 40 MiB are the interpreter's; remembered links are the most that grows.
MEMORY_MAX_BYTES = 256 * 1024 * 1024
# The largest blob, inflated to the largest disk, takes half of it on a slow core.
CPU_MAX_S = 60

# Of a file that was taken out: the name it is stored under, its size, its SHA-256 and its permissions.
Stored = tuple[str, int, str, int]
# Of a file: its mode as git has it, size, SHA-256 and where in the archive it begins; of a link: its target.
Listed = tuple[str, int, str, int] | tuple[str, str]
