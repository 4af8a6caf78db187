"""The core's own log lines: in the node process's stream in the form of all others, and with a library user's
logging.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chorus.config.load import load_settings
from chorus.config.run import save_run_settings
from chorus.core import CoreError, core_lines
from chorus.hub import Hub
from chorus.process.log_kinds import KIND_LINES_MAX

from .conftest import PATIENCE_S, StartNode

SECRET = "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
# An EVENT, which only the hub may send.
BAD_FRAME = bytes.fromhex("00000009 04 00000001 00000000")
BAD_CONNECTION = "the hub closed a connection: bad frame"


async def send_bad_frame(hub: Path, name: str) -> None:
    """Says hello as `name`, breaks the rules, and returns when the hub has closed the connection."""
    reader, writer = await asyncio.open_unix_connection(str(hub))
    head = json.dumps({"m": "hello", "name": name}).encode()
    writer.write((9 + len(head)).to_bytes(4) + b"\x01" + (1).to_bytes(4) + len(head).to_bytes(4) + head)
    writer.write(BAD_FRAME)
    await reader.read()
    writer.close()


class NodeProcess:
    """The node process alone, without its siblings, and what it writes."""

    def __init__(self, hub: Path, process: asyncio.subprocess.Process) -> None:
        self.hub = hub
        self.process = process

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            yield json.loads(line)

    async def line(self, event: str) -> dict[str, Any]:
        async for line in self.lines():
            if line["event"] == event:
                return line
        raise AssertionError(f"the node ended without: {event}")


@pytest.fixture
async def node(short_dir: Path) -> AsyncIterator[NodeProcess]:
    settings = load_settings(
        {
            "CHORUS_LICENSE_ID": "dev-lines",
            "CHORUS_AGENT_ID": "agent-1",
            "CHORUS_DATA_DIR": str(short_dir / "data"),
            "CHORUS_RUN_DIR": str(short_dir),
            "CHORUS_P2P_PORT": "0",
            "CHORUS_MDNS_ENABLED": "false",
        }
    )
    save_run_settings(settings)
    alive = short_dir / "alive"
    os.mkfifo(alive)
    parent = os.open(alive, os.O_RDWR | os.O_CLOEXEC)
    environ = {**os.environ, "CHORUS_RUN_DIR": str(short_dir), "CHORUS_ALIVE": str(alive)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chorus.node", env=environ, stderr=asyncio.subprocess.PIPE
    )
    yield NodeProcess(settings.paths.hub_socket, process)
    os.close(parent)
    await process.wait()


async def test_a_line_of_the_core_is_a_line_of_its_process_without_secrets(node: NodeProcess) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await node.line("core started")
        await send_bad_frame(node.hub, SECRET)
        line = await node.line(BAD_CONNECTION)
        assert line["level"] == "warning"
        assert (line["process"], line["agent_id"]) == ("node", "agent-1")
        assert line["target"] == "chorus_core::hub::server"
        assert line["reason"] == "events come from the hub only"
        assert line["client"].startswith("[REDACTED:")
        node.process.terminate()
        # Every line parses, to the last one.
        assert [line["event"] async for line in node.lines()][-1] == "stopped"
        assert await node.process.wait() == 0


async def test_a_flood_of_lines_neither_stops_the_hub_nor_fills_the_log(node: NodeProcess) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await node.line("core started")
        # Nobody reads what the node writes meanwhile.
        count = 5000
        async with await Hub.connect(node.hub, "witness") as witness:
            for _ in range(count):
                await send_bad_frame(node.hub, "x" * 60)
            stats = await witness.stats()
            assert stats["hub_bad_connections"] == count
        node.process.terminate()
        seen = 0
        async for line in node.lines():
            seen += line["event"] == BAD_CONNECTION
        # The rest is counted in a line when the minute is over.
        assert seen == KIND_LINES_MAX


async def test_library_users_get_lines_through_logging(
    start_node: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    node = await start_node()
    caplog.set_level(logging.DEBUG, logger="chorus")
    logged = asyncio.Event()
    caplog.handler.addFilter(lambda record: logged.set() or True)
    async with asyncio.timeout(PATIENCE_S):
        await send_bad_frame(node.hub_path, "unheard")
        with core_lines("warning"):
            with pytest.raises(CoreError) as second, core_lines():
                pass
            assert second.value.code == "refused"
            await send_bad_frame(node.hub_path, "first")
            await logged.wait()
            await send_bad_frame(node.hub_path, "second")
        await send_bad_frame(node.hub_path, "unheard")
    records = [record for record in caplog.records if record.name == "chorus.core"]
    assert [record.fields["client"] for record in records] == ["first", "second"]  # type: ignore[attr-defined]
    assert {(record.levelname, record.getMessage()) for record in records} == {("WARNING", BAD_CONNECTION)}


def test_a_forked_child_is_refused_and_does_not_hang() -> None:
    async def main() -> int:
        with core_lines("debug"):
            child = os.fork()
            if child == 0:
                try:
                    with core_lines("debug"):
                        os._exit(1)
                except CoreError as error:
                    os._exit(0 if error.code == "refused" else 2)
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            return os.waitstatus_to_exitcode(status)

    assert asyncio.run(main()) == 0
