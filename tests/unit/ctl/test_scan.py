"""`chorusctl scan`: rule, place and hash of secrets in files, never the secret."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from chorus.ctl.cli import main

pytest.importorskip("chorus._core", reason="the core is not built: make setup")

from chorus.core import Scanner

TOKEN = "ghp_" + "x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / ".git" / "objects").mkdir(parents=True)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text(f"import os\n\nTOKEN = '{TOKEN}'\n")
    (tmp_path / "src" / "b.ini").write_text("password = x7Kq2LmV9nRt4WzY\n")
    (tmp_path / ".git" / "config").write_text(f"url = https://x:{TOKEN}@example.org\n")
    (tmp_path / ".git" / "objects" / "pack").write_text(TOKEN)
    (tmp_path / "image.bin").write_bytes(b"\0\1" + TOKEN.encode())
    (tmp_path / "link").symlink_to(tmp_path / "src" / "a.py")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def scanned(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[tuple[str, int, int, str]]]:
    code = main(["scan", "--json", *words])
    out = capsys.readouterr().out
    assert TOKEN not in out
    found = json.loads(out)["findings"]
    return code, [(Path(f["file"]).name, f["line"], f["column"], f["rule"]) for f in found]


def test_a_tree_is_walked(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = scanned(capsys, str(tree))
    assert code == 1
    assert ("a.py", 3, 10, "github-token") in found
    assert ("b.ini", 1, 12, "assigned-secret") in found
    assert {name for name, *_ in found} == {"config", "a.py", "b.ini"}
    _, found = scanned(capsys, str(tree), "--git", "--binary")
    assert {name for name, *_ in found} == {"config", "a.py", "b.ini", "pack", "image.bin"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_text_in_wide_characters_is_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], encoding: str
) -> None:
    text = f"größe=1\nTOKEN='{TOKEN}'\n"
    content = text.encode(encoding)
    (tmp_path / "wide.txt").write_bytes(content)
    (tmp_path / "numbers.bin").write_bytes(b"".join(n.to_bytes(4, "little") for n in range(4000)))
    code, found = scanned(capsys, str(tmp_path))
    assert (code, [(name, line, rule) for name, line, _, rule in found]) == (
        1,
        [("wide.txt", 2, "github-token")],
    )
    (finding,) = Scanner().scan(content)
    unmarked = encoding if encoding.endswith("e") else f"{encoding}-le"
    assert content[finding.start : finding.end].decode(unmarked) == TOKEN
    assert Scanner().redact(content).decode(encoding) == text.replace(TOKEN, "[REDACTED:github-token]")


def test_lines_name_rule_place_and_hash(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", str(tree / "src" / "a.py")]) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"{tree / 'src' / 'a.py'}:3:10: github-token (critical) ")
    assert TOKEN[4:] not in said


def test_severity_size_and_codes(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scanned(capsys, str(tree / "src" / "b.ini"), "--severity", "high") == (0, [])
    assert scanned(capsys, str(tree / "src" / "a.py"), "--max-size", "10B") == (0, [])
    (tree / "clean").write_text("nothing")
    assert scanned(capsys, str(tree / "clean")) == (0, [])
    assert main(["scan", str(tree / "none")]) == 2
    for words in (["scan"], ["scan", "x", "--severity", "huge"], ["scan", "x", "--max-size", "much"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    assert main(["scan", str(tree), "--redact"]) == 2


def test_what_is_no_file_is_named_and_counts(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", str(tree / "pipe")]) == 2
    assert capsys.readouterr().err == f"chorusctl: {tree / 'pipe'}: not a plain file\n"


@pytest.fixture
def nobody(tree: Path) -> Iterator[list[str]]:
    """How a user runs the command that may not read everything below `tree`."""
    if os.getuid() != 0:
        yield [sys.executable]
        return
    for folder in (tree, *tree.parents):
        mode = folder.stat().st_mode
        if folder.stat().st_uid == os.getuid() and not mode & 0o1:
            folder.chmod(mode | 0o1)
    tree.chmod(0o755)
    yield ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable]


def test_a_folder_and_a_file_of_others_do_not_end_it(tree: Path, nobody: list[str]) -> None:
    closed = tree / "src" / "closed"
    closed.mkdir(mode=0)
    (tree / "src" / "secret").write_text(TOKEN)
    (tree / "src" / "secret").chmod(0)
    (tree / "gone").symlink_to(tree / "nowhere")
    command = [*nobody, "-m", "chorus.ctl", "scan", "--json"]
    for where, code, count in ((tree, 3, 3), (closed, 2, 0), (tree / "src" / "secret", 2, 0)):
        done = subprocess.run([*command, str(where)], capture_output=True, check=False, cwd="/")
        said = json.loads(done.stdout)
        assert (done.returncode, len(said["findings"])) == (code, count)
        assert all(str(where) in line and "Permission denied" in line for line in said["unread"])
        assert done.stderr.decode() == "".join(f"chorusctl: {line}\n" for line in said["unread"])
    closed.chmod(0o700)
    done = subprocess.run([*command, str(tree / "gone")], capture_output=True, check=False, cwd="/")
    assert done.returncode == 2
    assert b"No such file or directory" in done.stderr


def test_a_stream_is_looked_at_to_a_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = f"{TOKEN}\n{'x' * 1000}".encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    assert main(["scan", "-", "--max-size", "100"]) == 3
    assert "-: only its first 100 bytes were looked at; --max-size takes more" in capsys.readouterr().err


def test_rules_and_exceptions(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules, allow = tree / "rules.yaml", tree / "allow.yaml"
    rules.write_text("rules: [{id: os, pattern: 'import os', keywords: [import], found: [import os]}]")
    allow.write_text(f"allow: [{{literal: {TOKEN}}}, {{path: '**/b.ini', rule: assigned-secret}}]")
    code, found = scanned(capsys, str(tree / "src"), "--rules", str(rules), "--allow", str(allow))
    assert (code, found) == (1, [("a.py", 1, 1, "os")])
    rules.write_text("rules: [{id: os}]")
    assert main(["scan", str(tree), "--rules", str(rules)]) == 2
    assert "rules[0] (os): pattern: missing" in capsys.readouterr().err


def test_what_comes_in_is_redacted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dribble(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            return super().read(7)

    out = io.BytesIO()
    text = f"a {TOKEN} b\n" * 3
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Dribble(text.encode())))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=out, flush=lambda: None))
    assert main(["scan", "--redact", "-"]) == 1
    assert out.getvalue() == b"a [REDACTED:github-token] b\n" * 3


def test_it_works_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chorus.ctl", "scan", "-"],
        input=TOKEN.encode(),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout.startswith(b"-:1:1: github-token (critical) ")
    assert TOKEN.encode() not in done.stdout + done.stderr
