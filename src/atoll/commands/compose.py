"""A verb and values back to the line that says so: the inverse of `parse`. Pure.

Forms send values; what runs is the line made of them here, and the line is what the form shows.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from atoll.base.errors import Invalid
from atoll.commands.parse import DRY_RUN_FLAG, split
from atoll.commands.registry import Command, Parameter

Values: TypeAlias = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """A line, and the stdin of a value that has several lines."""

    line: str
    stdin: str = ""


def compose(command: Command, values: Values, *, is_dry_run: bool = False) -> Composed:
    """The line that gives `command` these values by the names of its parameters.

    A parameter that takes many is given one text per value, or one text with all of them, quoted as
    in a shell. An empty text is no value, except where emptiness is one (`Parameter.may_be_empty`).
    Raises Invalid for a name that is no parameter, or two values of several lines.
    """
    unknown = values.keys() - {parameter.name for parameter in command.parameters}
    if unknown:
        raise Invalid(f"`{command.name}` takes no {min(unknown)[:60]!r}")
    stdin: list[str] = []
    words = [DRY_RUN_FLAG] if is_dry_run else []
    for option in command.options:
        words += _option(option, values.get(option.name, ()), stdin)
    places = [
        word
        for place in command.places
        for word in _place(place, values.get(place.name, ()), stdin)
    ]
    if any(word.startswith("-") and len(word) > 1 for word in places):
        words.append("--")
    if len(stdin) > 1:
        raise Invalid(f"`{command.name}` reads one text of several lines, not {len(stdin)}")
    line = " ".join((command.name, *map(_quoted, words), *map(_quoted, places)))
    return Composed(line=line, stdin="".join(stdin))


def _option(option: Parameter, texts: Sequence[str], stdin: list[str]) -> Iterator[str]:
    flag = option.flags[-1]
    if option.is_switch:
        for text in texts[-1:]:
            yield flag if text == "true" else f"{flag}={text}"
        return
    for text in texts:
        for value in text.splitlines() if option.is_many else [text]:
            if value:
                yield f"{flag}={_value(option, value, stdin)}"


def _place(place: Parameter, texts: Sequence[str], stdin: list[str]) -> Iterator[str]:
    is_many = place.is_many or place.is_rest
    for text in texts:
        if text == "" and place.may_be_empty:
            yield ""
        elif is_many and not place.may_be_empty:
            yield from split(text)
        elif text:
            yield _value(place, text, stdin)


def _value(parameter: Parameter, text: str, stdin: list[str]) -> str:
    """`-` where the text may come on stdin, which takes it as it is; browsers end lines with CR LF."""
    if parameter.reads_stdin:
        stdin.append(text.replace("\r\n", "\n"))
        return "-"
    return text


def _quoted(word: str) -> str:
    """As one types it: `--comment='a b'` and not `'--comment=a b'`."""
    flag, equals, value = word.partition("=")
    if word.startswith("--") and equals and shlex.quote(flag) == flag:
        return f"{flag}={shlex.quote(value) if value else ''}"
    return shlex.quote(word)
