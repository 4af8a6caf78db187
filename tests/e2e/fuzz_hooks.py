"""Loaded by Schemathesis: an answer that follows what is to come has no end to be checked."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def before_call(context: Any, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Leaves `follow` out of every request, in all phases."""
    case.query.pop("follow", None)
