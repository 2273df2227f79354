"""A line of text to words, and words to a verb's arguments. Pure, and made for hostile input."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from atoll.base.errors import Invalid
from atoll.commands.registry import Command, Parameter, Registry, UnknownCommand

LINE_BYTES = 64 * 1024
JSON_FLAG, HELP_FLAG, DRY_RUN_FLAG = "--json", "--help", "--dry-run"
_SURROGATE = re.compile("[\ud800-\udfff]")  # how SSH hands over bytes that are no UTF-8
GLOBAL = (JSON_FLAG, HELP_FLAG, DRY_RUN_FLAG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A line that names a verb. `arguments` is None when only help is wanted."""

    command: Command
    arguments: Any
    wants_json: bool
    wants_help: bool
    is_dry_run: bool = False


def split(line: str) -> list[str]:
    """Words by the quoting rules of a POSIX shell, without expansions."""
    if len(line.encode(errors="surrogatepass")) > LINE_BYTES:
        raise Invalid(f"a line is at most {LINE_BYTES >> 10} KiB")
    if "\0" in line:
        raise Invalid("a line cannot contain a NUL")
    if broken := _SURROGATE.search(line):
        raise Invalid(
            f"a line is UTF-8, and {broken[0]!r} at {broken.start() + 1} is not",
            hint="Inside a VM any bytes will do: ssh <vm>@<host> <command>",
        )
    try:
        return shlex.split(line)
    except ValueError as error:
        what = "a quote is not closed" if "quotation" in str(error) else "a `\\` ends the line"
        hint = "Over ssh your own shell takes one level of quotes: ssh host \"comment web 'a b'\""
        raise Invalid(what, hint=hint) from error


def parse(registry: Registry, line: str) -> Parsed:
    """The verb of a line and its arguments.

    Raises UnknownCommand with the nearest verb, or Invalid naming the argument.
    """
    words = split(line)
    start = next((i for i, word in enumerate(words) if word not in GLOBAL), None)
    if start is None:
        if HELP_FLAG not in words:
            raise Invalid("no command was given", hint="Try: help")
        words, start = [*words, "help"], len(words)
    leading, words = words[:start], words[start:]
    matched = registry.match(words)
    if matched is None:
        raise unknown(registry, words)
    command, count = matched
    reader = _Reader(command, words[count:])
    reader.read()
    wants_help = HELP_FLAG in leading or reader.wants_help
    is_dry_run = DRY_RUN_FLAG in leading or reader.is_dry_run
    if is_dry_run and not command.mutates and not wants_help:
        raise Invalid(
            f"`{command.name}` changes nothing, so it has no dry run",
            hint=f"Leave {DRY_RUN_FLAG} away",
        )
    return Parsed(
        command=command,
        arguments=None if wants_help else reader.arguments(),
        wants_json=JSON_FLAG in leading or reader.wants_json,
        wants_help=wants_help,
        is_dry_run=is_dry_run,
    )


class _Reader:
    """Goes through the words after a verb."""

    def __init__(self, command: Command, words: Sequence[str]) -> None:
        self.wants_json = self.wants_help = self.is_dry_run = False
        self._command = command
        self._words = list(words)
        self._values: dict[str, list[str]] = {}
        self._switches: dict[str, bool] = {}
        self._options = {name: option for option in command.options for name in option.flags}

    def read(self) -> None:
        places = list(self._command.places)
        words = self._words
        while words:
            word = words.pop(0)
            if word == "--":
                for rest in words:
                    self._place(places, rest)
                return
            if word == JSON_FLAG:
                self.wants_json = True
            elif word == HELP_FLAG:
                self.wants_help = True
            elif word == DRY_RUN_FLAG:
                self.is_dry_run = True
            elif word.startswith("-") and len(word) > 1:
                self._option(word)
            else:
                self._place(places, word)
                if places and places[0].is_rest:
                    self._values.setdefault(places[0].name, []).extend(words)
                    return

    def arguments(self) -> Any:
        """The verb's dataclass, every value converted."""
        values: dict[str, object] = {}
        by_field = zip(fields(self._command.arguments), self._command.parameters, strict=True)
        for field, parameter in by_field:
            given = self._values.get(parameter.name)
            if parameter.name in self._switches:
                values[field.name] = self._switches[parameter.name]
            elif given is not None and (parameter.is_many or parameter.is_rest):
                values[field.name] = tuple(parameter.convert(text) for text in given)
            elif given is not None:
                values[field.name] = parameter.convert(given[-1])
            elif parameter.is_required:
                raise Invalid(
                    f"`{self._command.name}` needs <{parameter.value}>",
                    hint=f"Usage: {self._command.usage}",
                )
        return self._command.arguments(**values)

    def _option(self, word: str) -> None:
        name, equals, inline = word.partition("=")
        option = self._options.get(name) or self._options.get(_short(name))
        if option is None:
            raise self._no_such_flag(name)
        if option.is_switch:
            self._switches[option.name] = _truth(name, inline) if equals else True
            return
        if equals:
            value = inline
        elif self._words and not self._words[0].startswith("--"):
            value = self._words.pop(0)
        else:
            raise Invalid(f"{name} needs a value", hint=f"Try: {name} {option.value}")
        if option.name in self._values and not option.is_many:
            raise Invalid(f"{name} is given twice")
        self._values.setdefault(option.name, []).append(value)

    def _place(self, places: list[Parameter], word: str) -> None:
        if not places:
            raise Invalid(
                f"`{self._command.name}` does not take {word[:60]!r}",
                hint=f"Usage: {self._command.usage}",
            )
        place = places[0] if places[0].is_many or places[0].is_rest else places.pop(0)
        self._values.setdefault(place.name, []).append(word)

    def _no_such_flag(self, name: str) -> Invalid:
        known = [*self._options, *GLOBAL]
        near = difflib.get_close_matches(name[:60], known, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Try: {self._command.name} --help"
        return Invalid(f"`{self._command.name}` has no flag {name[:60]!r}", hint=hint)


def _short(name: str) -> str:
    """`-d` for `--d`, which programs write that know no difference."""
    return name[1:] if len(name) == 3 and name.startswith("--") else ""


def _truth(name: str, text: str) -> bool:
    if text in ("true", "false"):
        return text == "true"
    raise Invalid(f"{name} is true or false, not {text[:20]!r}")


def unknown(registry: Registry, words: Sequence[str]) -> UnknownCommand:
    """The error for words that begin no verb, with the nearest one."""
    heads = [" ".join(head) for head in registry.heads()]
    typed = words[0][:60]
    family = [command.name for command in registry if command.words[0] == typed]
    if family:
        said = f"{typed} {words[1][:60]}" if len(words) > 1 else typed
        return UnknownCommand(f"no command {said!r}", hint=f"Try: {', '.join(family)}")
    wanted = " ".join(words[:2])[:60]
    near = [*difflib.get_close_matches(wanted, heads), *difflib.get_close_matches(typed, heads)]
    hint = f"Did you mean {near[0]}?" if near else "Try: help"
    return UnknownCommand(f"no command {typed!r}", hint=hint)
