"""What the machine uses, for status claims: read from /proc, as differences between two looks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chorus.telemetry.frames import Resources


@dataclass(frozen=True, slots=True)
class _Look:
    busy: int = 0
    all: int = 0
    disk: int = 0
    network: int = 0


class Meter:
    """Looks at the machine; the first look counts from the machine's start."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._before = _Look()

    def read(self) -> Resources:
        """What was used since the look before. What /proc does not tell counts as nothing."""
        try:
            now = self._look()
            memory_mb = self._memory_mb()
        except (OSError, ValueError, IndexError, KeyError):
            return Resources()
        before, self._before = self._before, now
        busy, all = now.busy - before.busy, now.all - before.all
        return Resources(
            cpu_percent=round(min(100.0, max(0.0, 100.0 * busy / all)), 2) if all > 0 else 0.0,
            memory_mb=memory_mb,
            disk_io_ops=float(max(0, now.disk - before.disk)),
            network_kb=float(max(0, now.network - before.network)),
        )

    def _look(self) -> _Look:
        times = [int(word) for word in (self._proc / "stat").read_text().split("\n", 1)[0].split()[1:9]]
        disk = 0
        for line in (self._proc / "diskstats").read_text().splitlines():
            words = line.split()
            # A partition's operations are its disk's too; only disks lie in /sys/block, which costs more.
            if not words[2].startswith(("loop", "ram", "dm-", "md")) and not words[2][-1:].isdigit():
                disk += int(words[3]) + int(words[7])
        network = 0
        for line in (self._proc / "net" / "dev").read_text().splitlines()[2:]:
            name, _, figures = line.partition(":")
            if name.strip() != "lo":
                network += int(figures.split()[0]) + int(figures.split()[8])
        # The fourth and fifth of the times are idle and waiting for a disk.
        return _Look(sum(times) - times[3] - times[4], sum(times), disk, network // 1024)

    def _memory_mb(self) -> float:
        lines = (line.split() for line in (self._proc / "meminfo").read_text().splitlines())
        figures = {words[0].rstrip(":"): int(words[1]) for words in lines}
        return round((figures["MemTotal"] - figures["MemAvailable"]) / 1024, 1)
