"""Which crates are compiled into the wheel, as cargo tells it. Run by itself it prints them with licences."""

from __future__ import annotations

import json
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CRATE = "chorus_core"


@dataclass(frozen=True)
class Crate:
    """One of them. `needs` are the others that it is linked with, by name and version."""

    name: str
    version: str
    # SPDX, as the crate says it.
    licence: str
    authors: tuple[str, ...]
    folder: Path
    needs: tuple[str, ...]
    # SHA-256 of what crates.io gave; empty for the project's own.
    checksum: str

    @property
    def id(self) -> str:
        """Its name and version."""
        return f"{self.name} {self.version}"


def linked() -> list[Crate]:
    """The core and all crates in it, by name and version; macros and build scripts are not among them."""
    # Metadata alone also has optional dependencies that nothing switches on.
    edges = ("--edges", "normal,no-proc-macro")
    tree = _told("tree", "--package", CRATE, *edges, "--prefix", "none", "--format", "{p}")
    names = {line.split(" (")[0].replace(" v", " ") for line in tree.splitlines() if line}
    told = json.loads(_told("metadata", "--format-version", "1"))
    packages = {package["id"]: package for package in told["packages"]}
    ids = {key: f"{package['name']} {package['version']}" for key, package in packages.items()}
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {f"{each['name']} {each['version']}": each.get("checksum", "") for each in lock}
    found = [
        _crate(packages[node["id"]], sorted(_needs(node, ids) & names), checksums)
        for node in told["resolve"]["nodes"]
        if ids[node["id"]] in names
    ]
    return sorted(found, key=lambda crate: crate.id)


def _needs(node: dict[str, Any], ids: dict[str, str]) -> set[str]:
    """What it is linked with, not what builds or tests it."""
    return {
        ids[each["pkg"]] for each in node["deps"] if any(kind["kind"] is None for kind in each["dep_kinds"])
    }


def _crate(package: dict[str, Any], needs: list[str], checksums: dict[str, str]) -> Crate:
    # A slash is an older way to say OR.
    licence = (package["license"] or "").replace(" / ", "/").replace("/", " OR ")
    folder = Path(package["manifest_path"]).parent
    name, version = package["name"], package["version"]
    checksum = checksums[f"{name} {version}"]
    return Crate(name, version, licence, tuple(package["authors"]), folder, tuple(needs), checksum)


def _told(*words: str) -> str:
    done = subprocess.run(
        ["cargo", *words, "--locked"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    for crate in linked():
        print(f" {crate.id:40} {crate.licence}")
