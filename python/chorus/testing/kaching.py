"""A reference server of KACHING in a process of its own, for tests: started, ruled, stopped and started again
at the same address.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

# Generous: other work shares the machine.
TIMEOUT_S = 60.0
LICENSE = "prod-licence-0001"


class KachingProcess:
    """`chorusctl dev kaching` on a folder, while the block runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self.url = self.public_key = ""
        self._client = httpx.Client(trust_env=False, timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._client.close()

    @property
    def runs(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    def start(self) -> None:
        """Returns when it answers; the second time at the address of the first."""
        words = ["dev", "kaching", "--json", "--data", str(self._folder), "--port", str(self._port)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chorus.ctl", *words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        said = json.loads(self._process.stdout.readline())
        self.url, self.public_key = said["url"], said["public_key"]
        self._port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        """Kills it, as a machine that dies would."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Asks as its operator. Raises httpx.HTTPStatusError for a refusal."""
        admin = json.loads((self._folder / "admin.json").read_text())
        headers = {"Authorization": f"Bearer {admin['token']}"}
        answer = self._client.request(method, f"{self.url}/admin/{path}", json=body, headers=headers)
        answer.raise_for_status()
        said: dict[str, Any] = answer.json()
        return said

    def create(self, id: str = LICENSE, **more: Any) -> str:
        """A licence of the cluster c1; returns its id."""
        self.ask("POST", "licenses", {"id": id, "cluster_id": "c1", **more})
        return id

    def rule(self, verb: str, id: str = LICENSE) -> None:
        """Suspends, resumes or revokes a licence."""
        self.ask("POST", f"licenses/{id}/{verb}")

    def misbehave(self, fault: str, **how: Any) -> None:
        """From the next question on."""
        self.ask("PUT", "fault", {"fault": fault, **how})

    def leases(self) -> list[dict[str, Any]]:
        """Those that have not run out."""
        items: list[dict[str, Any]] = self.ask("GET", "leases")["items"]
        return items
