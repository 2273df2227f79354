"""Replies that go on, as every door carries them: in JSON if that was asked for, and not too many."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from atoll.base.errors import Exhausted
from atoll.base.text import json_escape
from atoll.commands.render import as_json
from atoll.commands.reply import Piece, Reply

FLAGS = frozenset({"--follow", "--watch"})  # what makes a command go on
MOST = 50  # of one account: each costs a look at the store per change


class Audience:
    """Who listens to replies that go on, counted by account."""

    def __init__(self) -> None:
        self._listening: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many listen now."""
        return self._listening.total()

    def admit(self, account: str, reply: Reply) -> Reply:
        """The same reply, whose going on is counted while somebody listens to it."""
        if reply.more is None:
            return reply
        return replace(reply, more=self._counted(account, reply.more))

    async def _counted(
        self, account: str, more: AsyncGenerator[Piece, None]
    ) -> AsyncGenerator[Piece, None]:
        if self._listening[account] >= MOST:
            raise Exhausted(
                f"{MOST} commands of an account that go on ({', '.join(sorted(FLAGS))}) are the most",
                hint="End one of them first",
            )
        self._listening[account] += 1
        try:
            async with aclosing(more):
                async for piece in more:
                    yield piece
        finally:
            self._listening -= Counter({account: 1})  # forgets accounts without anybody


def in_json(reply: Reply) -> Reply:
    """The reply as `--json` prints it; one that goes on is a line of JSON per piece."""
    if reply.more is None:
        return Reply(data=reply.data, text=as_json(reply.data), exit=reply.exit)
    return Reply(data=reply.data, text=_line(reply.data), exit=reply.exit, more=_lines(reply.more))


async def _lines(more: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    async with aclosing(more):
        async for piece in more:
            yield replace(piece, text=_line(piece.data))


def _line(data: Any) -> str:
    return json_escape(json.dumps(data, ensure_ascii=False))
