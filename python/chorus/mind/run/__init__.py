"""The autonomous loop as a pure machine: records of an attempt's journal in, the next thing to do out.

It knows no clock, no socket and no model; `chorus.mind.driving` does what it says.
"""

from chorus.mind.run.actions import (
    Action,
    Ask,
    Call,
    Discuss,
    Finish,
    Help,
    Note,
    Plan,
    Summarise,
    Wait,
)
from chorus.mind.run.machine import Run, RunSettings

__all__ = [
    "Action",
    "Ask",
    "Call",
    "Discuss",
    "Finish",
    "Help",
    "Note",
    "Plan",
    "Run",
    "RunSettings",
    "Summarise",
    "Wait",
]
