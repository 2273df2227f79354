"""The caller's side of the local door: commands as the owner of this machine's cloud."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atoll.base.aio import deadline
from atoll.base.errors import Internal, Unavailable, from_wire

FRAME_LIMIT = 16 << 20
COMMAND_S = 900.0


class Local:
    """One connection per call on control's unix socket; needs root or control's user."""

    def __init__(self, *, socket: Path) -> None:
        self._socket = socket

    async def execute(
        self,
        line: str,
        *,
        progress: Callable[[str], None] = lambda _text: None,
        more: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        """`{"text", "data", "exit"}` of a command line; raises the command's own error.

        One that goes on gives `more` its text and that of each piece, until it ends, if ever; without
        `more` it is left after its first answer.
        """
        return await self._ask({"do": "execute", "line": line}, progress, more)

    async def data(self, line: str) -> dict[str, Any]:
        """The JSON object a command gives back; raises the command's own error."""
        data = (await self.execute(line))["data"]
        if not isinstance(data, dict):
            raise Internal(f"`{line}` answered {type(data).__name__} where an object was due")
        return data

    async def ensure_owner(self, *, email: str, key: str, label: str) -> str:
        """Make the first account or add a key to it; returns the account's e-mail address."""
        request = {"do": "ensure-owner", "email": email, "key": key, "label": label}
        return str((await self._ask(request))["email"])

    async def public_keys(self) -> dict[str, str]:
        """`gateway_key` and `host_ca`, OpenSSH public key lines."""
        return {str(k): str(v) for k, v in (await self._ask({"do": "public-keys"})).items()}

    async def rotate_issuer(self) -> str:
        """New signing keys at once; returns the id of the one that signs."""
        (key,) = (await self._ask({"do": "rotate-issuer"}))["keys"]
        return str(key["kid"])

    async def rotate_key(self, *, revoke: bool) -> str:
        """Sign tokens with the next key, with `revoke` forget all others; the id of the new one."""
        return str((await self._ask({"do": "rotate-key", "revoke": revoke}))["kid"])

    async def answers(self) -> bool:
        """Whether control is there."""
        try:
            await self.public_keys()
        except Unavailable:
            return False
        return True

    async def _ask(
        self,
        request: dict[str, Any],
        progress: Callable[[str], None] = lambda _text: None,
        more: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket, limit=FRAME_LIMIT)
        except OSError as error:
            raise Unavailable(
                f"control does not listen on {self._socket}: {error.strerror}",
                hint="Try: atoll doctor",
            ) from error
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            async with deadline(COMMAND_S, "control", hint="Try: atoll doctor"):
                while "reply" not in (frame := await _frame(reader)):
                    progress(str(frame.get("progress", "")))
            reply: dict[str, Any] = frame["reply"]
            if more is not None and reply.get("goes_on"):
                more(str(reply["text"]))
                between = "\n" if reply.get("is_redrawn") else ""
                while "end" not in (frame := await _frame(reader)):
                    more(between + str(frame["more"]["text"]))
            return reply
        finally:
            writer.close()


async def _frame(reader: asyncio.StreamReader) -> dict[str, Any]:
    """What control says next; raises an error that it says."""
    try:
        line = await reader.readline()
        frame: dict[str, Any] = json.loads(line) if line else {}
    except (OSError, ValueError) as error:
        raise Unavailable(f"control's answer broke off: {error}") from error
    if not line:
        raise Unavailable("control closed the connection", hint="Try: atoll doctor")
    if "error" in frame:
        raise from_wire(frame["error"])
    return frame
