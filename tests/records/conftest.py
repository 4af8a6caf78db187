"""Real cores and coordinators, for the tests of decisions among agents."""

from __future__ import annotations

import pytest

pytest.importorskip("chorus._core")
