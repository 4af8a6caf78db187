"""Completion for shells, generated from the parser, so that it cannot lag behind."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Final

SHELLS: Final = ("bash", "zsh", "fish")


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """What to source: `source <(chorusctl completion bash)`."""
    commands = _commands(parser)
    if shell == "fish":
        return _fish(commands)
    body = _bash(commands)
    return (
        f"#compdef chorusctl\nautoload -U +X bashcompinit && bashcompinit\n{body}" if shell == "zsh" else body
    )


def _commands(parser: argparse.ArgumentParser) -> dict[str, tuple[str, list[str]]]:
    """Each command with its help and the words that may follow it."""
    found: dict[str, tuple[str, list[str]]] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, sub in action.choices.items():
                found[name] = (helps.get(name, ""), list(dict.fromkeys(_words(sub))))
    return found


def _words(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A command's options, and its verbs with theirs."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for verb, sub in action.choices.items():
                yield verb
                yield from _words(sub)


def _bash(commands: dict[str, tuple[str, list[str]]]) -> str:
    cases = "\n".join(
        f'    {name}) words="{" ".join(options)}" ;;' for name, (_, options) in commands.items()
    )
    return f"""_chorusctl() {{
  local words current="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{" ".join(commands)}" -- "$current"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _chorusctl chorusctl
"""


def _fish(commands: dict[str, tuple[str, list[str]]]) -> str:
    lines = []
    for name, (text, options) in commands.items():
        said = text.replace("'", "\\'")
        lines.append(f"complete -c chorusctl -n __fish_use_subcommand -f -a {name} -d '{said}'")
        for option in options:
            after = f"complete -c chorusctl -n '__fish_seen_subcommand_from {name}'"
            if option.startswith("--"):
                lines.append(f"{after} -l {option[2:]}")
            elif not option.startswith("-"):
                lines.append(f"{after} -f -a {option}")
    return "\n".join(lines) + "\n"
