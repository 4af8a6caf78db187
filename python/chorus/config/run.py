"""The resolved settings on their way from the parent to the processes: `settings.json` in the run directory.

The one place where secrets are written in the clear, in a file that only the agent's user can read.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from chorus.config.model import Paths, Settings

PRIVATE_FILE_MODE = 0o600


def save_run_settings(settings: Settings) -> None:
    """Writes the settings for the processes, replacing older ones in one step."""
    content = settings.model_dump(mode="json")
    content["cluster_secret"] = settings.cluster_secret.get_secret_value().hex()
    content["api_token"] = settings.api_token.get_secret_value()
    target = settings.paths.settings_json
    temporary = target.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE_MODE)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(content, file)
    temporary.rename(target)


def load_run_settings(run_dir: Path) -> Settings:
    """Reads what the parent wrote into this run directory."""
    content = json.loads(Paths(run_dir, run_dir).settings_json.read_bytes())
    content["cluster_secret"] = bytes.fromhex(content["cluster_secret"])
    return Settings.model_validate(content)
