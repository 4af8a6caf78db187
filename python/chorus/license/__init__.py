"""Licences. KACHING, the licence server, is not asked yet: this version knows the built-in development
licence.
"""

from chorus.license.gate import Gate, Licence, LicenceRefused, check

__all__ = ["Gate", "Licence", "LicenceRefused", "check"]
