"""Decision records: immutable, signed statements of what was decided and on what grounds, checkable by
anyone.
"""

from chorus.decisions.encoding import DecisionError, Refusal
from chorus.decisions.publisher import fetch, log_once, publish, redact_and_sign
from chorus.decisions.record import address, addressed, build, component, encode, hash_of, inputs, sign
from chorus.decisions.schema import KINDS, Kind, json_schema
from chorus.decisions.verify import Listed, VerifiedRecord, verify

__all__ = [
    "KINDS",
    "DecisionError",
    "Kind",
    "Listed",
    "Refusal",
    "VerifiedRecord",
    "address",
    "addressed",
    "build",
    "component",
    "encode",
    "fetch",
    "hash_of",
    "inputs",
    "json_schema",
    "log_once",
    "publish",
    "redact_and_sign",
    "sign",
    "verify",
]
