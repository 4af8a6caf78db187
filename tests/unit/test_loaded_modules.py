"""What each process does not load or make when it begins, as it would take memory in every agent for
nothing.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

LOAD = """
import importlib, sys
importlib.import_module("chorus.process.runner")
importlib.import_module(sys.argv[1])
print(*sorted({name.split(".")[0] for name in sys.modules} & set(sys.argv[2:])))
"""
# Only api answers HTTP, and only the executor has containers.
HTTP = {"fastapi", "starlette", "uvicorn", "httpx"}
DOCKER = {"docker", "requests", "urllib3"}
# 8 MB: only where foreign words are checked by schemas.
SCHEMAS = {"pydantic", "pydantic_core"}
# Only where there is a file, or a licence of KACHING, that asks for it.
RARE = {"yaml", "dulwich", "jwt", "cryptography"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("chorus.agent.service", SCHEMAS | HTTP | DOCKER | RARE | {"prometheus_client", "uvloop"}),
        ("chorus.node.service", SCHEMAS | HTTP | DOCKER | RARE),
        ("chorus.election.service", HTTP | DOCKER | RARE),
        ("chorus.coordinator.service", HTTP | DOCKER | RARE | {"tarfile"}),
        ("chorus.executor.service", HTTP | RARE),
        ("chorus.api.service", DOCKER | RARE),
        ("chorus.mind.service", HTTP | DOCKER | RARE - {"yaml"}),
    ],
)
def test_a_process_does_not_load(module: str, unwanted: set[str]) -> None:
    command = [sys.executable, "-c", LOAD, module, *unwanted]
    loaded = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert loaded == []


READY = """
import importlib, sys
importlib.import_module(sys.argv[1])
from pydantic import BaseModel

def below(schema):
    for one in schema.__subclasses__():
        yield one
        yield from below(one)

found = [one for one in below(BaseModel) if one.__module__.startswith("chorus.")]
assert found
print(*(f"{one.__module__}.{one.__name__}" for one in found if one.__pydantic_complete__))
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
