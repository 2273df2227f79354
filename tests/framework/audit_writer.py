"""Writes records for ever, twenty at a time, and prints each one that was acknowledged: to be killed.

python tests/framework/audit_writer.py DATABASE
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterator

from atoll.base.aio import together
from atoll.services.audit import Audit
from atoll.store.engine import Store


async def _write(audit: Audit, numbers: Iterator[int]) -> None:
    for number in numbers:
        await audit.record(
            who="ann@example.com",
            account="acct-ann",
            act="command",
            door="ssh",
            source="",
            what=str(number),
        )
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


async def main(database: str) -> None:
    """Until it is killed."""
    audit, numbers = Audit(store=Store(f"sqlite+aiosqlite:///{database}")), itertools.count()
    await together(*(_write(audit, numbers) for _ in range(20)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
