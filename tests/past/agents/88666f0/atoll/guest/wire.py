"""Frames between the engine and the guest agent, read alike by both; neither trusts the other.

A frame is one start byte, the length of the body and its CRC-32 (8 hex digits each), then the body:
JSON in ASCII. The start byte is not ASCII, so it occurs nowhere else: wherever it stands a frame
begins, and whatever was unfinished before it is dropped.
That is what makes the stream safe to cut anywhere: a VM resumed from a snapshot or clone may hold
half a message of its parent's life on either side.

A request carries the `nonce` its connection drew and an `id`; its answer repeats both, so an answer
meant for a parent, or for a request that was given up, is recognised and dropped.
"""

from __future__ import annotations

import json
from binascii import crc32

VERSION = 1
BODY_LIMIT = 1 << 20
START = 0xFE
_HEADER = 16  # hex digits after the start byte
_HEX = frozenset(b"0123456789abcdef")


class WireError(ValueError):
    """A message that cannot be sent, or a request that is not one."""


def encode(message: dict[str, object]) -> bytes:
    """One frame. Raises WireError when the body would pass BODY_LIMIT bytes or is not JSON."""
    try:
        text = json.dumps(message, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise WireError(f"not a message: {error}") from error
    body = text.encode("ascii")
    if len(body) > BODY_LIMIT:
        raise WireError(f"a message of {len(body)} bytes is over the limit of {BODY_LIMIT}")
    return b"%c%08x%08x%b" % (START, len(body), crc32(body), body)


class Reader:
    """Turns bytes as they arrive into messages; never raises, never holds over BODY_LIMIT bytes.

    `dropped` counts frames that began and were not used: cut, oversized, damaged, or not an object.
    """

    def __init__(self) -> None:
        self._frame: bytearray | None = None  # what followed the last start byte
        self._size = 0
        self._crc = 0
        self.dropped = 0

    def feed(self, data: bytes) -> list[dict[str, object]]:
        """The messages completed by `data`, in order."""
        messages: list[dict[str, object]] = []
        head, *frames = data.split(bytes([START]))
        self._take(head, messages)
        for frame in frames:
            self._drop()
            self._frame = bytearray()
            self._take(frame, messages)
        return messages

    def _take(self, part: bytes, messages: list[dict[str, object]]) -> None:
        """Add bytes without a start byte to the frame in hand, if there is one."""
        frame = self._frame
        if frame is None or not part:
            return
        if len(frame) < _HEADER:
            missing = _HEADER - len(frame)
            frame += part[:missing]
            part = part[missing:]
            if len(frame) < _HEADER:
                return
            if not _HEX.issuperset(frame) or int(frame[:8], 16) > BODY_LIMIT:
                return self._drop()
            self._size, self._crc = int(frame[:8], 16), int(frame[8:], 16)
        frame += part[: _HEADER + self._size - len(frame)]
        if len(frame) == _HEADER + self._size:
            body = bytes(frame[_HEADER:])
            message = _decode(body) if crc32(body) == self._crc else None
            if message is None:
                return self._drop()
            self._frame = None
            messages.append(message)

    def _drop(self) -> None:
        if self._frame is not None:
            self._frame = None
            self.dropped += 1


def _decode(body: bytes) -> dict[str, object] | None:
    """The object in `body`, or None; deep nesting and odd numbers are the sender's problem."""
    try:
        message = json.loads(body.decode("ascii"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _refuse(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def request(nonce: str, number: int, verb: str, args: dict[str, object]) -> dict[str, object]:
    """A request as it goes into a frame."""
    return {"v": VERSION, "nonce": nonce, "id": number, "verb": verb, "args": args}


def parse_request(message: dict[str, object]) -> tuple[str, int, str, dict[str, object]]:
    """(nonce, id, verb, args) of a request. Raises WireError when it is not one."""
    nonce, number = message.get("nonce"), message.get("id")
    verb, args = message.get("verb"), message.get("args")
    if message.get("v") != VERSION:
        raise WireError(f"version {str(message.get('v'))[:20]} is not {VERSION}")
    if not isinstance(nonce, str) or not 0 < len(nonce) <= 64:
        raise WireError("nonce is not a short string")
    if not isinstance(number, int) or isinstance(number, bool):
        raise WireError("id is not a number")
    if not isinstance(verb, str) or not isinstance(args, dict):
        raise WireError("verb and args are missing")
    return nonce, number, verb, args


def is_answer(message: dict[str, object], nonce: str, number: int) -> bool:
    """True when `message` answers exactly this request."""
    return message.get("nonce") == nonce and message.get("id") == number
