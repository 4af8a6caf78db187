"""What an agent in a container takes: time to start, memory, and processor when it is idle. As root.

The images are those of `make image`, and the agents run as deploy/compose.yaml has them: behind the proxy,
without capabilities, with nothing to write but their volume. These have targets and no peers.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any, Final

import docker

from bench import usage
from bench.figures import Amounts
from bench.probes import until

ROOT: Final = Path(__file__).resolve().parent.parent
AGENT: Final = "chorus-agent:latest"
PROXY: Final = "chorus-docker-proxy:latest"
SOCKET: Final = "/var/run/docker.sock"
NOBODY: Final = 65534
STARTS: Final = 5
# What a start leaves to be done is done by then.
SETTLED_S: Final = 60.0
IDLE_S: Final = 60.0
IDLE_TIMES: Final = 3
HARDENED: Final[dict[str, Any]] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "detach": True,
}


def container() -> list[Amounts]:
    """The rows of an agent in a container."""
    subprocess.run([str(ROOT / "scripts" / "image.sh")], check=True)
    with _Engine() as engine:
        alone = engine.start()
        engine.until(alone, "/ready", 503)
        time.sleep(SETTLED_S)
        # With others of the same image it would share pages, and count only its part of them.
        memory = [engine.memory_mb(alone)]
        second = engine.start()
        engine.until(alone, "/ready")
        engine.until(second, "/ready")
        live, ready = list[float](), list[float]()
        third = engine.start()
        engine.until(third, "/ready")
        for _ in range(STARTS):
            # The same agent again: others would be new members beside those that are gone.
            third.stop(timeout=390)
            began = time.monotonic()
            third.start()
            engine.until(third, "/healthz")
            live.append(time.monotonic() - began)
            engine.until(third, "/ready")
            ready.append(time.monotonic() - began)
        time.sleep(SETTLED_S)
        idle = [share for _ in range(IDLE_TIMES) for share in engine.processor(alone, second, third)]
    where = "in a container"
    return [
        Amounts(f"agent start to /healthz 200, {where}", "s", live, 2),
        Amounts(f"agent start to ready beside two others, {where}", "s", ready, 4),
        Amounts(f"memory of an idle agent, all processes (PSS), {where}", "MB", memory, 200),
        Amounts(f"processor of an idle agent, mesh of 3, {where}", "% of a core", idle, 1),
    ]


class _Engine:
    """The host's Docker, with a network and a proxy of this bench's; all of it goes at the end."""

    def __enter__(self) -> _Engine:
        self._docker = docker.from_env()
        self._name = f"chorus-bench-{uuid.uuid4().hex[:8]}"
        self._made: list[Any] = []
        self._network = self._docker.networks.create(self._name)
        self._bootstrap = ""
        group = Path(SOCKET).stat().st_gid
        volumes = {SOCKET: {"bind": SOCKET, "mode": "ro"}}
        self._run(PROXY, "docker-proxy", user=f"{NOBODY}:{group}", volumes=volumes, tmpfs={"/tmp": ""})
        return self

    def __exit__(self, *_: object) -> None:
        for made in reversed(self._made):
            # The agents first, so that they remove their sandboxes through the proxy.
            with contextlib.suppress(docker.errors.NotFound):
                made.stop(timeout=60)
                made.remove(force=True, v=True)
        self._network.remove()
        self._docker.close()

    def start(self) -> Any:
        """A new agent in a container of its own, which knows the first one."""
        environment = {
            "CHORUS_LICENSE_ID": f"dev-{self._name}",
            "CHORUS_P2P_HOST": "0.0.0.0",
            "CHORUS_AI_PROVIDER": "none",
            "CHORUS_BOOTSTRAP_PEERS": self._bootstrap,
            "DOCKER_HOST": f"tcp://{self._name}-docker-proxy:2375",
        }
        made = self._run(AGENT, uuid.uuid4().hex[:8], environment=environment, tmpfs={"/tmp": ""})
        self._bootstrap = self._bootstrap or f"/dns4/{made.name}/tcp/9000"
        return made

    def _run(self, image: str, name: str, **more: Any) -> Any:
        network = {"name": f"{self._name}-{name}", "network": self._name}
        made = self._docker.containers.run(image, **HARDENED, **network, **more)
        self._made.append(made)
        return made

    def until(self, made: Any, path: str, status: int = 200) -> None:
        """Waits until an agent answers a probe with this status."""
        until(lambda: f"http://{self._address(made)}:8081{path}", status)

    def _address(self, made: Any) -> str:
        made.reload()
        return str(made.attrs["NetworkSettings"]["Networks"][self._name]["IPAddress"])

    def memory_mb(self, made: Any) -> float:
        """The proportional set size of all its processes together, in 10^6 bytes."""
        return sum(usage.memory(int(row[1])).pss for row in made.top()["Processes"])

    def processor(self, *made: Any) -> list[float]:
        """The share of a core that each takes over a while, in percent."""
        before = [self._used_ns(one) for one in made]
        began = time.monotonic()
        time.sleep(IDLE_S)
        passed_ns = (time.monotonic() - began) * 1e9
        return [100 * (self._used_ns(one) - was) / passed_ns for one, was in zip(made, before, strict=True)]

    def _used_ns(self, made: Any) -> int:
        return int(made.stats(stream=False)["cpu_stats"]["cpu_usage"]["total_usage"])
