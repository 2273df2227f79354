"""A second person on a running Atoll: an account of their own, and the key that logs it in.

Written into the store beside the running control, as the database allows: no door makes accounts for
whoever has no mail.
"""

from __future__ import annotations

from dataclasses import replace

from atoll.base import ids
from atoll.base.proc import run
from atoll.domain.account import Account
from atoll.services.public_key import parse_key
from atoll.store import accounts
from atoll.store.accounts import SshKey
from atoll.store.engine import Store
from framework.atoll import Atoll

MADE_AT = 1_800_000_000.0


async def friend(atoll: Atoll, name: str) -> Atoll:
    """The same cloud as `<name>@example.com` logs in to it; asked again, the same person."""
    key = atoll.folder / f"friend-{name}"
    if not key.exists():
        line = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)]
        await run(line, seconds=20)
        await _enter(atoll, name, key.with_suffix(".pub").read_text())
    return replace(atoll, key=key)


async def _enter(atoll: Atoll, name: str, public: str) -> None:
    key = parse_key(public)
    account = Account(id=ids.new("acct"), email=f"{name}@example.com")
    store = Store(atoll.config.database_url)
    try:
        async with store.begin() as tx:
            await accounts.add(tx, account, now=MADE_AT)
            row = SshKey(
                fingerprint=key.fingerprint,
                account=account.id,
                name="laptop",
                public_key=key.line,
                created_at=MADE_AT,
            )
            await accounts.add_key(tx, row)
    finally:
        await store.close()
