"""Each language's image builds and tests a published package from its source, without a network.

An image that is missing is built for it, and the package fetched, once.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import docker
import pytest
import suites
from suites import Suite, archive_of
from world import World, stand_in_core

BUILD = Path(__file__).parents[2] / "deploy/sandbox/build.sh"
SUITES = {
    "python": Suite("six==1.17.0", suites.pip, "python3 -m pytest -q -p no:cacheprovider", r"\n\d{3} passed"),
    "node": Suite("sprintf-js@1.0.3", suites.npm, "mocha test/test.js", r"\d+ passing"),
    "rust": Suite("heck==0.5.0", suites.cargo, "cargo test --offline", r"\d{2} passed; 0 failed"),
    "go": Suite("github.com/google/uuid@v1.6.0", suites.go, "go test ./...", r"ok\s+github.com/google/uuid"),
    "java": Suite(
        "commons-cli:commons-cli:1.5.0",
        suites.maven,
        "mvn -B test",
        r"Tests run: \d{3}, Failures: 0, Errors: 0,",
    ),
    "cpp": Suite(
        "onig_sys==69.9.3",
        suites.oniguruma,
        "cmake -S . -B build -G Ninja && cmake --build build && cd build/test && sh ../../test/test.sh",
        r"(RESULT +SUCC: +\d+, +FAIL: 0, +ERROR: 0 [^R]*){7}",
    ),
}
# What everybody expects to be there, beside the language's own.
TOOLS = ("git", "rg", "jq", "make", "patch", "curl", "unzip")
LANGUAGE_TOOLS = {
    "base": (),
    "python": ("python", "python3", "pip", "pytest", "tox", "gcc"),
    "node": ("node", "npm", "npx", "mocha", "tsc"),
    "rust": ("rustc", "cargo", "rustfmt", "cargo-clippy"),
    "go": ("go", "gofmt", "gcc"),
    "java": ("java", "javac", "mvn", "ant"),
    "cpp": ("gcc", "g++", "clang", "cmake", "ctest", "ninja", "meson", "gdb", "valgrind"),
}
HERE = ("base", "python")
LANGUAGES = [
    pytest.param(language, marks=() if language in HERE else pytest.mark.heavy) for language in LANGUAGE_TOOLS
]


def image_of(language: str) -> str:
    """The image for a language, built when it is not there."""
    name = language if language == "base" else f"{language}-dev"
    image = f"anthonyrawlins/chorus-{name}:latest"
    try:
        docker.from_env(timeout=10).images.get(image)
    except docker.errors.ImageNotFound:
        if language in HERE:
            pytest.skip(f"no {image}: run deploy/sandbox/build.sh")
        subprocess.run([str(BUILD), name], check=True, capture_output=True)
    except Exception as error:
        pytest.skip(f"no Docker daemon: {error}")
    return image


def test_an_image_without_a_recipe_is_told_with_those_there_are(image: str) -> None:
    done = subprocess.run([str(BUILD), "cobol-dev"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no image for 'cobol-dev'" in done.stderr
    assert all(language in done.stderr for language in SUITES)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_tools_are_there(language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = " ".join((*TOOLS, *LANGUAGE_TOOLS[language]))
    stand_in_core(monkeypatch)
    world = World(tmp_path / "data", image_of(language))
    await world.start()
    row = await world.run(commands=[f"for tool in {wanted}; do command -v $tool || exit 1; done"])
    assert row.state == "completed", await world.logs(row.task_id)
    await world.stop()


@pytest.mark.parametrize("language", [each for each in LANGUAGES if each.values[0] in SUITES])
async def test_a_packages_own_suite_is_green(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = SUITES[str(language)]
    image = image_of(language)
    archive = archive_of(suite)
    stand_in_core(monkeypatch)
    world = World(tmp_path / "data", image)
    executor = await world.start()
    blob = await executor.room.blobs.put_bytes(archive)
    row = await world.run(
        commands=[suite.command],
        source={"kind": "archive", "sha256": blob.sha256},
        resources={"cpus": 2, "memory_mb": 2048, "pids": 512},
    )
    told = (await world.logs(row.task_id)).decode(errors="replace")
    assert row.state == "completed", told[-5000:] + (await world.logs(row.task_id, "stderr")).decode()[-5000:]
    assert re.search(suite.green, told), told[-5000:]
    await world.stop()
