"""Loaded by Schemathesis: sees to it that requests end, and that every other one is about what is there."""

from __future__ import annotations

import itertools
import json
import os
from typing import Any

import schemathesis

# What names things that are there, by the name of the parameter.
KNOWN: dict[str, str] = json.loads(os.environ["FUZZ_KNOWN"])
_turns = itertools.count()


@schemathesis.hook
def before_call(context: Any, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Changes the request, in every phase."""
    # An answer that follows what is to come has no end to be checked.
    case.query.pop("follow", None)
    if next(_turns) % 2:
        for parameters in (case.path_parameters, case.query):
            parameters.update({name: KNOWN[name] for name in parameters if name in KNOWN})
