"""The tools of a goal in its sandbox. What they say to the model has no secrets in it, and is bounded."""

from __future__ import annotations

import asyncio
import posixpath
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Final

from chorus.archives.clean import from_files
from chorus.executor import redaction
from chorus.executor.backend import GroupEnd, OutputSink, Sandbox
from chorus.executor.goal import texts
from chorus.executor.redaction import StreamRedactor
from chorus.wire.counts import counted

NAMES: Final = ("run", "read", "write", "edit", "list", "search")
# Of a command that names none.
RUN_TIMEOUT_S: Final = 300.0
# Of the other tools, which are commands too.
_TOOL_TIMEOUT_S: Final = 30.0
# For the files that changed; and how far the clock of a file system is behind.
_LOOK_TIMEOUT_S: Final = 5.0
_TICK_S: Final = 0.02
# A file that is edited is held in memory a few times.
_EDIT_BYTES_MAX: Final = 8 * 1024 * 1024
_VIEW_BYTES_MAX: Final = 256 * 1024
_PATH_BYTES_MAX: Final = 4096
# Whole outputs that stay in files of the sandbox, the newest.
_FILES_BYTES_MAX: Final = 128 * 1024 * 1024
_LISTED_MAX: Final = 1000
# A written text that is shorter travels in its command, whose words the kernel limits to 128 KiB each.
_SAID_CHARS_MAX: Final = 24 * 1024
# What a longer one travels in.
_ARRIVING: Final = "/tmp/.chorus/text"


class Wrong(Exception):
    """A call that cannot be done as it was asked; the message is for the model."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call; `text` is what the model is shown."""

    ok: bool
    text: str
    duration_s: float = 0.0
    exit_code: int | None = None
    timed_out: bool = False

    def head(self) -> dict[str, Any]:
        """All but the text."""
        head: dict[str, Any] = {"ok": self.ok, "duration_s": round(self.duration_s, 3)}
        if self.exit_code is not None:
            head["exit_code"] = self.exit_code
        if self.timed_out:
            head["timed_out"] = True
        return head


