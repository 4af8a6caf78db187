"""The manual's page about settings, out of their declarations.

python -m chorus.config.manual > docs/configuration.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from chorus.config.groups.assignment import Assignment
from chorus.config.setting import Group, Setting, declared
from chorus.config.variables import GROUPS

_HEAD: Final = """\
# Settings

<!-- Made from the declarations in python/chorus/config/groups by `python -m chorus.config.manual`. -->

An agent takes its settings from the environment. They are checked at the start, all mistakes are reported
together, and each names the variable and the form that is expected. An empty value counts as unset. Before
an agent is started,

```
chorusctl config check [--env-file FILE]
chorusctl config show [--env-file FILE] [--json]
```

tell what is wrong with an environment, and the value that each setting would have. `check` exits with 0 when
all is well and with 1 when an agent would not start; 2 means that the file cannot be read. `show` says where
each value comes from (`environment`, `file`, `assignment`, `licence`, `default`) and masks secrets. The file
has `NAME=VALUE` lines, as `docker run --env-file` takes them.

Sizes are written `100MB` or `2GB` (a kilobyte has 1024 bytes), durations `500ms`, `30s`, `5m`, `1h30m`,
switches `true` or `false`. A setting marked *secret* may also come from a file that `NAME_FILE` names, as
Docker's secrets do: text, of which one newline at the end is cut. Secrets are shown nowhere, and no process
of the agent finds them in its environment.
"""
_LIVE: Final = "These alone may change while the agent runs; all other settings stand from its start.\n"


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_section(group) for group in GROUPS)


def _section(group: type[Group]) -> str:
    rows = "".join(_row(setting) for _, setting in declared(group))
    live = f"\n{_LIVE}" if group is Assignment else ""
    return f"\n## {group.title}\n{live}\n| variable | default | form | meaning |\n|---|---|---|---|\n{rows}"


def _row(setting: Setting) -> str:
    default = setting.otherwise or (f"`{setting.default}`" if setting.default else "")
    meaning = " ".join([setting.help, *_marks(setting)])
    return f"| `{setting.name}` | {default} | {_cell(setting.form)} | {meaning} |\n"


def _marks(setting: Setting) -> Iterator[str]:
    if setting.secret:
        yield "*secret*"
    if setting.later:
        yield "*no effect in this version*"


def _cell(form: str) -> str:
    # What looks like a tag or markup to Markdown stands as it is.
    return form.replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_")


if __name__ == "__main__":
    print(page(), end="")
