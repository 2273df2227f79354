"""The lobby: one command per `ssh host <command>`, or a prompt when none is given.

It serves the session channels that end here; `session` is one of them.
"""

from __future__ import annotations

import asyncssh

from atoll.base.errors import AtollError, Internal
from atoll.base.log import get
from atoll.doors.ssh.process import Process
from atoll.doors.ssh.session import History, Language, Session, VmOpener
from atoll.doors.ssh.visitor import Visitor

_log = get(__name__)


class Lobby:
    """Serves the sessions that end here: commands, the prompt, and bad news."""

    def __init__(self, *, language: Language, history: History, opener: VmOpener) -> None:
        self._language = language
        self._history = history
        self._opener = opener

    def session(self) -> asyncssh.SSHServerProcess[str]:
        """A new session channel for AsyncSSH."""
        return Process(self.serve, None, 0, False)

    async def serve(self, process: asyncssh.SSHServerProcess[str]) -> None:
        """Handle one session channel to its end."""
        assert isinstance(process, Process)
        visitor = process.channel.get_connection().get_owner()
        if not isinstance(visitor, Visitor):  # the connection is gone already
            return
        session = Session(
            language=self._language,
            history=self._history,
            opener=self._opener,
            process=process,
            visitor=visitor,
        )
        code = await served(session, visitor.user)
        if not process.is_closing():
            process.exit(code)


async def served(session: Session, user: str) -> int:
    """Run a session to its end, also when it fails; its exit code."""
    try:
        return await session.run()
    except AtollError as error:
        return session.fail(error)
    except (asyncssh.Error, OSError):  # the client left
        return Internal.exit
    except Exception:  # noqa: BLE001 - the door is where defects end
        _log.exception("lobby session failed", user=user)
        return session.fail(Internal("This is a defect of Atoll", hint="Its log has details"))
