"""Completion: which words can stand where the line ends. Reads, never changes, never fails."""

from __future__ import annotations

import shlex

from atoll.base.errors import AtollError
from atoll.commands.addresses import Addresses
from atoll.commands.library import ALL, Library
from atoll.commands.parse import DRY_RUN_FLAG, GLOBAL, HELP_FLAG, JSON_FLAG
from atoll.commands.registry import Command, Parameter, Registry, Source
from atoll.domain.account import Caller
from atoll.services.cloud import Cloud


class Completer:
    """Knows the verbs, and asks the cloud for names."""

    def __init__(self, *, registry: Registry, cloud: Cloud) -> None:
        self._registry = registry
        self._cloud = cloud

    async def complete(self, caller: Caller, line: str) -> list[str]:
        """Candidates for the last word (the empty one after a blank), sorted."""
        cut = max(line.rfind(" "), line.rfind("\t")) + 1
        start = line[cut:]
        found = await self._candidates(caller, _words(line[:cut]), start)
        return sorted({word for word in found if word.startswith(start)})

    async def _candidates(self, caller: Caller, words: list[str], start: str) -> list[str]:
        matched = self._registry.match(words)
        if matched is None:
            return self._verbs(words)
        command, count = matched
        more = self._verbs(words) if count == len(words) else []
        option, places = _position(command, words[count:])
        if option is not None:
            return await self._values(caller, option.source)
        if start.startswith("-"):
            flags = [name for item in command.options for name in item.flags]
            more_flags = [DRY_RUN_FLAG] if command.mutates else []
            return [*flags, *more_flags, JSON_FLAG, HELP_FLAG]
        ahead = command.places[places:] or tuple(p for p in command.places[-1:] if p.is_many)
        return more + (await self._values(caller, ahead[0].source) if ahead else [])

    def _verbs(self, words: list[str]) -> list[str]:
        """Next words of verbs that begin with `words`."""
        size = len(words)
        return [
            head[size]
            for head in self._registry.heads()
            if len(head) > size and head[:size] == tuple(words)
        ]

    async def _values(self, caller: Caller, source: Source) -> list[str]:
        try:
            match source:
                case Source.VM:
                    return [vm.label for vm in await self._cloud.access.visible(caller)]
                case Source.TAG:
                    owned = await self._cloud.access.visible(caller)
                    return [tag for vm in owned for tag in vm.tags]
                case Source.IMAGE:
                    return [image.name for image in (await self._cloud.facts.node()).images]
                case Source.KEY:
                    return [key.name for key in await self._cloud.accounts.keys(caller)]
                case Source.VERB:
                    return self._verbs([])
                case Source.PAGE:
                    addresses = Addresses(self._cloud.config)
                    library = Library(registry=self._registry, addresses=addresses)
                    return [ALL, *(page.slug for page in library)]
                case Source.NONE:
                    return []
        except AtollError:
            return []  # a Tab key is no place for errors


def _words(text: str) -> list[str]:
    try:
        return [word for word in shlex.split(text) if word not in GLOBAL]
    except ValueError:
        return text.split()


def _position(command: Command, words: list[str]) -> tuple[Parameter | None, int]:
    """The option that waits for its value, and how many places are filled."""
    options = {name: option for option in command.options for name in option.flags}
    waiting: Parameter | None = None
    filled = 0
    for word in words:
        if waiting is not None:
            waiting = None
        elif word in options:
            waiting = None if options[word].is_switch else options[word]
        elif not word.startswith("-"):
            filled += 1
    return waiting, filled
