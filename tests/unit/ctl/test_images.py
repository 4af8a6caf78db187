"""`chorusctl images` with a daemon that answers as Docker does, and one that is not there."""

from __future__ import annotations

import http.server
import json
import shutil
import socketserver
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from chorus.config.groups.sandbox import DEFAULT_IMAGES
from chorus.ctl import image_build, image_recipes
from chorus.ctl.cli import main
from chorus.ctl.image_recipes import Recipe

BASE, PYTHON = "anthonyrawlins/chorus-base:latest", "anthonyrawlins/chorus-python-dev:latest"
UNREACHABLE = 'Get "https://registry.example/v2/": dial tcp: lookup registry.example: no such host'
MMDEBSTRAP = """#!/bin/sh
printf '%s\\n' "$@" >"$0.called"
echo I: working >&2
for word in "$@"; do case $word in */root.tar) : >"$word" ;; esac; done
"""


class Daemon:
    """What the daemon has, and what it says to pulls, imports and builds."""

    def __init__(self) -> None:
        self.images: dict[str, dict[str, Any]] = {}
        self.pulls: dict[str, list[dict[str, Any]]] = {}
        self.pull_refused = ""
        self.import_lines: list[dict[str, Any]] = [{"status": "sha256:1"}]
        self.build_lines: list[dict[str, Any]] = [{"stream": "Successfully built 1\n"}]
        self.called: list[str] = []

    def has(self, image: str, recipe: str | None = None) -> None:
        labels = {} if recipe is None else {image_build.LABEL: recipe}
        self.images[image] = {"Id": f"sha256:{image}", "Size": 5_000_000, "Config": {"Labels": labels}}

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, list[dict[str, Any]]]:
        """Status and lines of the answer to a call."""
        if path == "/version":
            return 200, [{"ApiVersion": "1.44", "MinAPIVersion": "1.24", "Version": "25"}]
        if path.endswith("/json"):
            image = unquote(path.removeprefix("/images/").removesuffix("/json"))
            image = image if ":" in image.rpartition("/")[2] else f"{image}:latest"
            if image not in self.images:
                return 404, [{"message": f"No such image: {image}"}]
            return 200, [self.images[image]]
        if path == "/images/create" and "fromImage" in query:
            joint = "@" if query["tag"].startswith("sha256:") else ":"
            image = f"{query['fromImage']}{joint}{query['tag']}"
            self.called.append(f"pull {image}")
            if self.pull_refused:
                return 500, [{"message": self.pull_refused}]
            if not any("error" in line for line in self.pulls.get(image, [])):
                self.has(image)
            return 200, self.pulls.get(image, [])
        if path == "/images/create":
            self.called.append(f"import {query['repo']}:{query['tag']}")
            return 200, self.import_lines
        if path == "/build":
            self.called.append(f"build {query['t']} network={query['networkmode']}")
            if not any("error" in line for line in self.build_lines):
                self.has(query["t"], json.loads(query["labels"])[image_build.LABEL])
            return 200, self.build_lines
        self.called.append(path)
        return 200, [{}]


@pytest.fixture
def daemon(
    short_dir: Path, serve: Callable[[socketserver.BaseServer], None], monkeypatch: pytest.MonkeyPatch
) -> Daemon:
    told = Daemon()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    self.rfile.read(size + 2)
                self.rfile.readline()
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            path = parts.path.removeprefix("/v1.44")
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            status, lines = (200, [{}]) if path == "/_ping" else told.answer(path, query)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            # What is told bit by bit comes in chunks.
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in lines:
                body = json.dumps(line).encode() + b"\r\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
            self.wfile.write(b"0\r\n\r\n")

        do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            pass

    path = short_dir / "docker.sock"
    serve(socketserver.ThreadingUnixStreamServer(str(path), Handler))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    monkeypatch.setenv("XDG_STATE_HOME", str(short_dir))
    monkeypatch.delenv("CHORUS_SANDBOX_IMAGES", raising=False)
    return told


