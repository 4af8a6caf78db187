"""Where a task's files come from, with the rules for paths.

Fetching, unpacking and storing are left to others.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from chorus.wire.schema import Schema

# What travels in the entry itself; more than this becomes a blob.
INLINE_MAX_BYTES = 64 * 1024
# One request's ceiling for inline files; the rest of the way they travel as a blob.
INLINE_REQUEST_MAX_BYTES = 16 * 1024 * 1024
INLINE_MAX_FILES = 4096
PATH_MAX_BYTES = 1024
# What Linux file systems hold as one name.
NAME_MAX_BYTES = 255

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def check_path(path: str) -> str:
    """A path inside the workspace, in its plain form; raises ValueError naming what is wrong with it."""
    if not path or "\0" in path:
        raise ValueError(f"path {path!r} is empty or holds a zero byte")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise ValueError("a path is not Unicode: it holds half of a surrogate pair") from None
    if size > PATH_MAX_BYTES:
        raise ValueError(f"path {path[:40]!r}… is longer than {PATH_MAX_BYTES} bytes")
    if path.startswith(("/", "\\")) or any(part in ("..", ".", "") for part in path.split("/")):
        raise ValueError(f"path {path!r} is not a plain relative path inside the workspace")
    return path


class Source(Schema):
    """The source of a task. `inline` carries files; `archive` and `blob` name a tar or tar.gz by its
    SHA-256.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["inline", "archive", "blob", "git"]
    url: Annotated[str, Field(max_length=2048)] = ""
    ref: Annotated[str, Field(max_length=256)] = ""
    files: Annotated[dict[str, str], Field(max_length=INLINE_MAX_FILES)] = Field(default_factory=dict)
    sha256: Sha256 | Literal[""] = ""

    @field_validator("files")
    @classmethod
    def _paths(cls, files: dict[str, str]) -> dict[str, str]:
        for path in files:
            check_path(path)
        for path in files:
            parts = path.split("/")
            if any(len(part.encode()) > NAME_MAX_BYTES for part in parts):
                raise ValueError(f"path {path[:40]!r}… has a name of more than {NAME_MAX_BYTES} bytes")
            for depth in range(1, len(parts)):
                if "/".join(parts[:depth]) in files:
                    raise ValueError(f"path {path!r} has another file as its folder")
        return files

    @model_validator(mode="after")
    def _fits_kind(self) -> Source:
        match self.kind:
            case "git":
                raise ValueError("git sources are not supported yet; send the files as an archive")
            case "inline":
                if self.url or self.ref or self.sha256:
                    raise ValueError("an inline source has files and nothing else")
                if self.size > INLINE_REQUEST_MAX_BYTES:
                    raise ValueError(
                        f"inline files hold more than {INLINE_REQUEST_MAX_BYTES} bytes; send an archive"
                    )
            case "archive" | "blob":
                if self.url:
                    raise ValueError("sources by address are not supported yet; send the archive itself")
                if self.files or self.ref:
                    raise ValueError(f"a source of kind {self.kind} has a sha256 and nothing else")
        return self

    @property
    def size(self) -> int:
        """Bytes of the inline files, names included."""
        return sum(len(path.encode()) + len(text.encode()) for path, text in self.files.items())

    @property
    def blob(self) -> str:
        """The hash of the blob this source lies in; empty for an inline one."""
        return self.sha256
