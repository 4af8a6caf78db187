"""Licences. KACHING, the licence server, is not asked yet: this version knows the built-in development
licence.
"""

from chorus.license.gate import Gate, Licence, LicenceRefused, check
from chorus.license.shown import DEV_PREFIX, Kind, kind_of, shown

__all__ = ["DEV_PREFIX", "Gate", "Kind", "Licence", "LicenceRefused", "check", "kind_of", "shown"]