@pytest.fixture
def mmdebstrap(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in on the path, which writes what it was called with; what it does may be changed."""
    script = short_dir / "bin" / "mmdebstrap"
    script.parent.mkdir()
    script.write_text(MMDEBSTRAP)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")
    return script


def test_every_default_image_has_a_recipe_and_every_recipe_an_image() -> None:
    made = {language: image_recipes.recipe(language) for language in DEFAULT_IMAGES}
    assert {language: each.image for language, each in made.items()} == DEFAULT_IMAGES
    assert sorted({each.name for each in made.values()}) == image_recipes.names()
    base = set(made["base"].packages)
    assert all(base <= set(each.packages) for each in made.values())
    assert made["java"].hook
    assert not made["python"].hook


def test_a_recipe_changes_its_key_with_all_that_it_is_made_of() -> None:
    one = Recipe("x-dev", ("bash",), "")
    others = [
        Recipe("x-dev", ("bash", "tar"), ""),
        Recipe("x-dev", ("bash",), "true"),
        Recipe("x-dev", ("bash",), "", suite="trixie"),
        Recipe("x-dev", ("bash",), "", mirror="http://mirror.example"),
    ]
    assert len({one.key, *(other.key for other in others)}) == 5


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["base", "python"]),
        (["python-dev", "py", "base"], ["python", "base"]),
        (["C++", "javascript", "ts"], ["cpp", "node"]),
        (["go", "all"], ["base", "python", "node", "rust", "go", "java", "cpp"]),
    ],
)
def test_languages_go_by_all_their_names(words: list[str], expected: list[str]) -> None:
    assert image_recipes.languages(words) == expected


def test_a_language_without_an_image_is_told_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("build", "pull"):
        assert main(["images", verb, "cobol"]) == 2
        said = capsys.readouterr().err
        assert "there is no image for 'cobol'" in said
        assert all(language in said for language in image_recipes.LANGUAGES)


@pytest.mark.parametrize("words", [["list"], ["pull"], ["build"]])
@pytest.mark.parametrize("host", ["unix:///nowhere", "ssh://x", "nonsense"])
def test_without_a_daemon_it_says_so(
    words: list[str], host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    assert main(["images", *words]) == 1
    said = capsys.readouterr().err
    assert "the Docker daemon cannot be reached" in said
    assert "DOCKER_HOST" in said


def test_the_list_tells_what_is_here_and_of_which_recipe(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.has(BASE, image_recipes.recipe("base").key)
    daemon.has(PYTHON, "of another release")
    daemon.has("mine:1")
    images = {"base": BASE, "python": PYTHON, "go": "mine:1", "cpp": "none:1", "rust": "none:1"}
    monkeypatch.setenv("CHORUS_SANDBOX_IMAGES", json.dumps(images))
    assert main(["images", "list", "--json"]) == 0
    rows = {row["image"]: row for row in json.loads(capsys.readouterr().out)["images"]}
    assert {image: (row["here"], row["recipe"]) for image, row in rows.items()} == {
        BASE: (True, "current"),
        PYTHON: (True, "another"),
        "mine:1": (True, None),
        "none:1": (False, None),
    }
    assert rows["none:1"]["languages"] == ["cpp", "rust"]
    assert rows[BASE]["size"] == 5_000_000
    assert main(["images", "list"]) == 0
    assert "5 MB" in capsys.readouterr().out


def test_pull_takes_the_images_that_agents_would_take(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["images", "pull"]) == 0
    assert daemon.called == [f"pull {BASE}", f"pull {PYTHON}"]
    assert capsys.readouterr().out == f"{BASE}\n{PYTHON}\n"
    monkeypatch.setenv("CHORUS_SANDBOX_IMAGES", '{"go": "registry.example:5000/go"}')
    assert main(["images", "pull", "go"]) == 0
    assert daemon.called[2:] == ["pull registry.example:5000/go:latest"]
    monkeypatch.setenv("CHORUS_SANDBOX_IMAGES", '{"go": "registry.example:5000/go@sha256:00ff"}')
    assert main(["images", "pull", "go"]) == 0
    assert daemon.called[3:] == ["pull registry.example:5000/go@sha256:00ff"]
    assert main(["images", "pull", "rust"]) == 1
    assert "CHORUS_SANDBOX_IMAGES has no image" in capsys.readouterr().err


def test_a_registry_out_of_reach_is_told_with_the_way_without_one(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.pull_refused = UNREACHABLE
    assert main(["images", "pull", "go"]) == 1
    said = capsys.readouterr().err
    assert "its registry cannot be reached by the Docker daemon" in said
    assert "no such host" in said
    assert "chorusctl images build go" in said
    # Of one's own image there is no recipe.
    monkeypatch.setenv("CHORUS_SANDBOX_IMAGES", '{"go": "mine"}')
    assert main(["images", "pull", "go"]) == 1
    assert "images build" not in capsys.readouterr().err


def test_an_image_that_the_registry_does_not_give_is_another_matter(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    denied = "pull access denied for anthonyrawlins/chorus-base, repository does not exist"
    daemon.pulls[BASE] = [{"status": "Pulling"}, {"errorDetail": {"message": denied}, "error": denied}]
    assert main(["images", "pull", "base"]) == 1
    said = capsys.readouterr().err
    assert "its registry does not give it: pull access denied" in said
    assert "docker login" in said


def test_a_terminal_sees_how_far_a_pull_is(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.pulls[BASE] = [
        {
            "id": layer,
            "status": "Downloading",
            "progressDetail": {"current": n * 1_000_000, "total": 9_000_000},
        }
        for layer, n in (("a", 2), ("b", 3), ("a", 9))
    ]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["images", "pull", "base"]) == 0
    said = capsys.readouterr().err
    for each in ("2 of 9 MB", "5 of 18 MB", "12 of 18 MB"):
        assert f"{BASE}: {each}" in said


def test_a_build_is_made_once(daemon: Daemon, mmdebstrap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = image_recipes.recipe("java")
    root = f"chorus-sandbox-root:java-dev-{recipe.key}"
    assert main(["images", "build", "java", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["built"]
    assert daemon.called == [f"import {root}", f"build {recipe.image} network=none", f"/images/{root}"]
    words = Path(f"{mmdebstrap}.called").read_text()
    assert f"--include={','.join(recipe.packages)}\n" in words
    assert "--customize-hook" in words
    assert main(["images", "build", "java", "--json"]) == 0
    assert not json.loads(capsys.readouterr().out)["images"][0]["built"]
    assert len(daemon.called) == 3


def test_another_suite_or_mirror_is_another_image(daemon: Daemon, mmdebstrap: Path) -> None:
    daemon.has(BASE, image_recipes.recipe("base").key)
    mirror = "http://mirror.example/debian"
    assert main(["images", "build", "base", "--suite", "trixie", "--mirror", mirror]) == 0
    words = Path(f"{mmdebstrap}.called").read_text().splitlines()
    assert words[-3] == "trixie"
    assert words[-1] == mirror


@pytest.mark.parametrize("option", [["--suite", "--simulate"], ["--suite", "a b"], ["--mirror", "-"]])
def test_what_mmdebstrap_would_take_for_an_option_is_refused(
    option: list[str], daemon: Daemon, mmdebstrap: Path
) -> None:
    assert main(["images", "build", "base", f"{option[0]}={option[1]}"]) == 2
    assert not Path(f"{mmdebstrap}.called").exists()


def test_a_failed_mmdebstrap_leaves_no_image_and_says_why(
    daemon: Daemon, mmdebstrap: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mmdebstrap.write_text("#!/bin/sh\necho 'E: no such suite' >&2\nexit 25\n")
    assert main(["images", "build", "base"]) == 1
    said = capsys.readouterr().err
    assert "E: no such suite" in said
    assert "mmdebstrap failed with 25" in said
    assert daemon.called == []


def test_without_root_the_failure_names_it(
    daemon: Daemon, mmdebstrap: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mmdebstrap.write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setattr(image_build.os, "getuid", lambda: 1000)
    assert main(["images", "build", "base"]) == 1
    assert "run it as root" in capsys.readouterr().err


def test_without_mmdebstrap_it_is_named(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main(["images", "build", "base"]) == 1
    assert "apt-get install mmdebstrap" in capsys.readouterr().err


@pytest.mark.parametrize("failing", ["import_lines", "build_lines"])
def test_an_error_in_the_daemons_answer_is_one(
    failing: str, daemon: Daemon, mmdebstrap: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setattr(daemon, failing, [{"status": "begun"}, {"error": "no space left on device"}])
    assert main(["images", "build", "base"]) == 1
    assert "no space left on device" in capsys.readouterr().err
    assert BASE not in daemon.images
