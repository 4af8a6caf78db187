"""Decision records: immutable, signed statements of what was decided and on what grounds, checkable by
anyone.
"""

from chorus.decisions.encoding import DecisionError
from chorus.decisions.publisher import fetch, log_once, publish
from chorus.decisions.record import VerifiedRecord, address, build, encode, hash_of, sign, verify

__all__ = [
    "DecisionError",
    "VerifiedRecord",
    "address",
    "build",
    "encode",
    "fetch",
    "hash_of",
    "log_once",
    "publish",
    "sign",
    "verify",
]
