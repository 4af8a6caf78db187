"""The core for library users: `Node`, and the pieces that need no running agent."""

from chorus._core import (
    Core,
    CoreError,
    Finding,
    Identity,
    LogVerifier,
    Redactor,
    RoleKeys,
    Scanner,
    Ucxl,
    UcxlError,
    canonical_json,
    derive_dev_secret,
    open_many,
    open_sealed,
    read_log,
    read_vote_file,
    seal,
    seal_many,
    sign_json,
    verify_json,
)
from chorus.core.lines import core_lines
from chorus.core.log import Log, verify_folder
from chorus.core.node import Node

__all__ = [
    "Core",
    "CoreError",
    "Finding",
    "Identity",
    "Log",
    "LogVerifier",
    "Node",
    "Redactor",
    "RoleKeys",
    "Scanner",
    "Ucxl",
    "UcxlError",
    "canonical_json",
    "core_lines",
    "derive_dev_secret",
    "open_many",
    "open_sealed",
    "read_log",
    "read_vote_file",
    "seal",
    "seal_many",
    "sign_json",
    "verify_folder",
    "verify_json",
]
