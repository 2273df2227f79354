"""Every verb, declared once: its words, arguments, help, examples and result.

A verb is a frozen dataclass of arguments and one `async def` that takes it. The parser, `--help`,
completion and the reference page are made from the declaration, so they cannot disagree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar, cast, get_type_hints

from atoll.base.errors import Invalid
from atoll.commands.reply import Reply

A = TypeVar("A")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """The arguments of a verb that takes none."""


class UnknownCommand(Invalid):
    """No verb has these words."""

    code: ClassVar[str] = "unknown-command"
    http: ClassVar[int] = 404


class Source(StrEnum):
    """Where completion finds candidates for a value."""

    NONE = "none"
    VM = "vm"
    TAG = "tag"
    IMAGE = "image"
    KEY = "key"
    VERB = "verb"
    PAGE = "page"
    TEAM = "team"


class Reach(StrEnum):
    """What a verb touches: a caller limited to some VMs runs only those that touch VMs.

    One limited to a single VM makes no other; one limited to a tag does, with the tag on it.
    """

    VM = "vm"
    NEW_VM = "new-vm"
    ACCOUNT = "account"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """An argument or a flag. `flags` is empty for an argument that is given by its place."""

    name: str
    help: str
    flags: tuple[str, ...] = ()
    is_switch: bool = False  # takes no value
    is_many: bool = False  # may be given several times
    is_rest: bool = False  # takes everything that follows, flags included
    is_required: bool = False
    is_endless: bool = False  # the reply goes on until nobody listens: for terminals and programs
    may_be_empty: bool = False  # an empty text is a value, and a text is one word
    is_secret: bool = False  # a value may be, or hold, a secret: no record shows it
    value: str = "TEXT"  # what the value is, for the help
    default: str = ""  # shown in the help
    convert: Callable[[str], object] = str
    source: Source = Source.NONE

    @property
    def reads_stdin(self) -> bool:
        """Whether `-` in its place stands for what comes on stdin: a text of several lines."""
        return self.value.endswith("|-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One verb."""

    words: tuple[str, ...]
    help: str
    run: Callable[[Any, Any], Awaitable[Reply]]
    arguments: type[Any]
    parameters: tuple[Parameter, ...]
    reach: Reach
    mutates: bool
    aliases: tuple[tuple[str, ...], ...] = ()
    examples: tuple[str, ...] = ()
    result: Mapping[str, str] = dataclasses.field(default_factory=dict)  # JSON key -> what it says
    sometimes: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of keys that may lack

    @property
    def name(self) -> str:
        """`share show`."""
        return " ".join(self.words)

    @property
    def places(self) -> tuple[Parameter, ...]:
        """Arguments given by their place, in order."""
        return tuple(p for p in self.parameters if not p.flags)

    @property
    def options(self) -> tuple[Parameter, ...]:
        """Arguments given by a flag."""
        return tuple(p for p in self.parameters if p.flags)

    @property
    def usage(self) -> str:
        """One line: `new [--name NAME] …`."""
        parts = [self.name]
        for option in self.options:
            value = "" if option.is_switch else f" {option.value}"
            more = "…" if option.is_many else ""
            parts.append(f"[{option.flags[0]}{value}]{more}")
        for place in self.places:
            label = f"{place.value}…" if place.is_many or place.is_rest else place.value
            parts.append(f"<{label}>" if place.is_required else f"[{label}]")
        return " ".join(parts)


