"""The real guest agent as a process on a unix socket instead of a virtio port.

`python agent_program.py <socket> <root> [<mount point>]`: with a mount point the real kernel
freezes that one file system; everything else of the machine stays out of reach.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from atoll.guest.agent import Agent, serve
from atoll.guest.kernel import Kernel
from atoll.guest.verbs import Verbs
from fakes.guest_kernel import FakeKernel


class OneMount(FakeKernel):
    """Freezes and thaws for real, at one mount point; the rest is the fake's."""

    def writable_mounts(self) -> list[tuple[str, str]]:
        return [mount for mount in Kernel.writable_mounts(self) if mount[0] in self.mounts]

    def freeze(self, point: str) -> int | None:
        return Kernel.freeze(self, point)

    def thaw(self, fd: int) -> None:
        Kernel.thaw(self, fd)


def main(path: str, root: str, *mounts: str) -> None:
    """Serve one connection after the other."""
    kernel = OneMount(root, mounts) if mounts else FakeKernel(root, ("/",))
    verbs = Verbs(kernel)
    verbs.start()
    agent = Agent(verbs)
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    serve(agent, connection.fileno())
                except OSError:
                    continue


if __name__ == "__main__":
    main(*sys.argv[1:])
