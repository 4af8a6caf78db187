"""A reference server of KACHING, licences: for development and tests, with faults on command.

No process of an agent imports it; `chorusctl dev kaching` starts it. `docs/licences.md` has its interface.
"""

from chorus.dev.kaching.faults import Fault
from chorus.dev.kaching.ledger import Ledger, License
from chorus.dev.kaching.server import KachingServer

__all__ = ["Fault", "KachingServer", "Ledger", "License"]
