"""The discussion of a goal, read while the goal runs: each thing that was said once, in the order it came."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from chorus.ctl.client import Client, Refused
from chorus.ctl.problems import CtlError

LOOK_AGAIN_S: Final = 1.0
# At the end, a look that is under way is waited for so long.
STOP_S: Final = 2.0
# More than a discussion has.
ITEMS_MAX: Final = 1000
_IDS: Final = ("message_id", "request_id", "alert_id", "hash")


class Talk:
    """Asks for the discussion of a task in a thread, and hands each new thing on.

    It ends by itself where the agents have no discussions (404), and does no harm when they are away.
    """

    def __init__(self, client: Client, task_id: str, tell: Callable[[dict[str, Any]], None]) -> None:
        self._client, self._task_id, self._tell = client, task_id, tell
        self._told: set[tuple[str, ...]] = set()
        self._ending = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(STOP_S)
        self._over = True

    def _run(self) -> None:
        while self.look():
            if self._ending.wait(LOOK_AGAIN_S):
                self.look()  # for what was said last
                return

    def look(self) -> bool:
        """Tells of what is new; False when there is nothing to come."""
        try:
            page = self._client.get("/api/v1/hmmm/sessions", task_id=self._task_id)
            for session in _dicts(page, "items"):
                path = f"/api/v1/hmmm/sessions/{quote(str(session.get('session_id')), safe='')}"
                said = self._client.get(path)
                for item in _dicts(said, "items"):
                    self._tell_once(item)
        except Refused as error:
            return error.status >= 500
        except CtlError:
            return True  # no agent answers; following the task says so
        except (httpx.HTTPError, RuntimeError, OSError):
            return False  # the client was closed, or whoever read the output has gone
        return True

    def _tell_once(self, item: dict[str, Any]) -> None:
        # Each agent numbers what it heard by itself: the ids are the same everywhere.
        ident = tuple(str(item.get(name)) for name in ("kind", *_IDS, "from"))
        if ident not in self._told and len(self._told) < ITEMS_MAX and not self._over:
            self._told.add(ident)
            self._tell(item)


def _dicts(value: object, name: str) -> list[dict[str, Any]]:
    listed = value.get(name) if isinstance(value, dict) else None
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
