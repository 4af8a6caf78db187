"""Machines for a Swarm, on this one: each an engine with network, mounts, processes and name of its own.

They are joined by a bridge in a network namespace, so that network, firewall and mounts of the host stay as
they are. All of it ends with this process, whatever ends that; a keeper then removes what is left: the
folder of the engines and their cgroups.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from .conftest import GENEROUS_S, run, until

# RFC 2544: addresses for tests of networks, at which nothing real is.
NETWORK = "198.18.77"
SWITCH = f"{NETWORK}.254"
# Nobody on such a network needs longer to refuse.
CONNECT_S = 5
NEEDED = ("dockerd", "ip", "iptables", "nsenter", "setpriv", "unshare")

# Ends a program with the thread that started it: this process's first.
_WITH_US = ("setpriv", "--pdeathsig", "KILL")

# $1: the bridge's own address.
_SWITCH = """
ip link set lo up
ip link add switch type bridge
ip addr add "$1/24" dev switch
ip link set switch up
echo up
exec sleep infinity
"""
# $1: name, $2: address, $3: process of the switch, $4: folder, $5: cgroup. The engine's usual socket is seen
# by its own containers; the second one is for this test.
_MACHINE = """
ip link set lo up
ip link add eth0 type veth peer name "$1" netns "$3"
ip addr add "$2/24" dev eth0
ip link set eth0 up
nsenter --target "$3" --net ip link set "$1" master switch up
exec unshare --mount --uts --pid --fork --kill-child --mount-proc sh -euc '
hostname "$1"
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs "$4/data"
exec dockerd --config-file "$4/daemon.json" --data-root "$4/data" --exec-root "$4/exec" --pidfile "$4/pid" \
  --cgroup-parent "/$5/$1" --exec-opt native.cgroupdriver=cgroupfs \
  --host unix:///var/run/docker.sock --host "unix://$4/docker.sock"
' sh "$@"
"""
# $1: folder, $2: cgroup. Everybody has the other end of its input; it ends when the last of them is gone.
_KEEPER = """
trap '' HUP INT TERM
cat >/dev/null
for _ in $(seq 100); do
  rm -rf --one-file-system -- "$1"
  find /sys/fs/cgroup -depth -type d \\( -name "$2" -o -path "*/$2/*" \\) -exec rmdir {} + 2>/dev/null
  [ -e "$1" ] || [ -n "$(find /sys/fs/cgroup -maxdepth 2 -name "$2")" ] || exit 0
  sleep 0.1
done
exit 1
"""


def missing() -> str:
    """What this machine lacks for it; empty when nothing does."""
    if os.getuid() != 0:
        return "it takes root"
    if gone := [name for name in NEEDED if shutil.which(name) is None]:
        return f"there is no {', '.join(gone)}"
    if run("unshare", "--net", "--mount", "--pid", "--uts", "--fork", "true", check=False).returncode:
        return "no namespaces can be made"
    return ""


class Machine:
    """A machine with a Docker engine."""

    def __init__(
        self, name: str, address: str, process: subprocess.Popen[str], switch: int, folder: Path
    ) -> None:
        self.name, self.address, self.process = name, address, process
        self._switch, self._folder = switch, folder

    @property
    def socket(self) -> Path:
        """Where its engine is reached from here."""
        return self._folder / "docker.sock"

    def docker(self, *words: str, check: bool = True) -> str:
        """What the docker command says there."""
        return run("docker", "--host", f"unix://{self.socket}", *words, check=check).stdout.strip()

    def run(self, script: str, **more: str) -> str:
        """What a script says that bash runs there as root, to its first failure; files are this machine's."""
        inside = ("nsenter", "--target", str(self.process.pid), "--mount", "--net", "--uts")
        return run(*inside, "bash", "-euo", "pipefail", "-c", script, **more).stdout

    def wait(self) -> None:
        """Until its engine answers."""
        log = self._folder / "log"

        def answers() -> bool:
            assert self.process.poll() is None, f"{self.name} has ended:\n{log.read_text()[-4000:]}"
            return bool(self.docker("version", "--format", "{{.Server.Version}}", check=False))

        until(answers)

    def cut(self) -> None:
        """Nothing comes from or goes to another machine any more."""
        self._link("down")

    def heal(self) -> None:
        """What `cut` did is over."""
        self._link("up")

    def destroy(self) -> None:
        """It is gone with all that it held, from one moment to the next."""
        self.process.kill()
        self.process.wait()
        # Its end of the cable goes with its network, and so with its last process.
        until(lambda: run(*self._ip(), "show", "dev", self.name, check=False).returncode)
        shutil.rmtree(self._folder)

    def _link(self, to: str) -> None:
        run(*self._ip(), "set", "dev", self.name, to)

    def _ip(self) -> Sequence[str]:
        return ("nsenter", "--target", str(self._switch), "--net", "ip", "link")


