"""Reads YAML files of other people: plain values only, and bounded work whatever the file holds."""

from __future__ import annotations

from typing import Any

import yaml

# Brackets within brackets; the files that are read so have at most four levels.
DEPTH_MAX = 20


class YamlInvalid(Exception):
    """Why a file is not YAML as it is read here, with the line where that is known."""


def load(content: bytes, *, bytes_max: int) -> Any:
    """The value of a YAML document in UTF-8; None for an empty one. Raises YamlInvalid."""
    if len(content) > bytes_max:
        raise YamlInvalid(f"it is larger than {bytes_max} bytes")
    try:
        return yaml.load(content.decode("utf-8"), _PlainLoader)
    except UnicodeDecodeError:
        raise YamlInvalid("it is not text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise YamlInvalid(f"{where}not YAML: {error.problem}") from None
    except Exception as error:
        # PyYAML answers `!!bool x`, `!!int ""` and the like with whatever its code runs into.
        raise YamlInvalid(f"not YAML: {error or type(error).__name__}") from None


class _PlainLoader(yaml.SafeLoader):
    """No aliases, with which a few lines can mean gigabytes, and no name given twice."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise self._refused("aliases are not read")
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._refused("nested too deeply")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def _refused(self, problem: str) -> yaml.MarkedYAMLError:
        reader: Any = self  # the stubs leave out what it is peeking at
        return yaml.MarkedYAMLError(problem=problem, problem_mark=reader.peek_event().start_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a name is one word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)
