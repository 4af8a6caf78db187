"""What of a folder is not sent with a task, and how that is said in short."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Names that are told for each reason; `--json` has them all.
NAMES_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A path that stays behind, and why, or what its name says it is."""

    file: str
    why: str


def in_short(left_out: Iterable[LeftOut], counted: frozenset[str]) -> str:
    """One line that names what is left out by its reason; of the reasons in `counted` only how many."""
    by_reason: dict[str, list[str]] = {}
    for each in left_out:
        by_reason.setdefault(each.why, []).append(each.file)
    said = []
    for why, files in sorted(by_reason.items(), key=lambda pair: pair[0] in counted):
        if why in counted:
            said.append(f"{len(files)} {why}")
            continue
        more = f" and {len(files) - NAMES_MAX} more" if len(files) > NAMES_MAX else ""
        said.append(f"{', '.join(files[:NAMES_MAX])}{more} ({why})")
    return "; ".join(said)
