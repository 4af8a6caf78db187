"""Published packages with their own tests, one for each language, fetched once into the cache of this user.

The ordinary clients fetch them, with this machine's configuration; a client that is missing or reaches
nothing leaves the test out, saying so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import pytest

FETCH_TIMEOUT_S: Final = 600
_AWAY: Final = (
    "resolve host",
    "NewConnectionError",
    "ENOTFOUND",
    "no such host",
    "Unknown host",
    "unreachable",
)
_POM: Final = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>example</groupId>
  <artifactId>suite</artifactId>
  <version>1</version>
  <properties>
    <maven.compiler.source>8</maven.compiler.source>
    <maven.compiler.target>8</maven.compiler.target>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
  </properties>
  <dependencies>
    <dependency>
      <groupId>junit</groupId>
      <artifactId>junit</artifactId>
      <version>4.13.2</version>
      <scope>test</scope>
    </dependency>
  </dependencies>
</project>
"""


class Suite(NamedTuple):
    """A package whose tests a command runs; what it prints in the end is matched by `green`."""

    package: str
    fetch: Callable[[str, Path], None]
    command: str
    green: str


def archive_of(suite: Suite) -> bytes:
    """The package's source as a tar.gz, from the cache or fetched into it."""
    kept = _cache() / f"{suite.package.replace('/', '-')}.tar.gz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            folder = Path(scratch, "source")
            folder.mkdir()
            suite.fetch(suite.package, folder)
            with tarfile.open(Path(scratch, "packed"), "w:gz") as tar:
                for path in sorted(folder.iterdir()):
                    tar.add(path, path.name)
            Path(scratch, "packed").rename(kept)
    return kept.read_bytes()


def _cache() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CHORUS_CACHE") or Path(cache, "chorus"), "suites")


def pip(package: str, folder: Path) -> None:
    """The source distribution of a Python package."""
    with tempfile.TemporaryDirectory() as scratch:
        name = package.partition("==")[0]
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", name]
        _run([*pip, "--dest", scratch, package], Path(scratch))
        _unpack(Path(scratch), folder)


def npm(package: str, folder: Path) -> None:
    """A package as npm has it."""
    with tempfile.TemporaryDirectory() as scratch:
        _run(["npm", "pack", "--silent", package], Path(scratch))
        _unpack(Path(scratch), folder)


def cargo(package: str, folder: Path) -> None:
    """A crate as its registry has it."""
    name, _, version = package.partition("==")
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch)
        (project / "src").mkdir()
        (project / "src/lib.rs").touch()
        manifest = '[package]\nname = "fetch"\nversion = "0.0.0"\n[dependencies]\n'
        (project / "Cargo.toml").write_text(f'{manifest}{name} = "={version}"\n')
        _run(["cargo", "vendor", "--quiet", "vendor"], project)
        shutil.copytree(project / "vendor" / name, folder, dirs_exist_ok=True)


def oniguruma(package: str, folder: Path) -> None:
    """The C library that a crate brings along."""
    with tempfile.TemporaryDirectory() as scratch:
        cargo(package, Path(scratch))
        shutil.copytree(Path(scratch, "oniguruma"), folder, dirs_exist_ok=True)


def go(package: str, folder: Path) -> None:
    """A module as its proxy has it."""
    with tempfile.TemporaryDirectory() as scratch:
        said = json.loads(_run(["go", "mod", "download", "-json", package], Path(scratch)))
        # Go's own copy may not be written to.
        shutil.copytree(said["Dir"], folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


def maven(package: str, folder: Path) -> None:
    """The sources of a library and of its tests, with what builds them from Debian's JUnit."""
    with tempfile.TemporaryDirectory() as scratch:
        for kind, place in (("sources", "src/main"), ("test-sources", "src/test")):
            copy = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={package}:jar:{kind}"]
            _run([*copy, f"-DoutputDirectory={scratch}/{kind}"], Path(scratch))
            [jar] = Path(scratch, kind).glob("*.jar")
            with zipfile.ZipFile(jar) as packed:
                for name in packed.namelist():
                    if not name.startswith("META-INF/") and not name.endswith("/"):
                        within = "java" if name.endswith(".java") else "resources"
                        packed.extract(name, folder / place / within)
    (folder / "pom.xml").write_text(_POM)


def _unpack(scratch: Path, folder: Path) -> None:
    """The one archive in a folder, without the folder that it holds."""
    [archive] = (path for path in scratch.iterdir() if path.suffix in (".gz", ".tgz"))
    with tarfile.open(archive) as tar:
        tar.extractall(scratch / "unpacked", filter="data")
    [top] = (scratch / "unpacked").iterdir()
    shutil.copytree(top, folder, dirs_exist_ok=True)


def _run(command: list[str], folder: Path) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} on this machine to fetch the package with")
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
    )
    if done.returncode != 0 and any(sign in done.stdout + done.stderr for sign in _AWAY):
        pytest.skip("no network: the package cannot be fetched")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
