"""Help made from the declarations: for one verb, for all, and the reference page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atoll.commands.registry import Command, Parameter
from atoll.commands.render import table

GLOBAL = (
    ("--json", "print the result as JSON"),
    ("--help", "say what a command does; nothing is run"),
)


def overview(commands: Iterable[Command]) -> str:
    """Every verb with one line."""
    rows = [(command.name, command.help.split(". ")[0].rstrip(".")) for command in commands]
    return table(("COMMAND", ""), rows) + "\n\nAll take --json and --help. More: help <command>"


def page(command: Command) -> str:
    """Everything about one verb."""
    parts = [command.help, f"Usage: {command.usage}"]
    rows = [
        (_shown(parameter), parameter.help + _default(parameter)) for parameter in _all(command)
    ]
    if rows:
        parts.append("\n".join(f"  {line}" for line in table(("", ""), rows).splitlines()[1:]))
    if command.aliases:
        parts.append("Also: " + ", ".join(" ".join(alias) for alias in command.aliases))
    if command.examples:
        parts.append("\n".join(("Examples:", *(f"  {example}" for example in command.examples))))
    return "\n\n".join(parts)


def page_data(command: Command) -> dict[str, Any]:
    """`page` as JSON."""
    return {
        "command": command.name,
        "help": command.help,
        "usage": command.usage,
        "aliases": [" ".join(alias) for alias in command.aliases],
        "arguments": [
            {"name": place.name, "help": place.help, "required": place.is_required}
            for place in command.places
        ],
        "flags": [
            {
                "names": list(option.flags),
                "help": option.help,
                "repeat": option.is_many,
                **({} if option.is_switch else {"value": option.value}),
                **({"default": option.default} if option.default else {}),
            }
            for option in command.options
        ]
        + [{"names": [name], "help": text, "repeat": False} for name, text in GLOBAL],
        "examples": list(command.examples),
        "result": dict(command.result),
        "mutates": command.mutates,
    }


def reference(commands: Iterable[Command]) -> str:
    """The reference page in Markdown."""
    parts = [
        "# Commands",
        "Generated from the commands themselves: `python -m atoll.commands.reference`.",
        "The same line works over SSH, at the prompt and as the body of `POST /exec`."
        " Every command takes `--json` (print the result as JSON) and `--help`.",
    ]
    parts.extend(section(command) for command in commands)
    return "\n\n".join(parts) + "\n"


def section(command: Command) -> str:
    """One verb in Markdown."""
    parts = [f"## {command.name}", command.help, f"```text\n{command.usage}\n```"]
    rows = [
        (_shown(parameter), parameter.help + _default(parameter)) for parameter in _all(command)
    ]
    if rows:
        parts.append("\n".join(f"- `{name}`: {text}" for name, text in rows))
    if command.aliases:
        aliases = ", ".join(f"`{' '.join(alias)}`" for alias in command.aliases)
        parts.append(f"Also: {aliases}.")
    if command.examples:
        parts.append("```sh\n" + "\n".join(command.examples) + "\n```")
    if command.result:
        lines = [f"| `{key}` | {text} |" for key, text in command.result.items()]
        parts.append("\n".join(("| JSON key | |", "|---|---|", *lines)))
    return "\n\n".join(parts)


def _all(command: Command) -> tuple[Parameter, ...]:
    return (*command.places, *command.options)


def _shown(parameter: Parameter) -> str:
    if not parameter.flags:
        return f"<{parameter.value}>"
    value = "" if parameter.is_switch else f" {parameter.value}"
    return ", ".join(parameter.flags) + value


def _default(parameter: Parameter) -> str:
    repeat = "; may be repeated" if parameter.is_many and parameter.flags else ""
    return repeat + (f"; default {parameter.default}" if parameter.default else "")