class Tools:
    """One sandbox's. `left_s` is the task's time that is left; `sink` gets what commands write, live."""

    def __init__(
        self,
        sandbox: Sandbox,
        workdir: str,
        scratch: Path,
        redactor: StreamRedactor,
        left_s: Callable[[], float],
        sink: OutputSink | None = None,
        stdin: str = "/dev/null",
    ) -> None:
        self._sandbox = sandbox
        self._workdir = workdir
        self._scratch = scratch
        self._redactor = redactor
        self.left_s = left_s
        self._sink = sink
        self._stdin = stdin
        self._number = 0
        self._short: list[str] = []
        self._kept: list[tuple[str, int]] = []

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Outcome:
        """Does one call. Raises SandboxGone, SandboxLost, BackendUnavailable."""
        begun = time.monotonic()
        try:
            match tool:
                case "run":
                    return await self._run(arguments)
                case "read":
                    text = await self._read(arguments)
                case "write":
                    text = await self._write(arguments)
                case "edit":
                    text = await self._edit(arguments)
                case "list":
                    text = await self._list(arguments)
                case "search":
                    text = await self._search(arguments)
                case _:
                    raise Wrong(f"there is no tool {tool!r}")
        except Wrong as wrong:
            return Outcome(False, texts.bounded(self._clean(str(wrong))), time.monotonic() - begun)
        return Outcome(True, text, time.monotonic() - begun)

    async def run(self, command: str, timeout_s: float, workdir: str | None = None) -> Outcome:
        """A command, whose output is shown as it comes. Raises SandboxGone, SandboxLost."""
        kept = texts.HeadAndTail()
        redactor = self._redactor.again()
        number, sink, taken = self._number + 1, self._sink, 0

        def take(data: bytes) -> None:
            nonlocal taken
            taken += len(data)
            kept.add(redactor.push(data))
            if sink is not None:
                sink.write("stdout", number, data)

        end = await self._group(command, take, timeout_s, workdir or self._workdir, self._stdin)
        kept.add(redactor.finish())
        if sink is not None:
            await asyncio.to_thread(sink.end, number)
        text, whole = kept.text("" if end.cut else end.file, max(0, end.size - taken))
        await self._forget(end, keep=not whole and not end.cut)
        notes = []
        if end.timed_out:
            notes.append(f"killed after {timeout_s:g} s, its time limit; what it left running was killed too")
        if end.cut:
            notes.append("killed, because it wrote more than 64 MiB; write less, or into a file")
        if end.note:
            notes.append(end.note)
        for note in notes:
            text += f"{'' if not text or text.endswith(chr(10)) else chr(10)}[{note}]"
        return Outcome(end.exit_code == 0, text, end.duration_s, end.exit_code, end.timed_out)

    def below_workspace(self, path: str) -> str:
        """A path as it is called from the workspace on."""
        return posixpath.relpath(posixpath.normpath(posixpath.join(self._workdir, path)), "/workspace")

    async def changed_since(self, moment: float | None) -> tuple[float, list[str]]:
        """The time in the sandbox, in seconds since 1970, and files of the workspace that changed since
        `moment`, an earlier answer's time; none for None, and not all where there are thousands.

        Raises Wrong, ValueError, SandboxGone, SandboxLost.
        """
        # What was put there just now is no change: its time may be that of the same tick.
        command = f"sleep {_TICK_S}; date +%s.%N" if moment is None else "date +%s.%N"
        if moment is not None:
            # The time of a change, which no command sets: that of the content is often an old one.
            command += (
                "; cd /workspace && find . -name .git -prune -o ! -type d "
                f"-newerct @{moment - _TICK_S:.3f} -printf '%P\\0' 2>/dev/null | head -c {_VIEW_BYTES_MAX}"
            )
        data = await self._quiet(command, _VIEW_BYTES_MAX + 1024, _LOOK_TIMEOUT_S)
        now, _, found = data.partition(b"\n")
        # What follows the last zero is no whole path.
        paths = [path.decode("utf-8", "replace") for path in found.split(b"\0")[:-1]]
        return float(now), paths

    # ---- one tool each -----------------------------------------------------------------------------

    async def _run(self, arguments: Mapping[str, Any]) -> Outcome:
        command = _text(arguments, "command")
        _check_unmarked(command)
        asked = arguments.get("timeout_s")
        if asked is not None and not (type(asked) in (int, float) and asked > 0):
            raise Wrong("timeout_s: a number of seconds above 0 is needed")
        workdir = self._path(arguments, "workdir") if arguments.get("workdir") else self._workdir
        limit = max(0.1, min(RUN_TIMEOUT_S if asked is None else float(asked), self.left_s()))
        return await self.run(command, limit, workdir)

    async def _read(self, arguments: Mapping[str, Any]) -> str:
        path, shown = self._path(arguments), quote(self._path(arguments))
        first = _line(arguments, "first") or 1
        last = _line(arguments, "last")
        if last is not None and last < first:
            raise Wrong("last is before first")
        count = f"| head -n {last - first + 1}" if last is not None else ""
        command = (
            f"{_is_file(shown)} wc -lc < {shown}; tail -c 1 {shown} | wc -l; "
            f"tail -n +{first} -- {shown} {count} | head -c {_VIEW_BYTES_MAX}"
        )
        data = await self._quiet(command, _VIEW_BYTES_MAX + 1024)
        counts, ends_whole, content = data.split(b"\n", 2)
        lines, size = (int(word) for word in counts.split())
        lines += int(ends_whole == b"0" and size > 0)
        if b"\0" in content:
            raise Wrong(f"{path} is a binary file of {counted(size, 'byte')}; use run to look into it")
        if first > max(lines, 1):
            raise Wrong(f"{path} has {counted(lines, 'line')}")
        return texts.numbered(
            self._clean(content.decode("utf-8", "replace")), first, min(lines, last or lines)
        )

    async def _write(self, arguments: Mapping[str, Any]) -> str:
        path, text = self._path(arguments), _text(arguments, "text", empty=True)
        _check_unmarked(text)
        await self._put(path, text.encode("utf-8", "surrogateescape"))
        return f"{path} was written: {counted(len(text.splitlines()), 'line')}"

    async def _edit(self, arguments: Mapping[str, Any]) -> str:
        path, shown = self._path(arguments), quote(self._path(arguments))
        old, new = _text(arguments, "old", empty=True), _text(arguments, "new", empty=True)
        _check_unmarked(new)
        if mark := texts.holds_mark(old):
            raise Wrong(f"the old text holds {mark}, which stands for a secret; give a passage without it")
        data = await self._quiet(
            f"{_is_file(shown)} head -c {_EDIT_BYTES_MAX + 1} -- {shown}", _EDIT_BYTES_MAX + 1
        )
        if len(data) > _EDIT_BYTES_MAX:
            raise Wrong(f"{path} has more than {_EDIT_BYTES_MAX >> 20} MiB; use run to change it")
        try:
            content = data.decode()
        except UnicodeDecodeError:
            raise Wrong(f"{path} is no UTF-8 text; use run to change it") from None
        try:
            changed = await asyncio.to_thread(texts.edited, content, old, new)
        except texts.EditRefused as refused:
            raise Wrong(f"{path}: {refused}") from None
        await self._put(path, changed.encode())
        return f"{path} was changed"

    async def _list(self, arguments: Mapping[str, Any]) -> str:
        path = self._path(arguments) if arguments.get("path") else self._workdir
        shown = quote(path)
        command = (
            f"[ -d {shown} ] || {{ echo no such folder; exit 1; }}; cd -- {shown} && "
            "find . -mindepth 1 -maxdepth 2 \\( -path './.git/*' -prune -o "
            "-type d -printf '%P/\\n' -o -type l -printf '%P -> %l\\n' -o -printf '%P (%s bytes)\\n' \\) "
            f"| LC_ALL=C sort | head -n {_LISTED_MAX + 1}"
        )
        lines = self._clean((await self._quiet(command, _VIEW_BYTES_MAX)).decode("utf-8", "replace"))
        listed = lines.splitlines()
        if not listed:
            return f"[{path} is empty]"
        more = ["[there are more; list a folder below]"] if len(listed) > _LISTED_MAX else []
        return texts.bounded("\n".join([*listed[:_LISTED_MAX], *more]))

    async def _search(self, arguments: Mapping[str, Any]) -> str:
        pattern = _text(arguments, "pattern")
        path = self._path(arguments) if arguments.get("path") else self._workdir
        kind = "-E" if arguments.get("regex") is True else "-F"
        if "\n" in pattern:
            raise Wrong("the pattern has more than one line; search for one of them")
        # Paths are shown from the working folder on.
        below = posixpath.relpath(path, self._workdir) if path.startswith(self._workdir) else path
        command = (
            f"[ -e {quote(path)} ] || {{ echo no such file or folder; exit 2; }}; "
            f"cd -- {quote(self._workdir)}; "
            f"grep -rnHI {kind} --exclude-dir=.git -e {quote(pattern)} -- {quote(below)}"
        )
        kept, end = await self._collect(command, _VIEW_BYTES_MAX)
        said = self._clean(kept.decode("utf-8", "replace"))
        if end.timed_out:
            raise Wrong(f"the search took more than {_TOOL_TIMEOUT_S:g} s; search in a folder below")
        if end.exit_code == 1 and not said:
            return "[no match]"
        # Some files could not be read, and others matched: what matched counts.
        if end.exit_code > 1 and (not said or said.startswith("grep:") or "\n" not in said.strip()):
            what = "the pattern is no regular expression that grep takes" if kind == "-E" else "it failed"
            raise Wrong(f"{what}: {said.strip()}" if said.startswith("grep:") else said.strip() or what)
        lines = "\n".join(line.removeprefix("./") for line in said.splitlines())
        return texts.matches(lines, end.size > len(kept))

    # ---- the sandbox -------------------------------------------------------------------------------

    async def _put(self, path: str, data: bytes) -> None:
        """Writes a file, keeping the mode of one that is there."""
        folder, shown = quote(posixpath.dirname(path)), quote(path)
        place = (
            f"[ ! -d {shown} ] || {{ echo {shown} is a folder; exit 1; }}; "
            f"[ -d {folder} ] || mkdir -p -- {folder} && "
        )
        text = quote(data.decode("utf-8", "surrogateescape"))
        if len(text) <= _SAID_CHARS_MAX:
            # Without another program: this is most of what an edit costs.
            await self._quiet(f"{place}printf %s {text} > {shown}", _VIEW_BYTES_MAX)
            return
        packed = self._scratch / "text.tar"
        await asyncio.to_thread(_pack, packed, data)
        await self._sandbox.put(packed, "/tmp")
        command = f"{place}cat {_ARRIVING} > {shown}; code=$?; rm -f {_ARRIVING}; exit $code"
        await self._quiet(command, _VIEW_BYTES_MAX)

    async def _quiet(self, command: str, bytes_max: int, timeout_s: float = _TOOL_TIMEOUT_S) -> bytes:
        """What a command of ours writes. Raises Wrong with its words when it fails."""
        data, end = await self._collect(command, bytes_max, timeout_s)
        if end.timed_out:
            raise Wrong(f"it took more than {timeout_s:g} s")
        if end.exit_code != 0:
            said = data.decode("utf-8", "replace").strip()
            raise Wrong("; ".join(part for part in (said, end.note) if part) or "it failed")
        return data

    async def _collect(
        self, command: str, bytes_max: int, timeout_s: float = _TOOL_TIMEOUT_S
    ) -> tuple[bytes, GroupEnd]:
        data = bytearray()

        def take(piece: bytes) -> None:
            data.extend(piece[: max(0, bytes_max - len(data))])

        limit = max(0.1, min(timeout_s, self.left_s()))
        end = await self._group(command, take, limit, "/workspace", "/dev/null")
        await self._forget(end, keep=False)
        return bytes(data), end

    async def _group(
        self, command: str, take: Callable[[bytes], None], limit: float, workdir: str, stdin: str
    ) -> GroupEnd:
        self._number += 1
        return await self._sandbox.run_group(
            self._number, command, take, timeout_s=limit, workdir=workdir, stdin=stdin
        )

    async def _forget(self, end: GroupEnd, keep: bool) -> None:
        """Files with outputs that nobody was told of go, a few at once; of the others the newest stay."""
        if keep:
            self._kept.append((end.file, end.size))
            while sum(size for _, size in self._kept) > _FILES_BYTES_MAX:
                self._short.append(self._kept.pop(0)[0])
        elif end.size:
            self._short.append(end.file)
        if len(self._short) >= 16 or end.cut:
            gone, self._short = self._short, []
            await self._sandbox.forget(gone)

    def _path(self, arguments: Mapping[str, Any], name: str = "path") -> str:
        path = _text(arguments, name)
        if len(path.encode("utf-8", "surrogatepass")) > _PATH_BYTES_MAX:
            raise Wrong(f"{name}: a path has at most {_PATH_BYTES_MAX} bytes")
        _check_unmarked(path)
        return posixpath.normpath(posixpath.join(self._workdir, path))

    def _clean(self, text: str) -> str:
        return redaction.cut_text(text, self._redactor)


