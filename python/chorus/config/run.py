"""The resolved settings on their way from the parent to the processes: `settings.json` in the run directory.

The one place where secrets are written in the clear, in a file that only the agent's user can read.
"""

from __future__ import annotations

import json
from pathlib import Path

from chorus.config.files import write_private
from chorus.config.model import Paths, Settings


def save_run_settings(settings: Settings) -> None:
    """Writes the settings for the processes, replacing older ones in one step."""
    content = settings.model_dump(mode="json")
    content["cluster_secret"] = settings.cluster_secret.get_secret_value().hex()
    content["api_token"] = settings.api_token.get_secret_value()
    content["ai"]["resetdata_api_key"] = settings.ai.resetdata_api_key.get_secret_value()
    write_private(settings.paths.settings_json, json.dumps(content))


def load_run_settings(run_dir: Path) -> Settings:
    """Reads what the parent wrote into this run directory."""
    content = json.loads(Paths(run_dir, run_dir).settings_json.read_bytes())
    content["cluster_secret"] = bytes.fromhex(content["cluster_secret"])
    return Settings.model_validate(content)
