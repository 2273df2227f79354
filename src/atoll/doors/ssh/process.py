"""A session channel of the lobby: what a session needs of one, and the one that AsyncSSH serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import asyncssh

TermSize: TypeAlias = tuple[int, int, int, int]  # columns, rows, and both in pixels


class Keyboard(Protocol):
    """What is typed; reading raises what AsyncSSH raises: TerminalSizeChanged, BreakReceived."""

    async def read(self, n: int = -1) -> str:
        """What has come, at most `n` characters; empty at the end."""

    async def readline(self) -> str:
        """A line with its end; less at the end of input."""


class Screen(Protocol):
    """What is shown."""

    def write(self, data: str) -> None:
        """Show it after all that came before."""

    async def drain(self) -> None:
        """Wait until there is room for more; raises OSError when nobody is there any more."""


class Channel(Protocol):
    """What a session needs of its channel."""

    @property
    def command(self) -> str | None:
        """What is to run, or None for the prompt."""

    @property
    def subsystem(self) -> str | None:
        """Such as `sftp`."""

    @property
    def term_type(self) -> str | None:
        """None without a terminal."""

    @property
    def term_size(self) -> TermSize:
        """As it is now."""

    @property
    def env(self) -> Mapping[str, str]:
        """Variables the client sent."""

    @property
    def stdin(self) -> Keyboard:
        """Keys, or a file."""

    @property
    def stdout(self) -> Screen:
        """Results."""

    @property
    def stderr(self) -> Screen:
        """The rest."""

    def is_closing(self) -> bool:
        """Whether the other side has hung up."""

    async def hung_up(self) -> None:
        """Wait until it has."""


class Process(asyncssh.SSHServerProcess[str]):
    """Lets every subsystem start, so that `sftp host` is told why it cannot work."""

    def subsystem_requested(self, subsystem: str) -> bool:
        return True

    async def hung_up(self) -> None:
        """See Channel."""
        await self.channel.wait_closed()

    def session_started(self) -> None:
        channel = self._chan
        streams = (
            asyncssh.SSHReader[str](self, channel),
            asyncssh.SSHWriter[str](self, channel),
            asyncssh.SSHWriter[str](self, channel, asyncssh.EXTENDED_DATA_STDERR),
        )
        serving = self._start_process(*streams)
        assert serving is not None
        channel.get_connection().create_task(serving)