def _pack(into: Path, data: bytes) -> None:
    into.parent.mkdir(parents=True, exist_ok=True)
    from_files({_ARRIVING.removeprefix("/tmp/"): data}, into)


def _is_file(shown: str) -> str:
    return (
        f"[ ! -d {shown} ] || {{ echo 'a folder, no file, use list'; exit 1; }}; "
        f"[ -f {shown} ] || {{ echo 'no such file'; exit 1; }}; "
        f"[ -r {shown} ] || {{ echo 'it may not be read'; exit 1; }};"
    )


def _text(arguments: Mapping[str, Any], name: str, *, empty: bool = False) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not (value or empty):
        raise Wrong(f"{name}: a text is needed")
    if "\0" in value:
        raise Wrong(f"{name}: a zero byte is not allowed")
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Wrong(f"{name}: it holds half of a surrogate pair") from None
    return value


def _line(arguments: Mapping[str, Any], name: str) -> int | None:
    value = arguments.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise Wrong(f"{name}: a line number from 1 on is needed")
    return value


def _check_unmarked(text: str) -> None:
    if mark := texts.holds_mark(text):
        raise Wrong(
            f"it holds {mark}, which stands for a secret that was cut out: written back, the secret would be "
            "lost. Change the lines around it, or take the value from the environment in a command"
        )
