"""What control says it cannot do, asked at its local door."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from atoll.base.errors import AtollError
from atoll.base.timeout import timeout
from atoll.doctor.finding import Finding, degraded, ok

ASK_S = 10.0
_ANSWER_BYTES = 1 << 20


async def examine(socket: Path) -> list[Finding]:
    """Nothing when control does not answer: that its process is gone is said elsewhere."""
    try:
        async with timeout(ASK_S):
            problems = await _problems(socket)
    except (AtollError, OSError, ValueError, KeyError, TypeError):
        return []
    if not problems:
        return [ok("audit", "every record is written")]
    return [degraded("control", each, "df -h, and the log of control") for each in problems]


async def _problems(socket: Path) -> list[str]:
    reader, writer = await asyncio.open_unix_connection(socket, limit=_ANSWER_BYTES)
    try:
        writer.write(b'{"do": "problems"}\n')
        return [str(each) for each in json.loads(await reader.readline())["reply"]["problems"]]
    finally:
        writer.close()
