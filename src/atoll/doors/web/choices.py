"""What a form offers to choose from: the same words completion offers at the prompt."""

from __future__ import annotations

from typing import Protocol

from atoll.commands.complete import Choices
from atoll.commands.registry import Source
from atoll.domain.account import Caller

# A line at whose end such a name may stand.
_LINES = {Source.IMAGE: "new --image ", Source.VM: "share show "}


class Completing(Protocol):
    """What is needed of atoll.commands.language.Language."""

    async def choices(self, caller: Caller, line: str) -> Choices:
        """What can stand at the end of `line`."""
        ...


class Choosing:
    """Asks completion."""

    def __init__(self, language: Completing) -> None:
        self._language = language

    async def names(self, caller: Caller, source: Source) -> tuple[str, ...]:
        """Names of that kind, sorted."""
        found = await self._language.choices(caller, _LINES[source])
        return tuple(choice.word for choice in found.items if choice.is_value)
