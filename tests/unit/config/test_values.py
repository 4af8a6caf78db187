"""Settings as JSON and back: what the parent hands to its processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from chorus.config import AiSettings, Assignment, Settings
from chorus.config.load import load_settings
from chorus.config.masked import SecretData, SecretText
from chorus.config.values import as_json, from_json


def settings() -> Settings:
    return load_settings(
        {
            "CHORUS_LICENSE_ID": "dev-1",
            "CHORUS_DATA_DIR": "/data",
            "CHORUS_API_TOKEN": "a-token-of-many-letters",
            "CHORUS_AGENT_EXPERTISE": "rust,go",
            "CHORUS_ROLE_GRANTS": "qa:developer",
            "CHORUS_AI_PRICES": '{"m": {"in": 3, "out": 15}}',
        }
    )


def test_every_setting_comes_back_as_it_was() -> None:
    known = settings()
    back = from_json(Settings, json.loads(json.dumps(as_json(known, secrets=True))))
    assert back == known
    assert isinstance(back.data_dir, Path)
    assert back.role_grants == (("qa", "developer"),)
    assert back.ai.prices == {"m": (3.0, 15.0)}
    assert (type(back.api_token), type(back.cluster_secret)) == (SecretText, SecretData)


def test_secrets_are_masked_unless_they_are_asked_for() -> None:
    known = settings()
    shown = f"{json.dumps(as_json(known))} {known!r} {known.api_token} {known.cluster_secret}"
    assert "a-token-of-many-letters" not in shown
    assert known.cluster_secret.get_secret_value().hex() not in shown
    for write in (json.dumps, orjson.dumps):
        with pytest.raises(TypeError):
            write({"token": known.api_token})


@pytest.mark.parametrize("group", ["", "assignment", "sandbox", "ai"])
def test_a_value_of_a_wrong_type_is_told_with_its_field(group: str) -> None:
    said = as_json(settings(), secrets=True)
    part = said[group] if group else said
    for name in part:
        right, part[name] = part[name], {"wrong": [None]}
        with pytest.raises(ValueError, match=rf"^{f'{group}: ' if group else ''}{name}: "):
            from_json(Settings, said)
        part[name] = right


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "expected an object"),
        ({"role": 3}, "role: expected str"),
        ({"rol": ""}, "rol: unknown"),
        ({"max_tasks": "3"}, "max_tasks: expected int"),
        ({"max_tasks": True}, "max_tasks: expected int"),
        ({"expertise": "rust"}, r"expertise: expected tuple\[str, ...\]"),
        ({"expertise": [1]}, "expertise: expected str"),
    ],
)
def test_what_is_no_assignment_is_told_with_its_field(said: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        from_json(Assignment, said)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_token", ["a-secret"]),
        ("cluster_secret", "a-secret"),
        ("role_grants", [["a-secret"]]),
        ("license_kind", "a-secret"),
    ],
)
def test_a_value_is_not_repeated_where_it_has_a_wrong_form(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: ") as told:
        from_json(Settings, {**as_json(settings(), secrets=True), name: value})
    assert "a-secret" not in str(told.value)


def test_a_group_without_one_of_its_fields_is_refused() -> None:
    said = as_json(settings().ai)
    del said["provider"], said["context"]
    with pytest.raises(ValueError, match="context, provider: expected a value"):
        from_json(AiSettings, said)
