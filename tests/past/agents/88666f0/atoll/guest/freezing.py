"""Hold every writable file system still for a moment, and never longer than was promised.

Invariant: what is frozen is thawed: by `thaw`, else by the watchdog, else (the agent was killed) by
`recover` of the next agent, which finds the marker on tmpfs. Between freeze and thaw nothing here
opens, writes or imports a file of a frozen file system. Reading stays possible on a frozen one, so
the agent's own code need not be locked in memory.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from atoll.guest.kernel import Kernel

SECONDS_LIMIT = 60.0
MARKER = "run/atoll-frozen"


class Freezing:
    """The file systems this agent holds now, and the watchdog that lets go of them."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._marker = os.path.join(kernel.root, MARKER)
        self._lock = threading.Lock()
        self._held: list[tuple[str, int]] = []
        self._expired = False
        self._let_go = threading.Event()
        self._watchdog: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """True between a freeze and its thaw."""
        with self._lock:
            return bool(self._held)

    def freeze(self, seconds: float) -> list[str]:
        """Freeze newest mounts first, for at most `seconds`; returns their mount points.

        Newest first: a loop mount must be still before the file system its file is on. When one
        fails, those already frozen are thawed and the error is raised.
        """
        self.thaw()
        self._expired = False
        self._let_go = threading.Event()
        with open(self._marker, "w", encoding="ascii"):
            pass
        self._watchdog = threading.Thread(
            target=self._watch, args=(self._let_go, seconds), daemon=True
        )
        self._watchdog.start()  # before the first freeze: flushing may take long by itself
        try:
            for point, _ in reversed(self._kernel.writable_mounts()):
                fd = self._kernel.freeze(point)
                if fd is not None:
                    self._hold(point, fd)
        except BaseException:
            self.thaw()
            raise
        with self._lock:
            return [point for point, _ in self._held]

    def thaw(self) -> tuple[list[str], bool]:
        """Let go: (mount points thawed now, True when the watchdog was faster)."""
        self._let_go.set()
        return self._release(), self._expired

    def recover(self) -> None:
        """Thaw what an agent that died left frozen."""
        if os.path.exists(self._marker):
            for point, _ in self._kernel.writable_mounts():
                with suppress(OSError):
                    fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    self._kernel.thaw(fd)
            self._unmark()

    def _hold(self, point: str, fd: int) -> None:
        with self._lock:
            if not self._expired:
                self._held.append((point, fd))
                return
        self._kernel.thaw(fd)
        raise TimeoutError(f"flushing took longer than the freeze may last ({point})")

    def _watch(self, let_go: threading.Event, seconds: float) -> None:
        if not let_go.wait(seconds):
            with self._lock:
                if let_go is not self._let_go:
                    return  # thawed and frozen anew in this very moment
                self._expired = True
            self._release()

    def _release(self) -> list[str]:
        """Thaw in the opposite order; every one is tried, the first error is raised after."""
        with self._lock:
            held, self._held = self._held, []
            failures = []
            for point, fd in reversed(held):
                try:
                    self._kernel.thaw(fd)
                except OSError as error:
                    failures.append(OSError(error.errno, f"thaw of {point}: {error.strerror}"))
            self._unmark()
        if failures:
            raise failures[0]
        return [point for point, _ in reversed(held)]

    def _unmark(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._marker)
