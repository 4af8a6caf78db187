"""The live view of a goal's run on a terminal: coloured lines, and below them what is going on now.

All text is made visible first and never read as markup, so that no text of others controls the terminal.
"""

from __future__ import annotations

import time
from typing import Any, Final, Self

from rich.console import Console
from rich.live import Live as RichLive
from rich.spinner import Spinner
from rich.text import Text

from chorus.ctl.display import Lines
from chorus.ctl.story import Kind, Line
from chorus.wire.visible import visible

REFRESHES_PER_S: Final = 4
_STYLES: Final[dict[Kind, str]] = {
    "state": "bold",
    "plan": "",
    "talk": "cyan",
    "call": "bold",
    "output": "dim",
    "good": "green",
    "bad": "red",
    "note": "dim",
}


class Live(Lines):
    """Lines above one that says state, agent, steps, tokens, money and time."""

    def __init__(self, task: dict[str, Any], console: Console | None = None) -> None:
        super().__init__()
        self._console = console or Console(highlight=False, markup=False, emoji=False)
        budget = task.get("budget")
        self._steps = budget.get("steps") if isinstance(budget, dict) else None
        self._began = time.monotonic()
        self._spinner = Spinner("dots")
        self._live = RichLive(
            get_renderable=self._now,
            console=self._console,
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _print(self, line: Line) -> None:
        self._console.print(Text(visible(line.text), style=_STYLES[line.kind]))

    def _now(self) -> Spinner:
        self._spinner.update(text=Text(visible(self.status()), style="dim"))
        return self._spinner

    def status(self) -> str:
        """What is going on now, in one line."""
        used = self.used
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        said = [f"{used.state}{f' on {used.agent}' if used.agent else ''}"]
        if used.steps:
            said.append(f"step {used.steps}{f' of {self._steps}' if self._steps else ''}")
        if used.tokens:
            said.append(f"{used.tokens:,} tokens")
        if used.usd:
            said.append(f"${used.usd:.4f}")
        return " · ".join([*said, f"{minutes}:{seconds:02}", "Ctrl-C cancels"])
