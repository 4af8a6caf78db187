"""The core for library users: `Node`, and the pieces that need no running agent."""

from chorus._core import (
    Core,
    CoreError,
    Finding,
    Identity,
    Redactor,
    RoleKeys,
    Scanner,
    Ucxl,
    UcxlError,
    canonical_json,
    derive_dev_secret,
    open_many,
    open_sealed,
    seal,
    seal_many,
    sign_json,
    verify_json,
)
from chorus.core.log import Log
from chorus.core.node import Node

__all__ = [
    "Core",
    "CoreError",
    "Finding",
    "Identity",
    "Log",
    "Node",
    "Redactor",
    "RoleKeys",
    "Scanner",
    "Ucxl",
    "UcxlError",
    "canonical_json",
    "derive_dev_secret",
    "open_many",
    "open_sealed",
    "seal",
    "seal_many",
    "sign_json",
    "verify_json",
]
