"""However `chorusctl run` ends, in whatever phase of its task, the task does not go on without it."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from .conftest import GENEROUS_S, Mesh, _heed_sigint, brought_up
from .test_run import containers, until

pytestmark = pytest.mark.e2e
# One of them stands for all, unless there is time.
SIGNALS = [
    signal.SIGTERM,
    *(pytest.param(n, marks=pytest.mark.heavy) for n in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)),
]


@pytest.fixture(scope="module")
def lone(needs: None) -> Iterator[Mesh]:
    """One agent that runs two tasks at once."""
    yield from brought_up(1, CHORUS_AGENT_MAX_TASKS="2")


@dataclass
class Between:
    """Stands between chorusctl and the agent and holds back the answer to a submission."""

    mesh: Mesh
    task_id: str = ""
    # Whether the submission reaches the agent before chorusctl is ended, or after.
    delivers_first: bool = True
    submitted: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    delivered: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def forward(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        submits = handler.command == "POST" and handler.path == "/api/v1/tasks"
        if submits:
            self.task_id = json.loads(body)["task_id"]
            if not self.delivers_first:
                self.submitted.set()
                self.go_on.wait(GENEROUS_S)
        kept = {
            name: handler.headers[name]
            for name in ("authorization", "content-type")
            if name in handler.headers
        }
        request = urllib.request.Request(
            self.mesh.agents[0].api + handler.path, body or None, kept, method=handler.command
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        if submits:
            self.delivered.set()
            self.submitted.set()
            self.go_on.wait(GENEROUS_S)
        handler.send_response(status)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


@contextmanager
def between(mesh: Mesh, *, delivers_first: bool) -> Iterator[Between]:
    made = Between(mesh, delivers_first=delivers_first)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with suppress(OSError):  # chorusctl has gone
                made.forward(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield made
    finally:
        made.go_on.set()
        server.shutdown()
        server.server_close()


def started(
    mesh: Mesh, *words: str, environ: dict[str, str] | None = None, **more: Any
) -> subprocess.Popen[bytes]:
    command = mesh.command("run", *words)
    if environ:
        # `--context` would win over the address in the environment.
        command = [word for word in command if word not in ("--context", mesh.name)]
    return subprocess.Popen(
        command,
        env={**mesh.environ, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_heed_sigint,
        **more,
    )


def ended(running: subprocess.Popen[bytes], code: int) -> None:
    _, said = running.communicate(timeout=GENEROUS_S)
    assert running.returncode == code, said
    assert b"Traceback" not in said


def task_called(mesh: Mesh, title: str) -> dict[str, Any]:
    found: dict[str, Any] = until(lambda: next((t for t in mesh.tasks() if t["title"] == title), None))
    return found


def nothing_left(mesh: Mesh, task_id: str) -> None:
    """The task is cancelled, and its sandbox goes."""
    path = f"/api/v1/tasks/{task_id}"
    until(lambda: mesh.agents[0].get(path).json()["state"] == "cancelled")
    until(lambda: not containers(task_id))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_command_runs(lone: Mesh, number: signal.Signals) -> None:
    title = f"running {number.name}"
    running = started(lone, "--title", title, "--", "sh", "-c", "echo up; sleep 600")
    assert running.stdout is not None
    assert running.stdout.readline() == b"up\n"
    running.send_signal(number)
    ended(running, 128 + number)
    nothing_left(lone, task_called(lone, title)["task_id"])


def test_a_kill_while_the_command_runs(lone: Mesh) -> None:
    running = started(
        lone, "--title", "killed", "--", "sh", "-c", "echo up; sleep 600", start_new_session=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == b"up\n"
    # As a service manager kills: the whole group.
    os.killpg(running.pid, signal.SIGKILL)
    ended(running, -signal.SIGKILL)
    nothing_left(lone, task_called(lone, "killed")["task_id"])


def test_the_reader_of_the_output_goes_away(lone: Mesh) -> None:
    code = "echo up; while sleep 0.1; do echo more; done"
    running = started(lone, "--title", "unread", "--", "sh", "-c", code)
    assert running.stdout is not None
    assert running.stdout.readline() == b"up\n"
    running.stdout.close()
    assert running.wait(GENEROUS_S) == 128 + signal.SIGPIPE
    assert running.stderr is not None
    assert running.stderr.read() == b""
    nothing_left(lone, task_called(lone, "unread")["task_id"])


def test_the_output_cannot_be_written(lone: Mesh) -> None:
    words = ("--title", "full disk", "--", "sh", "-c", "while sleep 0.1; do echo more; done")
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        running = subprocess.Popen(
            lone.command("run", *words), env=lone.environ, stdout=full, stderr=subprocess.PIPE
        )
        _, said = running.communicate(timeout=GENEROUS_S)
    assert running.returncode == 1
    assert said.decode().splitlines() == [
        "chorusctl: the task was cancelled: its output cannot be written: No space left on device"
    ]
    nothing_left(lone, task_called(lone, "full disk")["task_id"])


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGKILL])
@pytest.mark.parametrize("delivers_first", [True, False], ids=["taken", "on its way"])
def test_a_signal_during_the_submission(lone: Mesh, number: signal.Signals, delivers_first: bool) -> None:
    with between(lone, delivers_first=delivers_first) as stand_in:
        environ = {"CHORUS_API_URL": stand_in.url, "CHORUS_API_TOKEN": lone.agents[0].token}
        running = started(lone, "--", "sleep", "600", environ=environ)
        assert stand_in.submitted.wait(GENEROUS_S)
        running.send_signal(number)
        ended(running, -number if number == signal.SIGKILL else 128 + number)
        stand_in.go_on.set()
        assert stand_in.delivered.wait(GENEROUS_S)
        nothing_left(lone, stand_in.task_id)


def test_a_second_signal_does_not_wait_and_the_task_ends_all_the_same(lone: Mesh) -> None:
    held = threading.Event()
    with between(lone, delivers_first=True) as stand_in:
        forward = stand_in.forward

        def later(handler: http.server.BaseHTTPRequestHandler) -> None:
            if handler.path.endswith("/cancel"):
                held.set()
                stand_in.go_on.wait(GENEROUS_S)
            forward(handler)

        stand_in.forward = later  # type: ignore[method-assign]
        environ = {"CHORUS_API_URL": stand_in.url, "CHORUS_API_TOKEN": lone.agents[0].token}
        running = started(lone, "--", "sleep", "600", environ=environ)
        assert stand_in.submitted.wait(GENEROUS_S)
        running.send_signal(signal.SIGINT)
        assert held.wait(GENEROUS_S)
        running.send_signal(signal.SIGTERM)
        ended(running, 128 + signal.SIGTERM)
        stand_in.go_on.set()
        nothing_left(lone, stand_in.task_id)


def test_a_signal_while_the_task_waits_for_its_turn(lone: Mesh) -> None:
    busy = [started(lone, "--title", f"busy {n}", "--", "sh", "-c", "echo up; sleep 600") for n in range(2)]
    for each in busy:
        assert each.stdout is not None
        assert each.stdout.readline() == b"up\n"
    waiting = started(lone, "--title", "waits", "--", "true")
    task_id = task_called(lone, "waits")["task_id"]
    waiting.send_signal(signal.SIGTERM)
    ended(waiting, 143)
    nothing_left(lone, task_id)
    for each in busy:
        each.send_signal(signal.SIGTERM)
    for each in busy:
        ended(each, 143)


def test_a_signal_before_anything_was_sent(lone: Mesh) -> None:
    before = len(lone.tasks())
    running = started(lone, "-i", "--", "cat", stdin=subprocess.PIPE)
    assert running.stdin is not None
    # More than a pipe holds: it is being read, and does not end.
    running.stdin.write(b"x" * 1_000_000)
    running.send_signal(signal.SIGTERM)
    ended(running, 143)
    assert len(lone.tasks()) == before


@pytest.mark.heavy
def test_nohup_is_heeded(lone: Mesh) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    words = ("--title", "nohup", "--", "sh", "-c", "echo up; sleep 1; echo down")
    running = subprocess.Popen(
        lone.command("run", *words), env=lone.environ, stdout=subprocess.PIPE, preexec_fn=ignore
    )
    assert running.stdout is not None
    assert running.stdout.readline() == b"up\n"
    running.send_signal(signal.SIGHUP)
    assert running.stdout.read() == b"down\n"
    assert running.wait(GENEROUS_S) == 0


@pytest.mark.parametrize("content", [b"", b"x", b"no end of line\n\0\xff" * 10_000, os.urandom(20_000_000)])
def test_standard_input_is_passed_exactly(lone: Mesh, content: bytes) -> None:
    done = subprocess.run(
        lone.command("run", "-i", "--", "cat"), env=lone.environ, input=content, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == content


def test_standard_input_that_goes_nowhere_is_said_once(lone: Mesh) -> None:
    done = subprocess.run(
        lone.command("run", "--", "cat"), env=lone.environ, input=b"x\n", capture_output=True
    )
    said = "chorusctl: standard input is not passed to the command; -i does that\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (0, b"", said)
    # Nothing is lost of a pipe in which nothing is, or of no input at all.
    for given in ({"input": b""}, {"stdin": subprocess.DEVNULL}):
        done = subprocess.run(
            lone.command("run", "--", "cat"), env=lone.environ, capture_output=True, **given
        )  # type: ignore[call-overload]
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
