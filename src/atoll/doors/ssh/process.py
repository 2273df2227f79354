"""A session channel of the lobby as AsyncSSH serves it."""

from __future__ import annotations

import asyncssh


class Process(asyncssh.SSHServerProcess[str]):
    """Lets every subsystem start, so that `sftp host` is told why it cannot work."""

    def subsystem_requested(self, subsystem: str) -> bool:
        return True

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
