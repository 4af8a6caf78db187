"""Test suites of published packages, run as a user would run them: they need a local server, shared memory, a
home to write to, a virtual environment in the folder, a submodule.

pip fetches them and what they need; sandboxes have no network, so all of it is sent with the folder.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Mesh, brought_up

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

FETCH_TIMEOUT_S = 600
# What the image for Python has.
PYTHON = ("--python-version", "3.11", "--implementation", "cp", "--only-binary", ":all:")
WERKZEUG = ("ephemeral-port-reserve==1.1.4", "watchdog==5.0.3", "cryptography==43.0.3")
# The virtual environment is made in the sandbox.
INSTALLED = """set -e
echo kept > ~/.written-by-the-suite
python3 -m venv ~/venv
~/venv/bin/pip install -q --no-index wheels/*
~/venv/bin/python -m pytest -q -p no:cacheprovider "$@"
"""


@pytest.fixture(scope="module")
def agent(needs: None) -> Iterator[Mesh]:
    yield from brought_up(1)


def pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    if "NewConnectionError" in done.stderr or "connection broken" in done.stderr:
        pytest.skip("no network: the packages cannot be fetched")
    assert done.returncode == 0, done.stderr


def source(package: str, into: Path) -> Path:
    """The unpacked source distribution."""
    name = package.partition("==")[0]
    pip("download", "-q", "--no-deps", "--no-binary", name, "--dest", str(into), package)
    [archive] = into.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    archive.unlink()
    [folder] = into.iterdir()
    return folder


def passed(mesh: Mesh, folder: Path, *command: str) -> int:
    """How many tests passed; none may fail."""
    words = ["--dir", str(folder), "--include-secrets", "--language", "python", "--", *command]
    done = mesh.ctl("run", *words, check=False, timeout_s=FETCH_TIMEOUT_S)
    told = done.stdout.decode()
    assert done.returncode == 0, told[-5000:] + done.stderr.decode()[-2000:]
    counted = re.search(r"(\d+) passed", told)
    assert counted, told[-5000:]
    return int(counted[1])


@pytest.mark.parametrize(
    ("package", "needed", "words", "expected"),
    [
        pytest.param(
            "werkzeug==3.1.3",
            ("pytest==8.3.3", "pytest-timeout==2.3.1", *WERKZEUG),
            ("--timeout", "60"),
            900,
            id="local server",
        ),
        pytest.param(
            "joblib==1.5.2",
            ("pytest==8.3.3", "numpy==2.2.6"),
            ("joblib/test/test_memmapping.py",),
            30,
            id="shared memory",
        ),
        pytest.param(
            "cookiecutter==2.6.0",
            ("pytest==8.3.3", "pytest-mock==3.14.0", "pytest-cov==5.0.0", "freezegun==1.5.1"),
            ("tests",),
            300,
            id="home",
        ),
    ],
)
def test_a_suite_passes(
    agent: Mesh, tmp_path: Path, package: str, needed: tuple[str, ...], words: tuple[str, ...], expected: int
) -> None:
    folder = source(package, tmp_path)
    pip("download", "-q", *PYTHON, "--dest", str(folder / "wheels"), package, *needed)
    (folder / "run.sh").write_text(INSTALLED)
    assert passed(agent, folder, "sh", "run.sh", *words) > expected


def test_a_virtual_environment_in_the_folder_and_a_submodule(agent: Mesh, tmp_path: Path) -> None:
    """Flask; its tests are a repository of their own, and `.venv` links to the Python of the image."""
    folder = source("flask==3.1.0", tmp_path)
    (folder / "tests").rename(tmp_path / "tests")
    repository(tmp_path / "tests")
    repository(folder)
    git(
        folder, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "tests"), "tests"
    )
    environment = folder / ".venv"
    pip(
        *("install", "-q", *PYTHON, "--target", str(environment / "lib/python3.11/site-packages")),
        *("flask==3.1.0", "werkzeug==3.1.3", "pytest==8.3.3", "asgiref==3.8.1", "python-dotenv==1.0.1"),
    )
    (environment / "bin").mkdir()
    (environment / "bin/python").symlink_to("/usr/bin/python3")
    (environment / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    assert passed(agent, folder, ".venv/bin/python", "-m", "pytest", "-q") > 450


def repository(folder: Path) -> None:
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "-m", "all of it")


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True)
