"""What deploy/ says of Swarm, as far as it can be checked without one."""

from __future__ import annotations

import re

import pytest
import yaml

from .conftest import DEPLOY, docker, run

STACK = DEPLOY / "swarm" / "stack.yml"


def test_every_variable_of_the_stack_stands_on_the_page() -> None:
    page = (DEPLOY / "README.md").read_text()
    named = set(re.findall(r"\$\{(\w+)", STACK.read_text()))
    assert named
    assert [name for name in sorted(named) if f"`{name}`" not in page] == []


def test_a_replica_has_longer_to_stop_than_its_tasks() -> None:
    replica = yaml.safe_load(STACK.read_text())["services"]["chorus-agent"]
    assert replica["environment"]["CHORUS_SHUTDOWN_TIMEOUT"] == "300s"
    assert replica["stop_grace_period"] == "6m30s"


def test_the_key_of_a_model_is_one_secret_more() -> None:
    if run("docker", "stack", "config", "--help", check=False).returncode:
        pytest.skip("this docker command merges no stack files")
    words = ("-c", str(STACK), "-c", str(DEPLOY / "swarm" / "resetdata.yml"))
    merged = yaml.safe_load(run("docker", "stack", "config", *words, DOCKER_GID="1").stdout)
    replica = merged["services"]["chorus-agent"]
    assert {secret["source"] for secret in replica["secrets"]} == {
        "license-id", "cluster-secret", "api-token", "resetdata-api-key",
    }  # fmt: skip
    assert replica["environment"]["RESETDATA_API_KEY_FILE"] == "/run/secrets/resetdata-api-key"
    assert replica["environment"]["CHORUS_AI_PROVIDER"] == "resetdata"


def test_without_the_group_of_the_sockets_nothing_is_deployed() -> None:
    if run("docker", "stack", "config", "--help", check=False).returncode:
        pytest.skip("this docker command merges no stack files")
    # A hyphen in the message would make a default of what follows it.
    said = docker("stack", "config", "-c", str(STACK), check=False)
    assert "set it to the group that owns /var/run/docker.sock on the workers, as a number" in said
    assert "services:" not in said
