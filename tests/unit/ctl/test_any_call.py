"""Whatever chorusctl is called with, in whatever environment: an exit code and some lines, never a traceback.

Calls are made from the parser itself, so that new commands and options are among them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from chorus.ctl import client as client_module
from chorus.ctl import endings
from chorus.ctl.cli import build_parser, main
from chorus.dev.local_server import LocalServer

from .test_hostile_text import hostile, refusing

HEAVY = bool(os.environ.get("CHORUS_HEAVY"))
CALLS = 2_000 if HEAVY else 400
# As many again are processes of their own: what an interpreter is started with is odd too.
PROCESSES = 200 if HEAVY else 12
BATCHES = 10
TASK = "01J00000000000000000000001"

WORDS = [
    "", " ", "-", "--", "-x", "--nope", "--json", "x", "\udcff", "a\udc80b", "ü", "日本", "\U0001f600",
    "\x1b[2J", "a\nb", "%s%n", "{0}", "$(x)", "0", "-1", "1", "1e400", "nan", "inf", "-inf", "9" * 30,
    "9" * 5000, "²", "1_0", "x" * 5000, "..", "../..", "a/b", "NAME", "=", "=x", "A=b", "A=\udcff",
    "HOME@", "@x", "HOME@none", "1KB", "99999999999TB", "9" * 400 + "GB", "1h", "-1h", "9" * 400 + "d",
    "1h1", "2026-11-25", "0001-01-01T00:00Z", "9999-12-31T23:59:59-14:00", TASK, TASK.lower(), "0" * 64,
    "0" * 8, "ucxl://a:b@c:d/*^/e", "ucxl://", "ucxl://\udcff", "ucxl://any:any@any:any/*^/", "?", "#",
    "a?b#c", "true", "echo hi", "approve", "pdf", "a,b", ":", "[", "*", "**/*",
]  # fmt: skip
# Names of files in the folder that a call starts in.
FILES = [
    "none",
    "file",
    "folder",
    "broken",
    "loop",
    "binary",
    "rules.yaml",
    "/dev/null",
    "/dev/full",
    "no/such",
    ".",
]

# What a variable of the environment may be; None leaves it out.
ENVIRONMENT: dict[str, list[str | None]] = {
    "HOME": [None, "", "/nowhere", "/dev/null", "relative", "\udcff"],
    "XDG_STATE_HOME": [None, "", "relative", "/dev/null", "/dev/null/x", "/proc/nope", "/\udcff"],
    "COLUMNS": [None, "", "garbage", "-1", "0", "1", "99999999"],
    "TERM": [None, "", "dumb", "\x1b", "no-such-terminal"],
    "LANG": [None, "C", "xx_YY.UTF-9"],
    "TZ": [None, "", "Nowhere/Land", ":", "\udcff"],
    "CHORUS_API_URL": [
        None, "", "x", "http://", "http://[::1", "http://[::1]:0", "http://127.0.0.1:99999", "ftp://127.0.0.1",
        "http://a b", "http://\udcff", "http://ü:1", "https://127.0.0.1:1", "http://127.0.0.1:1/x?y#z", "http://u:p@127.0.0.1:1",
        "http://127.0.0.1:-1", "http://127.0.0.1:x",
    ],
    "CHORUS_API_TOKEN": [None, "", "t", " ", "a\nb", "ü", "\udcff", "x" * 100_000],
    "CHORUS_API_TOKEN_FILE": [None, "", "none", "folder", "binary", "file", "/dev/null", "loop"],
    "CHORUS_CONTEXT": [None, "", "one", "none", "../x", "x" * 300, "\udcff", "a\nb"],
    "CHORUS_DATA_DIR": [None, "", "none", "file", "folder", "/dev/null", "\udcff"],
    "CHORUS_API_PORT": [None, "", "x", "-1", "0", "99999", "9" * 5000, "²", "\udcff"],
    "CHORUS_P2P_PORT": [None, "1.5", "\udcff"],
    "CHORUS_VOTERS": [None, "²", "x", "9" * 5000],
    "CHORUS_CLUSTER_SECRET": [None, "x"],
    "CHORUS_CLUSTER_SECRET_FILE": [None, "none", "folder"],
    "DOCKER_HOST": ["unix:///nowhere", "x", "tcp://", "tcp://\udcff", "ssh://", "tcp://127.0.0.1:x"],
    "DOCKER_TLS_VERIFY": [None, "1"],
    "DOCKER_CERT_PATH": [None, "none"],
}  # fmt: skip
# What a context's files may hold; None makes a folder of that name.
CONTEXTS: list[bytes | None] = [
    None, b"", b"\xff", b"null", b"[]", b"{}", b"[" * 100_000, b'{"agents": 3}',
    b'{"name": "one", "agents": []}', b'{"name": "one", "license_id": 3, "agents": []}',
    b'{"name": "../x", "license_id": "d", "agents": []}',
    b'{"name": "one", "license_id": "d", "agents": [{}]}',
    b'{"name": "one", "license_id": "d", "agents": [3]}',
    json.dumps(
        {"name": "one", "license_id": "d", "agents": [
            {"agent_id": "a", "api": "http://127.0.0.1:1", "health": "http://127.0.0.1:1", "multiaddr": "",
             "token_file": "none", "data_dir": "none", "pid": 0}]}
    ).encode(),
]  # fmt: skip
LAST: list[bytes | None] = [None, b"one\n", b"", b"\xff", b"../x", b"none", b"a\nb"]

Answers = Callable[[httpx.Request], httpx.Response]


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def saying(content: bytes) -> Answers:
    return lambda request: httpx.Response(200, content=content)


AGENTS: list[Answers] = [
    hostile, unreachable, refusing(404, "problem"), refusing(503, "problem"), refusing(422, "ucxi"),
    refusing(500, "junk"),
]  # fmt: skip
# No agent of this version: what chorusctl says then is a line too.
OTHER_AGENTS: list[Answers] = [
    saying(each) for each in (b"", b"null", b"[]", b"{}", b"3", b'{"items": 3}', b"\xff")
]


def place(folder: Path, rng: random.Random) -> Path:
    """A folder to start in, with files of several kinds and a state folder in it."""
    folder.mkdir()
    (folder / "file").write_text("some text\n")
    (folder / "folder" / "inner").mkdir(parents=True)
    (folder / "folder" / "inner" / "f").write_text("x")
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / os.fsdecode(b"folder/\xff")).write_text("x")
    (folder / "broken").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "rules.yaml").write_text(
        rng.choice(["rules: 3", "rules: [{id: x}]", "a: [", "\x00", "- *x", ""])
    )
    contexts = folder / "state" / "chorus" / "contexts"
    (contexts / "one").mkdir(parents=True)
    for path, contents in ((contexts / "one" / "context.json", CONTEXTS), (contexts / "last", LAST)):
        content = rng.choice(contents)
        path.mkdir() if content is None else path.write_bytes(content)
    return folder


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def value_of(action: argparse.Action, rng: random.Random) -> str:
    if action.choices is not None and rng.random() < 0.8:
        return str(rng.choice(list(action.choices)))
    if action.type is not None and action.dest not in ("task", "max_size") and rng.random() < 0.7:
        return str(rng.randint(0, 16))
    if action.dest == "task" and rng.random() < 0.9:
        return TASK
    if action.dest in ("address", "record") and rng.random() < 0.5:
        return rng.choice(["0" * 64, "ucxl://a:b@c:d/*^/e"])
    return rng.choice(FILES) if rng.random() < 0.4 else rng.choice(WORDS)


def call(parser: argparse.ArgumentParser, rng: random.Random) -> list[str]:
    """The words of one call, most of them such that the parser takes them."""
    words: list[str] = []
    while choices := subparsers(parser):
        if rng.random() < 0.02:
            return [*words, rng.choice(WORDS)]
        name = rng.choice(list(choices))
        words.append(name)
        parser = choices[name]
    last: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if action.option_strings:
            # A context that is none ends a call early, and so does every option that cannot be.
            rare = action.dest in ("context", "version")
            for _ in range(
                rng.choices([0, 1, 2], [20, 1, 0] if rare else [6, 2, 1 if action.nargs != 0 else 0])[0]
            ):
                words.append(rng.choice(action.option_strings))
                if action.nargs != 0 and rng.random() < 0.97:
                    words.append(value_of(action, rng))
        elif action.nargs == argparse.REMAINDER:
            last = ["--", *(rng.choice(WORDS) for _ in range(rng.randint(0, 3)))]
        elif action.nargs != "?" or rng.random() < 0.6:
            words += [value_of(action, rng)] * (rng.random() < 0.95)
    if rng.random() < 0.03:
        words.insert(rng.randrange(len(words) + 1), rng.choice(["-h", "--help", "--version", *WORDS]))
    return words + last


def surroundings(rng: random.Random, state: Path) -> dict[str, str]:
    """The environment of a call: an ordinary one with some variables that are odd."""
    chosen: dict[str, str | None] = {"XDG_STATE_HOME": str(state), "DOCKER_HOST": "unix:///nowhere"}
    if rng.random() < 0.85:
        chosen |= {"CHORUS_API_URL": "http://127.0.0.1:1", "CHORUS_API_TOKEN": "t"}
    for name in rng.sample(list(ENVIRONMENT), rng.choice([0, 0, 0, 0, 1, 2, 5])):
        chosen[name] = rng.choice(ENVIRONMENT[name])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CHORUS_", "DOCKER_"))}
    return {name: value for name, value in {**kept, **chosen}.items() if value is not None}


def harmless(words: list[str], environ: dict[str, str]) -> bool:
    """Whether the call starts no agents: those that could are made only where no agent gets its folder."""
    return words[:1] != ["up"] or not environ.get("XDG_STATE_HOME", "").startswith(("/tmp", "/var"))


def check(code: object, out: str, err: str, other_agent: bool = False) -> None:
    assert isinstance(code, int)
    assert 0 <= code < 256
    assert "Traceback" not in out + err
    if not other_agent:
        assert "chorusctl: unexpected" not in err
    # What fails says why.
    assert code in (0, 1, 124, 125) or err or out


class Stream(io.TextIOWrapper):
    """A standard stream in memory."""

    def __init__(self, content: bytes = b"") -> None:
        self.raw_bytes = io.BytesIO(content)
        super().__init__(self.raw_bytes, encoding="utf-8")

    def text(self) -> str:
        self.flush()
        return self.raw_bytes.getvalue().decode("utf-8", "replace")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for, and servers for development end at once."""
    for module in ("follow", "log", "members"):
        monkeypatch.setattr(f"chorus.ctl.{module}.GIVE_UP_S", 0.0)
        monkeypatch.setattr(f"chorus.ctl.{module}.PAUSE_FIRST_S", 0.0001)
    monkeypatch.setattr(endings, "CANCEL_TRIES_S", 0.0)
    monkeypatch.setattr("chorus.ctl.up.STOP_TIMEOUT_S", 0.1)
    monkeypatch.setattr(LocalServer, "wait", lambda self: None)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_call_ends_in_a_traceback(batch: int, tmp_path: Path, quick: None) -> None:
    parser, real = build_parser(), httpx.Client
    for number in range(CALLS // BATCHES):
        rng = random.Random(f"{batch} {number}")
        here = place(tmp_path / str(number), rng)
        words, environ = call(parser, rng), surroundings(rng, here / "state")
        if not harmless(words, environ):
            continue
        other = rng.random() < 0.1
        answers = rng.choice(OTHER_AGENTS if other else AGENTS)
        out, err = Stream(), Stream()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(here)
            for name in os.environ.keys() - environ.keys():
                patch.delenv(name)
            for name, value in environ.items():
                patch.setenv(name, value)
            patch.setattr(
                client_module.httpx,
                "Client",
                lambda answers=answers, **_: real(transport=httpx.MockTransport(answers)),
            )
            patch.setattr(sys, "stdin", Stream(rng.choice([b"", b"text\n", bytes(range(256))])))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            try:
                code: Any = main(words)
            except SystemExit as leaving:
                code = leaving.code
        try:
            check(code, out.text(), err.text(), other)
        except BaseException as error:
            odd = {name: value for name, value in environ.items() if name in ENVIRONMENT}
            told = f"call {batch} {number}: {words!r} with {odd!r}: {code!r}\n{err.text()[:2000]}"
            raise AssertionError(told) from error


STREAMS: list[dict[str, Any]] = [
    {},
    {"closed": 0},
    {"closed": 1},
    {"closed": 2},
    {"full": True},
    {"nobody": True},
]
INTERPRETER = {
    "LC_ALL": [None, "C", "POSIX", "C.UTF-8", "xx_YY"],
    "PYTHONIOENCODING": [None, "ascii", "latin-1", "utf-16"],
    "PYTHONUTF8": [None, "0", "1"],
    "TMPDIR": [None, "/nowhere", ""],
}


def test_no_process_ends_in_a_traceback(tmp_path: Path) -> None:
    parser = build_parser()

    def one(number: int) -> str | None:
        rng = random.Random(f"process {number}")
        here = place(tmp_path / str(number), rng)
        words, environ = call(parser, rng), surroundings(rng, here / "state")
        if (
            not harmless(words, environ)
            or words[:1] in (["dev"], ["doctor"], ["wait"])
            or "follow" in words
            or "-f" in words
        ):
            words = rng.choice(
                [["--help"], ["tasks"], ["run", "--help"], ["completion", "bash"], ["--version"]]
            )
        for name, values in INTERPRETER.items():
            environ.pop(name, None)
            if (value := rng.choice(values)) is not None:
                environ[name] = value
        streams = rng.choice(STREAMS)
        script = 'exec "$@"'
        if "closed" in streams:
            script += f" {streams['closed']}>&-"
        if "full" in streams:
            script += " >/dev/full"
        done = subprocess.run(
            ["sh", "-c", script, "sh", sys.executable, "-m", "chorus.ctl", *words],
            cwd=here,
            env={name: value for name, value in environ.items() if "\0" not in value},
            capture_output=True,
            input=None if streams.get("nobody") else b"text\n",
            stdin=subprocess.DEVNULL if streams.get("nobody") else None,
            timeout=120,
            check=False,
        )
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        problem = re.search(r"Traceback|Exception ignored|chorusctl: unexpected|Fatal Python", said)
        # 120 is Python's own, for output that it could not write at its end.
        if problem or done.returncode not in (0, 1, 2, 3, 125):
            return (
                f"process {number}: {words!r} with {streams}, {environ!r}: {done.returncode}\n{said[:2000]}"
            )
        return None

    with ThreadPoolExecutor(2) as pool:
        assert [found for found in pool.map(one, range(PROCESSES)) if found] == []


@pytest.mark.parametrize(
    ("words", "environ", "code", "said"),
    [
        (["run", "--", "\udcff"], {}, 2, r"the argument \xff is not UTF-8 text"),
        (["tasks", "--project", "a\udcff"], {}, 2, r"the argument a\xff is not UTF-8 text"),
        (
            ["tasks"],
            {"CHORUS_API_URL": "127.0.0.1:8080"},
            2,
            "CHORUS_API_URL: '127.0.0.1:8080' is no address",
        ),
        (["tasks"], {"CHORUS_API_TOKEN": "a b"}, 2, "CHORUS_API_TOKEN: expected a token"),
        (["tasks"], {"CHORUS_API_URL": "http://127.0.0.1:1"}, 125, "is it up? chorusctl up"),
        (["run", "--secret", "X", "--", "true"], {"X": "\udcff"}, 2, "--secret X: its value is not UTF-8"),
        (["run", "--secret", "X@none", "--", "true"], {}, 2, "--secret X@none: No such file"),
        (["ucxl", "put", "ucxl://a:b@c:d/*^/e", "none"], {}, 1, "none: No such file or directory"),
        (["up"], {"XDG_STATE_HOME": "/dev/null/x"}, 2, "Not a directory"),
        (["down", "--context", "one"], {"CONTEXT": "{"}, 2, "context one is damaged"),
        (["down", "--context", "one"], {"CONTEXT": '{"agents": []}'}, 2, "remove "),
    ],
)
def test_a_line_says_what_is_wrong(
    words: list[str],
    environ: dict[str, str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "chorus" / "contexts" / "one"
    folder.mkdir(parents=True)
    (folder / "context.json").write_text(environ.get("CONTEXT", ""))
    usual = {"XDG_STATE_HOME": str(tmp_path), "CHORUS_API_URL": "http://127.0.0.1:1", "CHORUS_API_TOKEN": "t"}
    for name, value in (usual | environ).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(endings, "CANCEL_TRIES_S", 0.0)
    assert main(words) == code
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("chorusctl: ")
    assert said in line


@pytest.mark.parametrize("words", [["--timeout", "nan"], ["--timeout", "0"], ["--timeout", "-1"]])
def test_a_timeout_is_a_time(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", *words, "--", "true"])
    assert ended.value.code == 2
    assert "seconds above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ('"$@" completion fish >/dev/full', 1, "chorusctl: standard output: No space left on device\n"),
        ('"$@" completion bash >&-', 1, "chorusctl: standard output: Bad file descriptor\n"),
        ('"$@" completion fish | true', 0, ""),
        ('"$@" nonsense 2>&-', 2, ""),
        ('"$@" --version <&-', 0, ""),
    ],
)
def test_streams_that_cannot_be_written(script: str, code: int, said: str) -> None:
    command = ["bash", "-o", "pipefail", "-c", script, "bash", sys.executable, "-m", "chorus.ctl"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (code, said)
