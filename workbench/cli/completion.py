"""``workbench completion``: what a shell needs to complete commands, options, kinds, parts and recipes.

The script holds all names: completing starts no Python. Made anew (as by `eval` in a shell's start file) it knows new
parts and recipes.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SHELLS = ("bash", "zsh", "fish")
OF_KINDS = ("list", "show")
"""Commands whose first word is a kind."""
OF_RECIPES = ("train", "check", "match", "show", "grid", "report", "board", "audit")
"""Commands that take a recipe's file."""


@dataclass(frozen=True)
class Known:
    """Everything that is completed: commands with their help, options by command, parts by kind, recipes."""

    commands: Mapping[str, str]
    options: Mapping[str, Sequence[str]]
    parts: Mapping[str, Sequence[str]]
    recipes: Sequence[str]


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments."""
    parser.add_argument("shell", choices=SHELLS, help='as in: eval "$(workbench completion bash)"')


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    print({"bash": bash, "zsh": zsh, "fish": fish}[args.shell](known()), end="")
    return 0


def known() -> Known:
    """What there is now."""
    from workbench.cli.main import COMMANDS, configured
    from workbench.core.index import scan
    from workbench.core.places import recipes_folder

    options = {}
    for name in COMMANDS:
        actions = configured(name)._actions
        options[name] = [word for action in actions for word in action.option_strings if word.startswith("--")]
    folder = recipes_folder()
    recipes = [path.relative_to(folder) for path in sorted(folder.rglob("*.yaml")) if path.name != "base.yaml"]
    named = [str(Path("recipes") / path) for path in recipes]
    return Known({name: text for name, (_, text) in COMMANDS.items()}, options, scan().names(), named)


def bash(names: Known) -> str:
    """For bash: a function of `case` branches over words that stand in it."""
    return f"""# workbench: completion for bash. In ~/.bashrc: eval "$(workbench completion bash)"
_workbench() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" command="" words="" at i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "${{COMP_WORDS[i]}}" in -*) ;; *) command="${{COMP_WORDS[i]}}"; at=$i; break ;; esac
  done
  if [ -z "$command" ]; then
    words={_quoted([*names.commands, "--help", "--version", "--debug"])}
  elif [ "${{cur#-}}" != "$cur" ]; then
    case "$command" in
{_cases(names.options, 6)}
    esac
  else
    case "$command" in
      {"|".join(OF_KINDS)})
        if [ $((COMP_CWORD - at)) -eq 1 ]; then
          words={_quoted(names.parts)}
        else
          case "${{COMP_WORDS[at + 1]}}" in
{_cases(names.parts, 12)}
          esac
        fi ;;
    esac
    case "$command" in
      {"|".join(OF_RECIPES)}) words="$words "{_quoted(names.recipes)} ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _workbench workbench
"""


def zsh(names: Known) -> str:
    """For zsh: bash's function by zsh's own bridge."""
    head = '# workbench: completion for zsh. In ~/.zshrc: eval "$(workbench completion zsh)"\n'
    return head + "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n" + bash(names)


def fish(names: Known) -> str:
    """For fish: a line for each word and where it is offered."""
    lines = ["# workbench: completion for fish. workbench completion fish > ~/.config/fish/completions/workbench.fish"]
    for command, text in names.commands.items():
        lines.append(_line("__fish_use_subcommand", f"-f -a {command} -d {_single(text)}"))
        seen = f"__fish_seen_subcommand_from {command}"
        lines += [_line(seen, f"-l {option.removeprefix('--')}") for option in names.options[command]]
        if command in OF_KINDS:
            first = f"{seen}; and test (count (commandline -opc)) -eq 2"
            lines.append(_line(first, f"-a {_single(' '.join(names.parts))}"))
            lines += [
                _line(f"{seen}; and __fish_seen_subcommand_from {kind}", f"-a {_single(' '.join(parts))}")
                for kind, parts in names.parts.items()
                if parts
            ]
        if command in OF_RECIPES:
            lines.append(_line(seen, f"-a {_single(' '.join(names.recipes))}"))
    return "\n".join(lines) + "\n"


def _cases(words: Mapping[str, Sequence[str]], indent: int) -> str:
    return "\n".join(f"{' ' * indent}{name}) words={_quoted(found)} ;;" for name, found in words.items())


def _quoted(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words)) or "''"


def _line(when: str, what: str) -> str:
    return f"complete -c workbench -n {_single(when)} {what}"


def _single(text: str) -> str:
    """Text in fish's single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
