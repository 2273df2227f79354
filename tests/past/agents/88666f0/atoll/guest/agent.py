"""The guest agent: answers the engine over a virtio-serial port, one request at a time.

Invariant: it always answers what it could read, with a result or an error, and does not end. It
waits without a timer while the host is away, so an idle VM stays idle. Everything it needs is
imported up front: between freeze and thaw nothing may be written, not even a cached module.
"""

from __future__ import annotations

import errno
import os
import select
import time

from atoll.guest import wire
from atoll.guest.identity import Refused
from atoll.guest.kernel import Kernel
from atoll.guest.verbs import Verbs, say

PORT = "atoll.agent.0"
_WRITE_SECONDS = 10.0  # the host reads at once or has gone
_REOPEN_SECONDS = 0.5


class Agent:
    """Requests in, answers out; knows nothing of where the bytes come from."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs
        self._reader = wire.Reader()

    def feed(self, data: bytes) -> list[bytes]:
        """The answers, as frames, to the requests completed by `data`."""
        return [self._answer(message) for message in self._reader.feed(data)]

    def _answer(self, message: dict[str, object]) -> bytes:
        answer = {name: message.get(name) for name in ("nonce", "id")}
        try:
            _, _, verb, args = wire.parse_request(message)
            return wire.encode({"v": wire.VERSION, **answer, "ok": self._verbs.run(verb, args)})
        except (Refused, wire.WireError) as error:
            return _error(answer, "invalid", str(error))
        except OSError as error:
            return _error(answer, "failed", str(error))
        except Exception as error:  # noqa: BLE001  a defect here must not cost the VM its agent
            return _error(answer, "internal", f"{type(error).__name__}: {error}")


def _error(answer: dict[str, object], code: str, message: str) -> bytes:
    body = {"code": code, "message": message[:2000]}
    try:
        return wire.encode({"v": wire.VERSION, **answer, "error": body})
    except wire.WireError:  # a nonce or id of a megabyte: nobody waits for that answer
        return wire.encode({"v": wire.VERSION, "nonce": "", "id": 0, "error": body})


def serve(agent: Agent, fd: int) -> None:
    """Answer on `fd` until it fails (OSError) or, for a socket, until the other side closes it.

    A virtio port reads as ended while no host is connected; the edge-triggered wait then sleeps
    until the kernel reports a change, where a level-triggered one would spin.
    """
    os.set_blocking(fd, False)
    is_port = not _is_socket(fd)
    with select.epoll() as changes:
        changes.register(fd, select.EPOLLIN | select.EPOLLET)
        while True:
            data = _read(fd)
            if data:
                for frame in agent.feed(data):
                    _write(fd, frame)
            elif data is None or is_port:
                changes.poll()
            else:
                return


def _read(fd: int) -> bytes | None:
    """What is there; empty when the other side is away, None when there is nothing yet."""
    try:
        return os.read(fd, 65_536)
    except BlockingIOError:
        return None


def _write(fd: int, frame: bytes) -> None:
    """Send all of `frame`, or give it up when the host does not read; the next resynchronises."""
    deadline = time.monotonic() + _WRITE_SECONDS
    view = memoryview(frame)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(fd, select.POLLOUT)
            left = deadline - time.monotonic()
            if left <= 0 or any(event & select.POLLHUP for _, event in waiting.poll(left * 1000)):
                return


def _is_socket(fd: int) -> bool:
    return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")


def find_port(name: str = PORT) -> str | None:
    """The device of the virtio-serial port called `name`, without waiting for udev's link."""
    folder = "/sys/class/virtio-ports"
    try:
        for port in os.listdir(folder):
            with open(f"{folder}/{port}/name", encoding="ascii") as file:
                if file.read().strip() == name:
                    return f"/dev/{port}"
    except OSError:
        return None
    return None


def main() -> None:
    """Serve for ever; a port that is missing, busy or gone is tried again."""
    verbs = Verbs(Kernel())
    if problem := verbs.start():
        say(problem)
    agent = Agent(verbs)
    while True:
        path = find_port()
        if path is not None:
            try:
                fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    serve(agent, fd)
                finally:
                    os.close(fd)
            except OSError as error:
                if error.errno not in (errno.ENODEV, errno.EBUSY, errno.ENOENT, errno.EPIPE):
                    say(f"{path}: {error.strerror}")
        time.sleep(_REOPEN_SECONDS)


if __name__ == "__main__":
    main()
