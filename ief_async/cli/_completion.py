"""Completion by Tab: a script for each shell, made of what the parser knows."""

import argparse
from collections.abc import Callable, Iterator

import attrs

from ief_async.cli._arguments import parser_of


@attrs.frozen
class _Option:
    """An option as a shell completes it: its flags, what it is for, and what follows it."""

    flags: tuple[str, ...]
    help: str
    choices: tuple[str, ...]
    takes: str | None  # "file", "value", or nothing


def _commands() -> dict[str, tuple[str, list[_Option], tuple[str, ...]]]:
    """Return for each command its help, its options, and the words it takes."""
    parser = parser_of()
    (subparsers,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))  # noqa: SLF001  argparse tells it nowhere else
    helps = {one.dest: one.help or "" for one in subparsers._choices_actions}  # noqa: SLF001  likewise
    return {
        name: (helps[name], list(_options(command)), _words(command))
        for name, command in subparsers.choices.items()
    }


def _options(command: argparse.ArgumentParser) -> Iterator[_Option]:
    for action in command._actions:  # noqa: SLF001  argparse tells it nowhere else
        if action.option_strings:
            text = (action.help or "") % {"default": action.default}
            takes = None if action.nargs == 0 else "value"
            if action.dest in {"file", "checkpoint"}:
                takes = "file"
            yield _Option(tuple(action.option_strings), text, _choices(action), takes)


def _words(command: argparse.ArgumentParser) -> tuple[str, ...]:
    positional = (one for one in command._actions if not one.option_strings)  # noqa: SLF001  likewise
    return tuple(word for one in positional for word in _choices(one))


def _choices(action: argparse.Action) -> tuple[str, ...]:
    return tuple(map(str, action.choices or ()))


def _bash() -> str:
    cases, values = [], []
    for name, (_, options, words) in _commands().items():
        flags = " ".join([*words, *(flag for option in options for flag in option.flags)])
        cases.append(f'    {name}) words="{flags}" ;;')
        for option in options:
            flags = "|".join(f"{name}:{flag}" for flag in option.flags)
            if option.choices:
                values.append(f'    {flags}) words="{" ".join(option.choices)}" ;;')
            elif option.takes:
                files = "compopt -o default; " if option.takes == "file" else ""
                values.append(f"    {flags}) {files}return ;;")
    return "\n".join(
        [
            "_ief_async() {",
            '  local word="${COMP_WORDS[COMP_CWORD]}" words="" command="${COMP_WORDS[1]}"',
            "  COMPREPLY=()",
            '  if [ "$COMP_CWORD" -eq 1 ]; then',
            f'    words="{" ".join(_commands())} --help --version"',
            "  else",
            '    case "$command" in',
            *cases,
            "    esac",
            '    case "$command:${COMP_WORDS[COMP_CWORD-1]}" in',
            *values,
            "    esac",
            "  fi",
            '  COMPREPLY=($(compgen -W "$words" -- "$word"))',
            "}",
            "complete -F _ief_async ief-async",
        ]
    )


def _zsh() -> str:
    lines = ["#compdef ief-async", "_ief_async() {", "  local -a commands", "  commands=("]
    lines += [f"    {_quoted(f'{name}:{text}')}" for name, (text, _, _) in _commands().items()]
    lines += [
        "  )",
        "  if (( CURRENT == 2 )); then",
        "    _describe command commands",
        "    return",
    ]
    lines += ["  fi", '  case "$words[2]" in']
    for name, (_, options, words) in _commands().items():
        lines.append(f"    {name}) shift words; (( CURRENT-- )); _arguments \\")
        for option in options:
            after = f":value:({' '.join(option.choices)})" if option.choices else ""
            if not after and option.takes:
                after = ":file:_files" if option.takes == "file" else ":value:"
            text = option.help.replace("[", "(").replace("]", ")").replace(":", " ")
            lines += [f"      {_quoted(f'*{flag}[{text}]{after}')} \\" for flag in option.flags]
        lines.append(
            f"      {_quoted('1:word:(' + ' '.join(words) + ')')} ;;" if words else "      ;;"
        )
    lines += ["  esac", "}", 'if [ "$funcstack[1]" = _ief_async ]; then _ief_async "$@"']
    lines += ["else compdef _ief_async ief-async; fi"]
    return "\n".join(lines)


def _fish() -> str:
    lines = ["complete -c ief-async -f"]
    for name, (text, options, words) in _commands().items():
        lines.append(f"complete -c ief-async -n __fish_use_subcommand -a {name} -d {_quoted(text)}")
        seen = _quoted(f"__fish_seen_subcommand_from {name}")
        if words:
            lines.append(f"complete -c ief-async -n {seen} -a {_quoted(' '.join(words))}")
        for option in options:
            line = f"complete -c ief-async -n {seen}"
            for flag in option.flags:
                line += f" -l {flag[2:]}" if flag.startswith("--") else f" -s {flag[1:]}"
            if option.choices:
                line += f" -x -a {_quoted(' '.join(option.choices))}"
            elif option.takes:
                line += " -r -F" if option.takes == "file" else " -x"
            lines.append(f"{line} -d {_quoted(option.help)}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


COMPLETIONS: dict[str, Callable[[], str]] = {"bash": _bash, "fish": _fish, "zsh": _zsh}
