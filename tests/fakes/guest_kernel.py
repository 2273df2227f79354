"""A kernel for the guest agent that moves nothing: it records, and holds file systems in memory.

tests/engine/test_guest_kernel.py runs the same freeze contract on it and on the real one.
"""

from __future__ import annotations

from atoll.guest.kernel import Kernel


class FakeKernel(Kernel):
    """Same answers as Kernel; `frozen` maps mount points to descriptors given out."""

    def __init__(self, root: str, mounts: tuple[str, ...] = ("/", "/data")) -> None:
        super().__init__(root)
        self.mounts = mounts
        self.frozen: dict[int, str] = {}
        self.calls: list[tuple[str, object]] = []
        self.fails_at = ""
        self._next = 1000

    def set_clock(self, unix_time_ns: int) -> int:
        self.calls.append(("clock", unix_time_ns))
        return 5

    def add_entropy(self, data: bytes) -> None:
        self.calls.append(("entropy", data))

    def set_hostname(self, name: str) -> None:
        self.calls.append(("hostname", name))

    def power(self, mode: str) -> None:
        self.calls.append(("power", mode))

    def grow_root(self) -> int:
        self.calls.append(("grow", self.root))
        return 1 << 30

    def writable_mounts(self) -> list[tuple[str, str]]:
        return [(point, "ext4") for point in self.mounts]

    def freeze(self, point: str) -> int | None:
        if point == self.fails_at:
            raise OSError(5, "Input/output error")
        if point in self.frozen.values():
            return None
        self._next += 1
        self.frozen[self._next] = point
        self.calls.append(("freeze", point))
        return self._next

    def thaw(self, fd: int) -> None:
        self.calls.append(("thaw", self.frozen.pop(fd)))
