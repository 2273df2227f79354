"""A Maildir (https://cr.yp.to/proto/maildir.html) of messages that stay on this machine.

Invariant: a message in `new` is whole: it is written and synced in `tmp` first, under a name that
nobody else makes. The newest KEPT stay. Any mail program can read the folder.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import dataclass
from email import message_from_bytes, policy
from itertools import count
from pathlib import Path

from atoll.base.atomic import sync_folder

KEPT = 500
TEXT_CHARS = 20_000
UNDELIVERED = "X-Atoll-Undelivered"  # why a message is here although there is a server
_number = count(1)  # with pid and time: no two names of one machine are the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A message, as people read it; `undelivered` is why it could not be sent."""

    at: float
    to: str
    subject: str
    text: str
    undelivered: str


class Maildir:
    """One folder, made when the first message comes. Its calls block: they are for threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, message: bytes, *, at: float) -> None:
        """Keep a message. Raises OSError."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        for name in ("", "tmp", "new", "cur"):
            (self._folder / name).mkdir(exist_ok=True, mode=0o700)
        name = (
            f"{int(at)}.M{time.time_ns() // 1000 % 10**6}P{os.getpid()}Q{next(_number)}.{_host()}"
        )
        waiting, new = self._folder / "tmp" / name, self._folder / "new" / name
        fd = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(message)
                file.flush()
                os.fsync(file.fileno())
            os.rename(waiting, new)
        except BaseException:
            waiting.unlink(missing_ok=True)
            raise
        sync_folder(new.parent)
        for old in self._paths()[KEPT:]:
            old.unlink(missing_ok=True)

    def newest(self, most: int) -> tuple[Letter, ...]:
        """The last messages, newest first. Raises OSError."""
        letters = []
        for path in self._paths()[:most]:
            with contextlib.suppress(FileNotFoundError):  # it made room, or a mail program moved it
                letters.append(_letter(path.read_bytes(), at=_time(path)))
        return tuple(letters)

    def _paths(self) -> list[Path]:
        found = [path for name in ("new", "cur") for path in _entries(self._folder / name)]
        return sorted(found, key=_order, reverse=True)


def _entries(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    except FileNotFoundError:
        return []


def _order(path: Path) -> tuple[float, int, str]:
    number = path.name.partition("Q")[2].partition(".")[0]
    return _time(path), int(number) if number.isdecimal() and len(number) < 10 else 0, path.name


def _time(path: Path) -> float:
    seconds = path.name.partition(".")[0]
    return float(seconds) if seconds.isascii() and seconds.isdigit() and len(seconds) < 12 else 0.0


def _letter(data: bytes, *, at: float) -> Letter:
    message = message_from_bytes(data, policy=policy.default)
    body = message.get_body(("plain",))
    text = body.get_content() if body is not None else ""
    return Letter(
        at=at,
        to=str(message["To"] or ""),
        subject=str(message["Subject"] or ""),
        text=text[:TEXT_CHARS],
        undelivered=str(message[UNDELIVERED] or ""),
    )


def _host() -> str:
    return socket.gethostname().replace("/", r"\057").replace(":", r"\072") or "localhost"
