"""What a verb's body works with: who calls, the cloud, sign-in, and a way to report progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from atoll.base import ids
from atoll.commands.addresses import Addresses
from atoll.commands.registry import Registry
from atoll.domain.account import Account, Caller
from atoll.services.cloud import Cloud
from atoll.store.engine import Store


class ApiToken(Protocol):
    """What is shown of an API token."""

    @property
    def label(self) -> str: ...
    @property
    def cmds(self) -> tuple[str, ...] | None: ...
    @property
    def vm(self) -> str | None: ...
    @property
    def expires_at(self) -> float | None: ...
    @property
    def fingerprint(self) -> str: ...


class Sessions(Protocol):
    """The part of sign-in that verbs use."""

    def upon(self, store: Store) -> Sessions:
        """The same, on another store: for a dry run."""
        ...

    async def login_code(self, account_id: str, *, seconds: float = 600.0) -> str:
        """A one-time code that signs a browser in."""
        ...

    async def new_api_token(
        self,
        account: Account,
        label: str = "",
        cmds: Sequence[str] | None = None,
        vm: str | None = None,
        expires_at: float | None = None,
    ) -> tuple[str, str]:
        """A new token: its label, and the token, shown once."""
        ...

    async def api_tokens(self, account: Account) -> Sequence[ApiToken]:
        """The account's tokens, oldest first."""
        ...

    async def remove_api_token(self, account: Account, label: str) -> bool:
        """Forget a token; False: no such label."""
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