class Machines:
    """Makes machines, and takes all of them away in the end."""

    def __enter__(self) -> Machines:
        # On a disk, and with a path short enough for sockets.
        self._folder = Path(tempfile.mkdtemp(prefix="chorus-swarm-", dir="/var/tmp"))
        self._cgroup = self._folder.name
        self._made: list[Machine] = []
        self._beside: list[subprocess.Popen[str]] = []
        other_end, self._lifeline = os.pipe()
        words = ("sh", "-uc", _KEEPER, "sh", str(self._folder), self._cgroup)
        self._keeper = subprocess.Popen(words, stdin=other_end, start_new_session=True)
        os.close(other_end)
        self._switch = self._start(_SWITCH, SWITCH, stdout=subprocess.PIPE)
        assert self._switch.stdout is not None
        assert self._switch.stdout.readline() == "up\n", "no bridge can be made"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for process in (*self._beside, *(machine.process for machine in self._made), self._switch):
            process.kill()
            process.wait()
        os.close(self._lifeline)
        assert self._keeper.wait(GENEROUS_S) == 0, f"{self._folder} or cgroups of that name are left"

    def add(self, name: str) -> Machine:
        """A new machine with an empty engine, which may not answer yet."""
        address = f"{NETWORK}.{len(self._made) + 1}"
        folder = self._folder / name
        # In memory, where it is made and gone at once; some hundred MB.
        (folder / "data").mkdir(parents=True)
        # Not the host's: what deploy/README.md advises.
        (folder / "daemon.json").write_text('{"no-new-privileges": true}')
        words = (name, address, str(self._switch.pid), str(folder), self._cgroup)
        with (folder / "log").open("w") as log:
            process = self._start(_MACHINE, *words, stdout=log, stderr=subprocess.STDOUT)
        self._made.append(Machine(name, address, process, self._switch.pid, folder))
        return self._made[-1]

    def beside(self, *words: str) -> None:
        """Starts a program on their network, at the address `SWITCH`."""
        inside = ("nsenter", "--target", str(self._switch.pid), "--net")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._beside.append(subprocess.Popen((*_WITH_US, *inside, *words), text=True, **quiet))

    def connects(self, address: str, port: int) -> bool:
        """Whether somebody on their network takes connections there."""
        connect = ("timeout", str(CONNECT_S), "bash", "-c", f"</dev/tcp/{address}/{port}")
        inside = ("nsenter", "--target", str(self._switch.pid), "--net")
        return run(*inside, *connect, check=False).returncode == 0

    def save(self, *images: str) -> Path:
        """A file of these images of the host's engine."""
        path = self._folder / "images.tar"
        run("docker", "save", "--output", str(path), *images)
        return path

    def _start(self, script: str, *words: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            (*_WITH_US, "unshare", "--net", "sh", "-euc", script, "sh", *words),
            pass_fds=(self._lifeline,),
            start_new_session=True,
            text=True,
            **more,
        )
