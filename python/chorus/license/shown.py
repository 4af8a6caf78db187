"""How a licence id appears wherever it is shown: its kind, and of a long one its end.

Whoever knows the id of a development licence may be able to join its cluster, so that the id itself stands in
no answer, log line, entry or message.
"""

from __future__ import annotations

from typing import Final, Literal

DEV_PREFIX: Final = "dev-"
Kind = Literal["development", "production"]

# Of a longer id the end tells two licences apart and is too little to guess the rest.
SHORT_MAX_CHARS: Final = 16
END_CHARS: Final = 4


def kind_of(license_id: str, kaching_url: str = "") -> Kind:
    """The kind of licence that an id names; with a licence server every id is one of its."""
    return "development" if license_id.startswith(DEV_PREFIX) and not kaching_url else "production"


def shown(license_id: str, kaching_url: str = "") -> str:
    """The only form of an id for other eyes, such as `development …3f2a`."""
    kind = kind_of(license_id, kaching_url)
    if len(license_id) <= SHORT_MAX_CHARS:
        return kind
    end = "".join(letter if letter.isprintable() else "?" for letter in license_id[-END_CHARS:])
    return f"{kind} …{end}"
