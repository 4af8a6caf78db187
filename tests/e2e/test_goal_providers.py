"""A goal through each way to a model: without tools, on OpenAI's wire, and by a second provider."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus.dev import ModelServer, policy
from goals.repositories import REPOSITORIES

from .goal_runs import SCRIPTS, mends, with_model

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]


def test_a_model_without_tools_works_through_text(needs: None, tmp_path: Path) -> None:
    repository = REPOSITORIES["mode_bit"]
    with with_model(1, calls_tools=False) as runs:
        run = runs.reach(repository)
        assert run.state == "completed", run.task["result"]
        assert {record["tool"] for record in run.of_kind("call")} == {"run", "finish"}
        assert mends(run.patch(), repository, tmp_path / "work")


def test_a_server_with_the_api_of_openai(needs: None, tmp_path: Path) -> None:
    repository = REPOSITORIES["off_by_one"]
    with ModelServer(policy("oracle", SCRIPTS)) as server:
        settings = {
            "CHORUS_AI_PROVIDER": "resetdata",
            "RESETDATA_BASE_URL": f"{server.url}/v1",
            "RESETDATA_API_KEY": "a-key-of-the-test",
            "RESETDATA_MODEL": server.model,
        }
        with with_model(1, **settings) as runs:
            run = runs.reach(repository)
            assert run.state == "completed", run.task["result"]
            assert run.report["provider"] == "resetdata"
            assert mends(run.patch(), repository, tmp_path / "work")
            assert {seen.path for seen in server.seen} == {"/v1/chat/completions"}
            # The other server has a model too, and was not asked.
            assert not runs.model.seen


def test_a_second_provider_goes_on_where_the_first_one_died(needs: None, tmp_path: Path) -> None:
    repository = REPOSITORIES["off_by_one"]
    with ModelServer(policy("oracle", SCRIPTS)) as second:
        settings = {
            "CHORUS_AI_FALLBACK": "resetdata",
            "RESETDATA_BASE_URL": f"{second.url}/v1",
            "RESETDATA_API_KEY": "a-key-of-the-test",
            "RESETDATA_MODEL": second.model,
        }
        with with_model(1, **settings) as runs:
            runs.play("dying")
            run = runs.reach(repository)
            assert run.state == "completed", run.task["result"]
            providers = [record["provider"] for record in run.of_kind("reply")]
            assert providers == ["ollama", *["resetdata"] * (len(providers) - 1)]
            assert [note["kind2"] for note in run.of_kind("note")].count("fallback") == 1
            assert mends(run.patch(), repository, tmp_path / "work")
