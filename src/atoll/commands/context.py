"""What a verb's body works with: who calls, the cloud, sign-in, and a way to report progress."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from atoll.base import ids
from atoll.commands.addresses import Addresses
from atoll.commands.registry import Registry
from atoll.domain.account import Caller
from atoll.services.cloud import Cloud
from atoll.services.sessions import Browser
from atoll.store.engine import Store


class Sessions(Protocol):
    """The part of sign-in that verbs use."""

    def upon(self, store: Store) -> Sessions:
        """The same, on another store: for a dry run."""
        ...

    async def login_code(self, account_id: str, *, seconds: float = 600.0) -> str:
        """A one-time code that signs a browser in."""
        ...

    async def of(self, account_id: str) -> tuple[Browser, ...]:
        """Where an account is signed in, the one seen last first."""
        ...

    async def end(self, account_id: str, keys: Collection[str]) -> None:
        """Sign these of an account's browsers out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One run of one verb. `act` marks everything it does in the journal."""

    caller: Caller
    registry: Registry
    cloud: Cloud
    sessions: Sessions
    stdin: bytes = b""
    progress: Callable[[str], None] = lambda _text: None
    act: str = field(default_factory=lambda: ids.new("act"))

    @property
    def addresses(self) -> Addresses:
        """Names and URLs as the user types them."""
        return Addresses(self.cloud.config)
