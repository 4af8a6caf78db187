"""Waits for an agent's probes, /healthz and /ready."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final

import httpx

POLL_S: Final = 0.02
LONGEST_S: Final = 120.0


def until(url: Callable[[], str], status: int = 200) -> None:
    """Waits until a probe answers with this status; its URL may change while it does not."""
    deadline = time.monotonic() + LONGEST_S
    with httpx.Client(trust_env=False, timeout=10) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if client.get(url()).status_code == status:
                    return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{url()} does not answer {status}")
            time.sleep(POLL_S)
