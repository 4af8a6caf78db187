"""The sentinel's rule file: YAML that can do no harm, and every mistake in it told at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chorus.config import SettingsError, load_run_settings, save_run_settings
from chorus.config.load import load_settings
from chorus.config.rules import RULES_FILE_MAX_BYTES, RulesError, read_rules

pytest.importorskip("chorus._core", reason="the core is not built: make setup")

DEV = {"CHORUS_LICENSE_ID": "dev-123", "HOME": "/home/someone"}
GOOD = """
rules:
  - id: acme-token
    description: keys of our shop
    pattern: 'acme_[a-z0-9]{16}'
    keywords: [acme_]
    severity: critical
    found: ['acme_q7w8e9r0t1y2u3i4']
    ignored: [acme_short]
allow:
  - path: 'tests/**'
    reason: made up
"""


def problems_of(folder: Path, text: str | bytes) -> list[str]:
    path = folder / "rules.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RulesError) as caught:
        read_rules(path)
    return caught.value.problems


def test_a_good_file_travels_with_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(GOOD)
    environ = {**DEV, "CHORUS_SHHH_RULES_FILE": str(path), "CHORUS_RUN_DIR": str(tmp_path)}
    settings = load_settings(environ)
    assert json.loads(settings.shhh_rules)["rules"][0]["id"] == "acme-token"
    save_run_settings(settings)
    assert load_run_settings(tmp_path).shhh_rules == settings.shhh_rules
    path.write_text("")
    assert load_settings(environ).shhh_rules == "{}"


def test_all_mistakes_are_settings_problems(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(GOOD.replace("critical", "huge").replace("{16}", "{16").replace("acme_q7w8", "x_q7w8"))
    with pytest.raises(SettingsError) as caught:
        load_settings({**DEV, "CHORUS_SHHH_RULES_FILE": str(path), "CHORUS_P2P_PORT": "x"})
    text = "\n".join(caught.value.problems)
    assert "CHORUS_P2P_PORT" in text
    assert f"CHORUS_SHHH_RULES_FILE: {path}: rules[0] (acme-token): severity: " in text
    assert f"CHORUS_SHHH_RULES_FILE: {path}: rules[0] (acme-token): pattern: " in text


def test_samples_are_tried(tmp_path: Path) -> None:
    assert problems_of(tmp_path, GOOD.replace("acme_short", "acme_q7w8e9r0t1y2u3i4")) == [
        "rules[0] (acme-token): ignored[0]: the rule finds a secret in it"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: [", "line 1: not YAML"),
        ("rules: &a [1]\nallow: *a", "line 2: not YAML: aliases are not read"),
        ("rules: []\nrules: []", "line 2: not YAML: 'rules' is given twice"),
        ("[" * 200 + "]" * 200, "nested too deeply"),
        ("rules: !!python/object:os.system {}", "not YAML"),
        ("- 1", "expected `rules:`"),
        ("rules: [{id: 2024-01-01}]", "rules[0] (2024-01-01): pattern: missing"),
        (b"\xff", "not text"),
        (b"#" * (RULES_FILE_MAX_BYTES + 1), "larger than"),
    ],
)
def test_what_is_no_rule_file_is_told_as_such(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in "\n".join(problems_of(tmp_path, text))
