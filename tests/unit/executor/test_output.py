"""Output is redacted, bounded and told exactly otherwise."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus.executor.journal import Journal
from chorus.executor.output import OutputGate
from chorus.executor.redaction import Sentinel
from chorus.process import logs


def told(folder: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]


async def test_characters_over_chunks_are_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1)
    gate = OutputGate(journal, Sentinel())
    for piece in (b"\xe2", b"\x82", b"\xac\xf0", b"\x9f\x98\x80"):
        gate.write("stdout", 1, piece)
    gate.write("stdout", 1, b"\xff\xfe")
    gate.write("stdout", 1, b"\xc3")
    gate.end(1)
    gate.finish()
    data = [event["data"] for event in told(tmp_path)]
    assert "".join(item.get("text", "") for item in data) == "€😀"  # type: ignore[attr-defined]
    binary = b"".join(base64.b64decode(item["base64"]) for item in data if "base64" in item)  # type: ignore[operator,index]
    assert binary == b"\xff\xfe\xc3"
    assert (tmp_path / "stdout").read_bytes() == "€😀".encode() + b"\xff\xfe\xc3"


async def test_beyond_the_limit_is_cut_and_counted(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 3)
    gate = OutputGate(journal, Sentinel(), bytes_max=10_000)
    for _ in range(1000):
        gate.write("stderr", 1, b"x" * 1000)
    gate.end(1)
    gate.finish()
    kept = (tmp_path / "stderr").read_bytes()
    assert len(kept) < 11_000
    assert gate.seen() == {"stdout": 0, "stderr": 1_000_000}
    gaps = [event for event in told(tmp_path) if event["event"] == "gap"]
    lost = int(gaps[-1]["data"]["lost"].split()[0])  # type: ignore[index]
    assert lost + kept.count(b"x") == 1_000_000
    assert [event["id"] for event in told(tmp_path)] == [f"3-{n}" for n in range(1, len(told(tmp_path)) + 1)]


async def test_byte_by_byte_cannot_fill_the_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1)
    gate = OutputGate(journal, Sentinel(), bytes_max=100_000)
    for _ in range(20_000):
        gate.write("stdout", 1, b"x")
    gate.finish()
    assert (tmp_path / "events.jsonl").stat().st_size < 200_000


async def test_a_torn_event_is_cut_after_a_crash(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1)
    journal.event("state", {})
    journal.close()
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"id":"1-2","ev')
    assert Journal(tmp_path, 1).event("state", {}) == "1-2"
    assert len(told(tmp_path)) == 2


@given(
    st.lists(st.binary(max_size=12) | st.sampled_from([b"secret", b"secretly", b"sec", b"ret"]), max_size=12)
)
def test_secrets_are_cut_however_they_are_split(pieces: list[bytes]) -> None:
    secrets = [b"secret", b"secretly-more"]
    whole = Sentinel(secrets)
    expected = whole.push(b"".join(pieces)) + whole.finish()
    split = Sentinel(secrets)
    out = b"".join(split.push(piece) for piece in pieces) + split.finish()
    assert out == expected
    assert b"secret" not in out.replace(b"task-secret", b"")


def test_a_huge_secret_is_cut_too() -> None:
    secret = random.Random(1).randbytes(50_000).hex().encode()
    redactor = Sentinel([secret])
    pieces = [secret[start : start + 1000] for start in range(0, len(secret), 1000)]
    out = b"".join(map(redactor.push, [b"<", *pieces, b">"])) + redactor.finish()
    assert out == b"<[REDACTED:task-secret][REDACTED:task-secret]>"


@pytest.mark.parametrize("cut", range(0, 41, 4))
async def test_a_secret_in_two_writes_reaches_neither_file_nor_event(tmp_path: Path, cut: int) -> None:
    token = b"ghp_" + b"x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"
    told_lines: list[bytes] = []
    log = logs.configure("executor", "a", "info", "json", write=told_lines.append)
    gate = OutputGate(Journal(tmp_path, 1), Sentinel(log=log))
    gate.write("stdout", 1, b"it is " + token[:cut])
    gate.write("stdout", 1, token[cut:] + b" indeed\n")
    gate.end(1)
    gate.finish()
    assert (tmp_path / "stdout").read_bytes() == b"it is [REDACTED:github-token] indeed\n"
    events = (tmp_path / "events.jsonl").read_bytes()
    assert b"x7Kq2LmV" not in events
    assert b"[REDACTED:github-token]" in b"".join(
        str(event["data"].get("text", "")).encode()  # type: ignore[attr-defined]
        for event in told(tmp_path)
    )
    [line] = [orjson.loads(line) for line in told_lines]
    assert (line["rule"], line["place"], line["start"], line["end"]) == ("github-token", "task output", 6, 46)
    assert token not in b"".join(told_lines)


@pytest.mark.parametrize("cut", range(0, 41, 4))
@pytest.mark.parametrize("secrets", [[], [b"ghp_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"]])
async def test_a_secret_that_two_commands_print_together_is_found(
    tmp_path: Path, cut: int, secrets: list[bytes]
) -> None:
    token = b"ghp_" + b"x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"
    gate = OutputGate(Journal(tmp_path, 1), Sentinel(secrets))
    gate.write("stdout", 1, b"it is " + token[:cut])
    gate.end(1)
    gate.write("stdout", 2, token[cut:] + b"\n")
    gate.end(2)
    gate.finish()
    kept = (tmp_path / "stdout").read_bytes()
    # The first letters of a token may be out before anything could tell.
    assert b"x7Kq2LmV" not in kept
    assert kept.endswith(b"]\n")
    assert b"5aQw" not in (tmp_path / "events.jsonl").read_bytes()


async def test_a_prompt_at_a_commands_end_is_told_with_it(tmp_path: Path) -> None:
    gate = OutputGate(Journal(tmp_path, 1), Sentinel())
    gate.write("stdout", 1, b"Continue? [y/N] g")
    gate.end(1)
    assert (tmp_path / "stdout").read_bytes() == b"Continue? [y/N] g"


def test_nothing_harmless_is_held_back() -> None:
    assert Sentinel([b"secret"]).push(b"hello\n") == b"hello\n"
