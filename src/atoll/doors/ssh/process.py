"""A session channel of the lobby as AsyncSSH serves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

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

    @contextmanager
    def without_editor(self) -> Iterator[None]:
        """The terminal belongs to somebody else for a while: keys and output pass unchanged."""
        if self.term_type is None:
            yield
            return
        editor = cast("asyncssh.SSHLineEditorChannel", self._chan)
        editor.set_line_mode(False)
        editor.set_echo(False)
        self._chan = editor._orig_chan
        try:
            yield
        finally:
            self._chan = cast("asyncssh.SSHServerChannel[str]", editor)
            if not self.is_closing():
                editor.set_echo(True)
                editor.set_line_mode(True)
