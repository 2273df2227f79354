"""Completion: what can stand where the line ends. Reads, never changes, never fails."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.base.errors import AtollError
from atoll.commands.addresses import Addresses
from atoll.commands.expected import Expected, expected, next_words
from atoll.commands.library import ALL, Library
from atoll.commands.partial import Partial, partial
from atoll.commands.registry import Parameter, Registry, Source
from atoll.commands.render import table
from atoll.domain.account import Caller
from atoll.services.cloud import Cloud

_LISTS = (Source.TAG, Source.VERB)  # an option takes several, with commas


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A whole word that can stand at the end; `shown` is the part of it to list."""

    word: str
    shown: str
    is_value: bool = False  # a name or the like, not a word of a verb or a flag
    is_done: bool = True  # a blank may follow


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """All that can stand at the end of a line; a choice's rest goes in behind `line[:start]`."""

    start: int
    settled: int  # characters of a word that stand before `start`
    quote: str  # open, to be closed behind a choice
    items: tuple[Choice, ...]
    help: str  # what `?` shows; empty where any text may come


class Completer:
    """Knows the verbs, and asks the cloud for names."""

    def __init__(self, *, registry: Registry, cloud: Cloud) -> None:
        self._registry = registry
        self._cloud = cloud

    async def choices(self, caller: Caller, line: str) -> Choices:
        """Candidates for the last word (the empty one after a blank), sorted."""
        typed = partial(line)
        wanted = expected(self._registry, typed.words)
        found = await self._candidates(caller, wanted, typed.value)
        items = {choice.word: choice for choice in found if choice.word.startswith(typed.value)}
        return Choices(
            start=typed.start,
            settled=typed.settled,
            quote=typed.quote,
            items=tuple(items[word] for word in sorted(items)),
            help=_help(wanted, typed),
        )

    async def _candidates(self, caller: Caller, wanted: Expected, typed: str) -> list[Choice]:
        flag, equals, _ = typed.partition("=")
        if wanted.flags and typed.startswith("-"):
            if not equals:
                return [_plain(name) for name, _, _ in wanted.flags]
            option = wanted.option(flag)
            return [] if option is None else await self._values(caller, option, flag + "=", typed)
        verbs = [_plain(word) for word, _ in wanted.verbs]
        if wanted.value is None:
            return verbs
        values = await self._values(caller, wanted.value, "", typed, given=wanted.given)
        return verbs + values

    async def _values(
        self,
        caller: Caller,
        parameter: Parameter,
        before: str,
        typed: str,
        *,
        given: tuple[str, ...] = (),
    ) -> list[Choice]:
        """Values of a parameter; `before` is what the word holds besides (`--tag=`)."""
        if parameter.flags and parameter.is_many and parameter.source in _LISTS:
            listed, comma, _ = typed[len(before) :].rpartition(",")
            before, given = before + listed + comma, tuple(listed.split(","))
        names = await self._names(caller, parameter, given)
        return [
            Choice(word=before + name, shown=name, is_value=True)
            for name in names
            if name not in given or not (parameter.is_many or before.endswith(","))
        ]

    async def _names(
        self, caller: Caller, parameter: Parameter, given: tuple[str, ...]
    ) -> list[str]:
        if parameter.is_switch:
            return ["true", "false"]
        try:
            match parameter.source:
                case Source.VM:
                    return [vm.label for vm in await self._cloud.access.visible(caller)]
                case Source.TAG:
                    owned = await self._cloud.access.visible(caller)
                    return [tag for vm in owned for tag in vm.tags]
                case Source.IMAGE:
                    return [image.name for image in (await self._cloud.facts.node()).images]
                case Source.KEY:
                    return [key.name for key in await self._cloud.accounts.keys(caller)]
                case Source.VERB if parameter.flags:
                    return [command.name for command in self._registry]
                case Source.VERB:
                    return [word for word, _ in next_words(self._registry, given)]
                case Source.PAGE:
                    addresses = Addresses(self._cloud.config)
                    library = Library(registry=self._registry, addresses=addresses)
                    return [ALL, *(page.slug for page in library)]
                case Source.TEAM:
                    return [place.team.name for place in await self._cloud.teams.of(caller)]
                case Source.NONE:  # `a|b` names the values themselves
                    return parameter.value.split("|") if "|" in parameter.value else []
        except AtollError:
            return []  # a Tab key is no place for errors


def _plain(word: str) -> Choice:
    return Choice(word=word, shown=word)


def _help(wanted: Expected, typed: Partial) -> str:
    """One line for each thing that may come here; none where `?` is a letter."""
    is_letter = typed.quote or (typed.value and wanted.command is not None) or wanted.is_prose
    if is_letter:
        return ""
    rows = [(word, text) for word, text in wanted.verbs if word.startswith(typed.value)]
    value = wanted.value
    if value is not None:
        label = value.value if value.flags else f"<{value.value}>"
        rows.append((label, value.help))
    rows += dict.fromkeys((label, text) for _, label, text in wanted.flags)
    return "\n".join(f"  {line}" for line in table(("", ""), rows).splitlines()[1:]) if rows else ""
