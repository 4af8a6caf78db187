"""The planets, from the file beside this one."""

import json
from pathlib import Path

PLANETS = json.loads((Path(__file__).parent / "planets.json").read_text())


def moons(name):
    """How many moons the planet has."""
    return PLANETS[name]["moons"]
