"""What peers may ask an executor's output service has one answer, whatever it says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chorus.executor.output_service import OutputService
from chorus.testing.anything import OBJECTS, VALUES, ask, examples
from chorus.wire.ids import new_id

TASK = new_id()


def test_requests_of_any_content_are_answered(tmp_path: Path) -> None:
    (tmp_path / TASK / "1").mkdir(parents=True)
    output = OutputService(tmp_path, lambda *_: None, lambda *_: True, lambda _: True)
    # Half of the cases reach an attempt that there is.
    attempts = st.builds(lambda more: {**more, "task_id": TASK, "attempt": 1}, st.dictionaries(
        st.sampled_from(["after", "follow", "stream", "path"]), VALUES, max_size=4
    ))  # fmt: skip
    with asyncio.Runner() as runner:

        @examples
        @given(
            st.sampled_from(["artifacts", "events", "logs", "artifact", "nonsense"]),
            attempts | OBJECTS | VALUES,
            st.binary(max_size=40),
        )
        def run(method: str, head: Any, body: bytes) -> None:
            runner.run(ask(output.handle, output.stream, method, head, body))

        run()
