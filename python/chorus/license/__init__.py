"""Licences: the built-in development licence, and those of KACHING, the licence server."""

from chorus.license.gate import GATE_SETTINGS, Gate, Licence, check
from chorus.license.refusals import Denied, LicenceRefused, NoAnswer, Reason
from chorus.license.shown import DEV_PREFIX, Kind, kind_of, shown

__all__ = [
    "DEV_PREFIX",
    "GATE_SETTINGS",
    "Denied",
    "Gate",
    "Kind",
    "Licence",
    "LicenceRefused",
    "NoAnswer",
    "Reason",
    "check",
    "kind_of",
    "shown",
]
