"""The generated supervisord configuration, read back with supervisord's own parser."""

from __future__ import annotations

from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from chorus.agent.programs import Program, programs_of, stop_seconds, supervisord_conf
from chorus.config import Paths

WITHOUT_MODELS = programs_of("none")
PROGRAMS = programs_of("ollama")


def parsed(tmp_path: Path, programs: tuple[Program, ...] = PROGRAMS) -> ServerOptions:
    run = tmp_path / 'a run "dir" with %s'
    run.mkdir()
    paths = Paths(tmp_path, run)
    text = supervisord_conf(programs, paths, run / "events.3", "pass", as_root=False)
    paths.supervisord_conf.write_text(text)
    options = ServerOptions()
    options.realize(["-c", str(paths.supervisord_conf)])
    return options


def test_every_program_is_there_and_writes_to_the_one_log(tmp_path: Path) -> None:
    options = parsed(tmp_path)
    groups = {group.name: group.process_configs[0] for group in options.process_group_configs}
    assert groups.keys() == {"watcher", "node", "election", "coordinator", "executor", "mind", "api"}
    for name in ("node", "election", "coordinator", "executor", "mind", "api"):
        config = groups[name]
        assert config.command.endswith(f'"chorus.{name}"')
        assert config.stdout_logfile == "/dev/stderr"


def test_work_stops_before_the_node_and_http_last(tmp_path: Path) -> None:
    options = parsed(tmp_path)
    order = [group.name for group in sorted(options.process_group_configs, key=lambda group: -group.priority)]
    assert order == ["executor", "mind", "coordinator", "election", "node", "api", "watcher"]


def test_an_agent_without_a_provider_has_no_process_for_models() -> None:
    assert set(PROGRAMS) - set(WITHOUT_MODELS) == {program for program in PROGRAMS if program.name == "mind"}
    assert "mind" not in {program.name for program in WITHOUT_MODELS}


def test_no_program_is_called_like_the_parent() -> None:
    assert all("chorus-agent" not in word for program in PROGRAMS for word in program.command)


# What deploy's files add to CHORUS_SHUTDOWN_TIMEOUT, without the parent's own slack.
@pytest.mark.parametrize("grace", [80])
def test_all_stops_together_leave_room_in_a_grace_period(grace: int) -> None:
    assert stop_seconds(PROGRAMS) <= grace
