"""The log stream: one line per event, who and what in it, secrets cut, and never an error of its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from chorus.process import log_kinds, logs

TOKEN = "ghp_" + "x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"


@pytest.fixture
def lines() -> Iterator[list[bytes]]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    written: list[bytes] = []
    yield written
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


def configure(lines: list[bytes], form: str = "json", **more: object) -> logs.Logger:
    return logs.configure("executor", "agent-1", "info", form, write=lines.append, **more)  # type: ignore[arg-type]


def test_a_json_line_names_process_agent_and_task(lines: list[bytes]) -> None:
    configure(lines).bind(task_id="01J").info("task started", attempt=2)
    [line] = [json.loads(line) for line in lines]
    assert line["process"] == "executor"
    assert line["agent_id"] == "agent-1"
    assert line["task_id"] == "01J"
    assert line["event"] == "task started"
    assert line["attempt"] == 2
    assert line["level"] == "info"
    assert line["time"].endswith("Z")


def test_fields_cannot_pretend_to_be_another(lines: list[bytes]) -> None:
    configure(lines).info("x", process="node", agent_id="other")
    assert json.loads(lines[0])["process"] == "executor"


def test_a_text_line_is_readable(lines: list[bytes]) -> None:
    configure(lines, "text").warning("disk is full", free=0)
    assert b"warning executor" in lines[0]
    assert b"disk is full" in lines[0]
    assert b"free=0" in lines[0]


def test_secrets_are_cut_out_of_every_line(lines: list[bytes]) -> None:
    for form in ("json", "text"):
        configure(lines, form)
        logging.getLogger("chorus.api").warning("the token is %s", TOKEN)
        logs.bind().info("again", value=TOKEN)
    assert all(TOKEN.encode() not in line and b"[REDACTED:" in line for line in lines)
    assert len(lines) == 4


def test_names_of_fields_are_no_secrets_of_the_value_before_them(lines: list[bytes]) -> None:
    # As one text this reads like `Pwd… = transcript_sha256`.
    peer = "12D3KooWATxytexhiskn6jSR7DBzuBwizPwdA2xLpGxKcS2WTZDk"
    configure(lines).info("x", peer=peer, transcript_sha256="d3")
    assert json.loads(lines[0])["transcript_sha256"] == "d3"


def test_libraries_lines_have_the_same_form(lines: list[bytes]) -> None:
    configure(lines)
    logging.getLogger("somelib").warning("slow: %s", 3)
    line = json.loads(lines[0])
    assert (line["logger"], line["event"]) == ("somelib", "slow: 3")


def test_exceptions_travel_in_the_line(lines: list[bytes]) -> None:
    log = configure(lines)
    try:
        raise ValueError("odd")
    except ValueError:
        log.exception("failed")
    assert "ValueError: odd" in json.loads(lines[0])["exception"]
    assert lines[0].count(b"\n") == 1


def test_a_huge_line_is_cut_and_still_json(lines: list[bytes]) -> None:
    configure(lines).info("x" * 10 * logs.LINE_MAX_BYTES)
    assert len(lines[0]) <= logs.LINE_MAX_BYTES + 1
    assert "cut" in json.loads(lines[0])["event"]


@pytest.mark.parametrize("before", range(logs.LINE_MAX_BYTES // 8 - 45, logs.LINE_MAX_BYTES // 8, 4))
def test_a_huge_line_is_not_cut_through_a_secret(lines: list[bytes], before: int) -> None:
    log = logs.configure("api", "a", "info", "json", write=lines.append, sentinel=logs.built_in_rules())
    log.info("x" * (before - 1) + " " + TOKEN + " " + "x" * logs.LINE_MAX_BYTES)
    assert b"ghp_" not in lines[0]


def test_a_closed_stderr_does_not_stop_work(lines: list[bytes]) -> None:
    def broken(line: bytes) -> None:
        raise BrokenPipeError

    log = logs.configure("api", "a", "info", "json", write=broken)
    log.info("nobody listens")


def test_lines_of_one_kind_are_bounded_and_the_rest_is_counted(lines: list[bytes]) -> None:
    now = 0.0
    handler = logs.RedactingHandler(lines.append, None, clock=lambda: now)
    handler.setFormatter(logs.JsonLine("node", "agent-1"))
    log = logging.getLogger("chorus.flood")
    log.handlers[:], log.propagate = [handler], False
    log.setLevel(logging.INFO)
    for n in range(100_000):
        log.info("refused", extra={"fields": {"n": n}})
        # A text that is another each time is no way around.
        log.info(f"refused {n}")
    log.warning("of another kind")
    said = [json.loads(line) for line in lines]
    assert sum(line["event"] == "refused" for line in said) == log_kinds.KIND_LINES_MAX
    assert len(said) <= log_kinds.KINDS_MAX + 2 * log_kinds.KIND_LINES_MAX
    lines.clear()
    now = log_kinds.PERIOD_S
    log.info("refused", extra={"fields": {"n": "later"}})
    said = [json.loads(line) for line in lines]
    counted = {line["kind"]: line["count"] for line in said if "count" in line}
    assert counted["refused"] == 100_000 - log_kinds.KIND_LINES_MAX
    assert counted["other"] > 90_000
    assert said[-1]["event"] == "refused"


FORGED = "x\n12:00:00.000 error   node        all is lost\r\x1b[2J\x9b\u202e\u2028\ud800"


def hidden(line: bytes) -> set[str]:
    return {char for char in line.decode()[:-1] if not char.isprintable()}


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_value_cannot_forge_a_line(lines: list[bytes], form: str) -> None:
    log = configure(lines, form)
    log.info("heard", said=FORGED, **{"na\nme": [FORGED]})
    log.info(FORGED)
    logging.getLogger("some\nlib").warning("%s", FORGED)
    assert len(lines) == 3
    for line in lines:
        assert line.endswith(b"\n")
        assert hidden(line) == set()
    if form == "json":
        assert json.loads(lines[0])["said"] == FORGED


def test_the_lines_of_a_traceback_are_indented(lines: list[bytes]) -> None:
    log = configure(lines, "text")
    try:
        raise ValueError(FORGED)
    except ValueError:
        log.exception("failed")
    first, *rest = lines[0].decode().splitlines()
    assert "failed" in first
    assert rest
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
