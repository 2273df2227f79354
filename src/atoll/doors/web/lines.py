"""What pages show is what lines of the language say: no more than their visitor could type."""

from __future__ import annotations

import shlex
from typing import Any

from atoll.domain.account import Caller
from atoll.doors.web.acts import Executing


class Lines:
    """Reads by running verbs that change nothing."""

    def __init__(self, language: Executing) -> None:
        self._language = language

    async def data(self, caller: Caller, *words: str) -> Any:
        """The JSON of a line of these words. Raises AtollError."""
        return (await self._language.execute(caller, shlex.join(words))).data
