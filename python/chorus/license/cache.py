"""What an agent keeps of its licence on disk (`license.json` in its data directory, 0600): the last token,
what came with it, and the newest time ever seen.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from chorus.config.files import write_private
from chorus.wire.schema import Schema

# A token, a nonce and a secret take a tenth of this.
FILE_MAX_BYTES = 64 * 1024
_Time = Annotated[float, Field(ge=0, le=2**53, allow_inf_nan=False)]


class Kept(Schema):
    """The content. `token` is "" where there is none, `secret` the cluster secret in hexadecimal, "" where
    KACHING gave none. Times are seconds since the epoch.
    """

    model_config = ConfigDict(extra="ignore")

    token: str = ""
    # The lease that the token is for.
    lease: str = ""
    secret: Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$")] = ""
    checked: _Time = 0.0
    newest: _Time = 0.0


def load(path: Path) -> Kept:
    """What is there; nothing where there is no file, or one that cannot be read."""
    with contextlib.suppress(OSError, ValidationError), path.open("rb") as file:
        return Kept.model_validate_json(file.read(FILE_MAX_BYTES))
    return Kept()


def save(path: Path, kept: Kept) -> None:
    """Replaces it in one step. Raises OSError."""
    write_private(path, kept.model_dump_json() + "\n")
