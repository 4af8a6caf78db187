"""Text of other people as the value of an answer's header: visible ASCII that cannot end the header. Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

# Everything visible but the percent sign, which introduces what is encoded.
_VISIBLE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
# What stands for itself inside the quotes of a file name and means nothing to any file system.
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9 ._+=@,-]")
FILE_NAME_MAX_CHARS: Final = 200


def header_text(text: str) -> str:
    """The text, what is not visible ASCII in it percent-encoded as UTF-8."""
    return quote(text, safe=_VISIBLE, errors="replace").strip(" ")


def attachment(path: str) -> str:
    """A Content-Disposition that saves an answer under the last part of a path (RFC 6266, RFC 8187)."""
    name = path.rsplit("/", 1)[-1][-FILE_NAME_MAX_CHARS:]
    plain = _NOT_PLAIN.sub("_", name)
    encoded = quote(name, safe="", errors="replace")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
