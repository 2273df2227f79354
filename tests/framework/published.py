"""VMs that a test puts before the edge."""

from __future__ import annotations

from atoll.domain.account import Account, Published


def private(name: str, address: str | None, *accounts: Account, port: int = 8000) -> Published:
    """Only these accounts may open it."""
    return Published(
        vm_name=name,
        address=address,
        port=port,
        is_public=False,
        accounts=frozenset(account.id for account in accounts),
    )


def public(name: str, address: str | None, owner: Account, port: int = 8000) -> Published:
    """Everybody may open its default port."""
    return Published(
        vm_name=name,
        address=address,
        port=port,
        is_public=True,
        accounts=frozenset({owner.id}),
    )
