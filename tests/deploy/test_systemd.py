"""The unit of deploy/systemd under a real systemd: it starts, works, reloads, comes back and stops gently."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import DEPLOY, OFFLINE, PREFIX, ROOT, SOCKET, docker, run, script, until
from .readme import commands

pytestmark = [pytest.mark.deploy, pytest.mark.heavy]

HERE = Path(__file__).parent
# What a Debian server has, as far as the commands of the page need it.
PACKAGES = "systemd,dbus,passwd,openssl,python3,python3-venv,ca-certificates"
BASE = f"chorus-systemd-base:{hashlib.sha256(PACKAGES.encode()).hexdigest()[:16]}"
PYTHON = "3.11"


@pytest.fixture(scope="module")
def base() -> str:
    """A root file system with systemd, made once."""
    if run("docker", "image", "inspect", BASE, check=False).returncode:
        if shutil.which("mmdebstrap") is None:
            pytest.skip("no mmdebstrap: apt-get install mmdebstrap")
        made = (
            f"mmdebstrap --quiet --variant=essential --include={PACKAGES} bookworm - | docker import - {BASE}"
        )
        run("bash", "-o", "pipefail", "-c", made)
    return BASE


@pytest.fixture(scope="module")
def host(base: str, daemon: None) -> Iterator[str]:
    """A container with systemd in it, and the agent installed as the page says."""
    name, group = f"{PREFIX}-systemd", SOCKET.stat().st_gid
    words = ("--build-arg", f"BASE={base}", "--build-arg", f"GROUP={group}")
    docker("build", "--network", "none", *words, "-t", name, str(HERE / "systemd"))
    walls = ("seccomp=unconfined", "apparmor=unconfined")
    more = [word for wall in walls for word in ("--security-opt", wall)]
    for folder in ("/run", "/run/lock", "/tmp"):
        more += ["--tmpfs", folder]
    wheel = ROOT / script("wheel.sh").splitlines()[-1]
    mounts = [
        "/sys/fs/cgroup:/sys/fs/cgroup:rw",
        f"{SOCKET}:/host/docker.sock",
        f"{wheel.parent}:/wheel:ro",
        f"{script('packages.sh', PYTHON)}:/packages:ro",
        f"{DEPLOY}:/checkout/deploy:ro",
    ]
    places = [word for mount in mounts for word in ("-v", mount)]
    docker("run", "-d", "--name", name, "--cap-add", "SYS_ADMIN", *more, *places, name)
    try:
        until(lambda: inside(name, "systemctl is-system-running") in {"running", "degraded"})
        # Where the socket is here.
        here = (
            "printf 'DOCKER_HOST=unix:///host/docker.sock\nCHORUS_AI_PROVIDER=none\n' >>/etc/chorus/agent.env"
        )
        install = commands("Install a service").replace("cp deploy", f"{here}\ncp deploy")
        docker("exec", *OFFLINE, name, "bash", "-euc", f"cd /checkout\n{install}")
        yield name
    finally:
        docker("rm", "-f", "-v", name)
        docker("image", "rm", name)


def inside(host: str, command: str) -> str:
    """What a command in it says."""
    return docker("exec", host, "sh", "-c", command, check=False)


def shown(host: str, name: str) -> str:
    return inside(host, f"systemctl show --property={name} --value chorus-agent")


def journal(host: str) -> str:
    return inside(host, "journalctl --unit chorus-agent --no-pager --output cat")


CTL = "CHORUS_API_TOKEN_FILE=/var/lib/chorus/api-token /opt/chorus/bin/chorusctl"


def works(host: str) -> bool:
    """Whether a task goes through, with a folder that is sent along."""
    said = inside(host, f"{CTL} run --dir /etc/chorus --language base -- sh -c 'ls; id -u' 2>/dev/null")
    return said.splitlines()[-1:] == ["1000"]


def test_the_unit_on_a_host_of_systemd(host: str) -> None:
    until(lambda: works(host))
    status = inside(host, "cat /proc/$(systemctl show --property=MainPID --value chorus-agent)/status")
    assert {"NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"} <= set(status.splitlines())
    inside(host, "systemctl reload chorus-agent")
    until(lambda: "SIGHUP" in journal(host))
    # As after a crash: the processes of the dead one end too, and another takes up its folder.
    inside(host, "systemctl kill --kill-whom=main --signal=KILL chorus-agent")
    until(lambda: shown(host, "NRestarts") == "1")
    until(lambda: works(host))
    inside(host, "systemctl stop chorus-agent")
    assert (shown(host, "Result"), shown(host, "ExecMainStatus")) == ("success", "0")
    assert "stopped" in journal(host).splitlines()[-1].lower()
    assert inside(host, "cat /proc/[0-9]*/comm").count("chorus") == 0
