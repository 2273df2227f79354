"""What the declaration of a verb expects at the end of a line that is still being typed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.commands.pages import first_sentence, global_flags
from atoll.commands.parse import GLOBAL
from atoll.commands.registry import Command, Parameter, Registry, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """After whole words: next words of verbs, the verb, and what of it may come.

    `value` is the option that waits for its value, else the argument whose place it is; `given` are
    words that stand in that place already. `flags` may come unless an option waits.
    """

    verbs: tuple[tuple[str, str], ...] = ()  # word and help
    command: Command | None = None
    value: Parameter | None = None
    given: tuple[str, ...] = ()
    flags: tuple[tuple[str, str, str], ...] = ()  # flag, how it is shown, help

    @property
    def is_prose(self) -> bool:
        """Whether this goes on a free text, as a comment or a command for a VM."""
        value = self.value
        return bool(self.given) and value is not None and value.source is Source.NONE

    def option(self, flag: str) -> Parameter | None:
        """The verb's option of this name."""
        options = self.command.options if self.command else ()
        return next((option for option in options if flag in option.flags), None)


def expected(registry: Registry, words: Sequence[str]) -> Expected:
    """What may follow these words."""
    words = [word for word in words if word not in GLOBAL]
    matched = registry.match(words)
    if matched is None:
        return Expected(verbs=next_words(registry, words))
    command, count = matched
    more = next_words(registry, words) if count == len(words) else ()
    return _Walk(command).go(words[count:], more)


def next_words(registry: Registry, words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Next words of the verbs that begin with `words`; several verbs behind one are named."""
    size = len(words)
    found: dict[str, list[tuple[str, ...]]] = {}
    for head in registry.heads():
        if len(head) > size and head[:size] == tuple(words):
            found.setdefault(head[size], []).append(head)
    return tuple((word, _about(registry, heads, size + 1)) for word, heads in found.items())


def _about(registry: Registry, heads: list[tuple[str, ...]], size: int) -> str:
    if len(heads) > 1 or len(heads[0]) > size:
        return ", ".join(" ".join(head[size:]) for head in heads if len(head) > size)
    matched = registry.match(heads[0])
    assert matched is not None
    command = matched[0]
    is_alias = heads[0] != command.words
    return f"the same as {command.name}" if is_alias else first_sentence(command)


class _Walk:
    """Goes through the words after a verb, as `parse` does, without judging them."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._waiting: Parameter | None = None
        self._seen: set[str] = set()
        self._places = list(command.places)
        self._given: list[str] = []
        self._only_places = False

    def go(self, words: Sequence[str], verbs: tuple[tuple[str, str], ...]) -> Expected:
        for word in words:
            self._step(word)
        command = self._command
        if self._waiting is not None:
            return Expected(command=command, value=self._waiting)
        return Expected(
            verbs=verbs,
            command=command,
            value=self._places[0] if self._places else None,
            given=tuple(self._given),
            flags=() if self._only_places else self._flags(),
        )

    def _step(self, word: str) -> None:
        name, equals, _ = word.partition("=")
        option = next((item for item in self._command.options if name in item.flags), None)
        if self._waiting is not None:
            self._waiting = None
        elif self._only_places or not word.startswith("-") or len(word) == 1:
            self._fill(word)
        elif word == "--":
            self._only_places = True
        elif option is not None:
            self._seen.add(option.name)
            self._waiting = None if option.is_switch or equals else option

    def _fill(self, word: str) -> None:
        if not self._places:
            return
        place = self._places[0]
        self._only_places |= place.is_rest
        if place.is_many or place.is_rest:
            self._given.append(word)
        else:
            self._places.pop(0)
            self._given = []

    def _flags(self) -> tuple[tuple[str, str, str], ...]:
        found = []
        for option in self._command.options:
            if option.is_many or option.name not in self._seen:
                value = "" if option.is_switch else f" {option.value}"
                label = ", ".join(option.flags) + value
                found += [(flag, label, option.help) for flag in option.flags]
        found += [(name, name, text) for name, text in global_flags(self._command)]
        return tuple(found)
