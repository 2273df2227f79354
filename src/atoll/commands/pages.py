"""Help made from the declarations: for one verb, for all, and the reference page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atoll.commands.registry import Command, Parameter
from atoll.commands.render import table
from atoll.commands.topics import TOPICS

GLOBAL = (
    ("--json", "print the result as JSON"),
    ("--help", "say what a command does; nothing is run"),
)
DRY_RUN = ("--dry-run", "check everything and say what would be done; nothing is changed")


def overview(commands: Iterable[Command]) -> str:
    """Every verb with one line."""
    rows = [(command.name, first_sentence(command)) for command in commands]
    more = "All take --json and --help, those that change something --dry-run. More: help <command>"
    return table(("COMMAND", ""), rows, below=["", more])


def first_sentence(command: Command) -> str:
    """What a list says of a verb."""
    return command.help.split(". ")[0].rstrip(".")


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
    if command.mutates:
        parts.append("With --dry-run it says what it would do, and does nothing.")
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
        + [
            {"names": [name], "help": text, "repeat": False} for name, text in global_flags(command)
        ],
        "examples": list(command.examples),
        "result": {**command.result, **command.sometimes},
        "mutates": command.mutates,
    }


def reference(commands: Iterable[Command]) -> str:
    """The reference page in Markdown."""
    parts = [
        "# Commands",
        "Generated from the commands themselves: `python -m atoll.commands.reference`. The same text,"
        " a page per command, is printed by `doc` and served at `/docs.md`. See also"
        " [errors](errors.md) and the [page for coding agents](../skill.md).",
    ]
    parts.extend(f"## {topic.title}\n\n{topic.body}" for topic in TOPICS)
    parts.extend(f"## {command.name}\n\n{section(command)}" for command in commands)
    return "\n\n".join(parts) + "\n"


def own_page(command: Command) -> str:
    """The page of one verb in Markdown."""
    names = [f"`{name}`" for name, _ in global_flags(command)]
    more = f"Takes {', '.join(names[:-1])} and {names[-1]} too: `doc language`."
    return f"# {command.name}\n\n{section(command)}\n\n{more}"


def section(command: Command) -> str:
    """One verb in Markdown, without a heading."""
    parts = [command.help, f"```text\n{command.usage}\n```"]
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
        keys = {**command.result, **command.sometimes}
        lines = [f"| `{key}` | {text} |" for key, text in keys.items()]
        parts.append("\n".join(("| JSON key | |", "|---|---|", *lines)))
    return "\n\n".join(parts)


def global_flags(command: Command) -> tuple[tuple[str, str], ...]:
    """The flags that a verb has besides its own, with their help."""
    return (*GLOBAL, DRY_RUN) if command.mutates else GLOBAL


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