class Registry:
    """All verbs by their words."""

    def __init__(self) -> None:
        self._by_words: dict[tuple[str, ...], Command] = {}
        self._commands: list[Command] = []

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands)

    @classmethod
    def of(cls, *parts: Registry) -> Registry:
        """All verbs of several registries."""
        whole = cls()
        for part in parts:
            for command in part:
                whole.add(command)
        return whole

    def add(self, command: Command) -> None:
        """Register a verb; its words and aliases must be new."""
        for words in (command.words, *command.aliases):
            assert words not in self._by_words, f"{words} is declared twice"
            self._by_words[words] = command
        self._commands.append(command)

    def match(self, words: Sequence[str]) -> tuple[Command, int] | None:
        """The verb that `words` begin with, longest first, and how many words it takes.

        `team` alone is a verb, `team frobnicate` is none: what stands behind the first word of verbs
        of two is the second word of one, unless the first takes arguments or it is a flag.
        """
        for count in (2, 1):
            command = self._by_words.get(tuple(words[:count]))
            if command is not None and len(words) >= count:
                is_cut = count == 1 and len(words) > 1 and not words[1].startswith("-")
                is_other = is_cut and not command.places and self._is_family(words[0])
                return None if is_other else (command, count)
        return None

    def _is_family(self, word: str) -> bool:
        return any(len(head) > 1 and head[0] == word for head in self._by_words)

    def heads(self) -> tuple[tuple[str, ...], ...]:
        """Words and aliases of every verb."""
        return tuple(self._by_words)

    def command(
        self,
        words: str,
        *,
        help: str,
        reach: Reach,
        mutates: bool = False,
        aliases: Sequence[str] = (),
        examples: Sequence[str] = (),
        result: Mapping[str, str] | None = None,
        sometimes: Mapping[str, str] | None = None,
    ) -> Callable[[Callable[[Any, A], Awaitable[Reply]]], Callable[[Any, A], Awaitable[Reply]]]:
        """Declare the decorated function as a verb; its second parameter's type is its arguments."""

        def register(
            run: Callable[[Any, A], Awaitable[Reply]],
        ) -> Callable[[Any, A], Awaitable[Reply]]:
            arguments = _argument_type(run)
            self.add(
                Command(
                    words=tuple(words.split()),
                    help=help,
                    run=run,
                    arguments=arguments,
                    parameters=tuple(
                        cast("Parameter", item.metadata["parameter"])
                        for item in dataclasses.fields(arguments)
                    ),
                    reach=reach,
                    mutates=mutates,
                    aliases=tuple(tuple(alias.split()) for alias in aliases),
                    examples=tuple(examples),
                    result=MappingProxyType(dict(result or {})),
                    sometimes=MappingProxyType(dict(sometimes or {})),
                )
            )
            return run

        return register


def argument(
    name: str,
    help: str,
    *,
    default: Any = dataclasses.MISSING,
    many: bool = False,
    rest: bool = False,
    required: bool = False,
    empty: bool = False,
    secret: bool = False,
    value: str = "",
    convert: Callable[[str], object] = str,
    source: Source = Source.NONE,
) -> Any:
    """A dataclass field given by its place."""
    is_single = not (many or rest)
    is_required = required or (is_single and default is dataclasses.MISSING)
    parameter = Parameter(
        name=name,
        help=help,
        is_many=many,
        is_rest=rest,
        is_required=is_required,
        may_be_empty=empty,
        is_secret=secret,
        value=value or name,
        convert=convert,
        source=source,
    )
    return dataclasses.field(
        default=default if is_single else (), metadata={"parameter": parameter}
    )


def flag(
    names: str,
    help: str,
    *,
    default: Any = None,
    shown: str = "",
    many: bool = False,
    endless: bool = False,
    secret: bool = False,
    value: str = "TEXT",
    convert: Callable[[str], object] = str,
    source: Source = Source.NONE,
) -> Any:
    """A dataclass field given by a flag (`names`: `-d --delete`); a bool default is a switch."""
    flags = tuple(names.split())
    parameter = Parameter(
        name=flags[-1].lstrip("-").replace("-", "_"),
        help=help,
        flags=flags,
        is_switch=isinstance(default, bool),
        is_many=many,
        is_endless=endless,
        is_secret=secret,
        value=value,
        default=shown,
        convert=convert,
        source=source,
    )
    return dataclasses.field(default=() if many else default, metadata={"parameter": parameter})


def whole_number(what: str, *, most: int | None = None, hint: str = "") -> Callable[[str], int]:
    """A converter for a plain decimal number; refuses signs, exponents, the absurd and over `most`."""

    def convert(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            raise Invalid(f"{what} {text[:40]!r} is not a whole number", hint=f"Try: {what} 2")
        number = int(text)
        if most is not None and number > most:
            raise Invalid(f"{what} {number} is over {most}", hint=hint or f"Try: {what} {most}")
        return number

    return convert


def one_of(what: str, choices: Sequence[str]) -> Callable[[str], str]:
    """A converter for a word out of a few."""

    def convert(text: str) -> str:
        if text not in choices:
            raise Invalid(f"{what} {text[:40]!r} is none of {', '.join(choices)}")
        return text

    return convert


def _argument_type(run: Callable[..., object]) -> type[Any]:
    hints = [hint for name, hint in get_type_hints(run).items() if name != "return"]
    found: type[Any] = hints[1]
    assert dataclasses.is_dataclass(found), f"{run} must take a dataclass"
    return found
