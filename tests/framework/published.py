"""VMs as the edge is told of them, in the few words most tests need."""

from __future__ import annotations

from collections.abc import Collection

from atoll.domain.account import Published
from atoll.domain.sharing import EVERY_PORT, EVERYBODY, Opening


def openings(
    accounts: Collection[str] = (), *, is_public: bool = False, port: int = 8000
) -> frozenset[Opening]:
    """These accounts may open everything; with `is_public` everybody the VM's own port."""
    owned = {Opening(account=account, port=EVERY_PORT) for account in accounts}
    return frozenset(owned | ({Opening(account=EVERYBODY, port=port)} if is_public else set()))


def published(
    name: str,
    address: str | None,
    accounts: Collection[str] = (),
    *,
    is_public: bool = False,
    port: int = 8000,
) -> Published:
    """A VM."""
    opened = openings(accounts, is_public=is_public, port=port)
    return Published(vm_name=name, address=address, port=port, openings=opened)
