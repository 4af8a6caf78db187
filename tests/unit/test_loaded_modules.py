"""What each process does not load or make when it begins, as it would take memory in every agent for
nothing.
"""

from __future__ import annotations

import subprocess
import sys

import pytest


def test_supervisord_has_no_event_loop() -> None:
    loaded = "import sys, chorus.agent.leash, supervisor.supervisord; print('asyncio' in sys.modules)"
    command = [sys.executable, "-c", loaded]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout == "False\n"


READY = """
import importlib, sys
importlib.import_module(sys.argv[1])
from pydantic import BaseModel

# Every process reads these when it begins.
READ = ("chorus.config.", "chorus.process.")

def below(schema):
    for one in schema.__subclasses__():
        yield one
        yield from below(one)

found = [one for one in below(BaseModel) if one.__module__.startswith("chorus.")]
assert found
ready = [one for one in found if one.__pydantic_complete__ and not one.__module__.startswith(READ)]
print(*(f"{one.__module__}.{one.__name__}" for one in ready))
for one in found:
    one.model_rebuild()
"""


@pytest.mark.parametrize(
    "module", ["chorus.election.service", "chorus.coordinator.service", "chorus.executor.service"]
)
def test_the_checks_of_schemas_are_made_when_they_are_needed(module: str) -> None:
    command = [sys.executable, "-c", READY, module]
    ready = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert ready == []
