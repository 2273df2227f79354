"""What the sign-in pages tell the audit: who signed in and out, and whom a VM's page was opened to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from starlette.requests import Request

from atoll.domain.account import Account, Caller, Door
from atoll.domain.audit import UNKNOWN, Act
from atoll.domain.operation import Json
from atoll.doors.front.hosts import source_of
from atoll.doors.web.visitor import Signed, caller_of, signed_in_as


class Recording(Protocol):
    """What is needed of atoll.services.audit.Audit."""

    async def of(
        self,
        caller: Caller,
        act: str,
        *,
        what: str = "",
        vm: str | None = None,
        result: str = "ok",
        detail: Mapping[str, Json] | None = None,
    ) -> None:
        """Record what a caller did; raises nothing."""

    async def record(
        self,
        *,
        who: str,
        act: str,
        door: str,
        source: str,
        result: str = "ok",
        detail: Mapping[str, Json] | None = None,
    ) -> None:
        """Record what somebody without an account did; raises nothing."""


class Witness:
    """Records what browsers come for."""

    def __init__(self, audit: Recording) -> None:
        self._audit = audit

    async def signed_in(self, request: Request, account: Account, key: str, *, how: str) -> None:
        """A new session, called `key`: begun by a link, by mail, by a passkey or by a provider."""
        caller = signed_in_as(account, key, source=source_of(request))
        await self._audit.of(caller, Act.SIGN_IN, result="ok", detail={"by": how})

    async def granted(self, caller: Caller, what: str, *, vm: str | None = None) -> None:
        """Somebody made a new way in, or let an app know who they are, by a page of its own."""
        await self._audit.of(caller, Act.GRANT, what=what, vm=vm)

    async def refused(self, request: Request, result: str, *, how: str) -> None:
        """Somebody could not sign in; what they came with is not told, for it may be good elsewhere."""
        await self._audit.record(
            who=UNKNOWN,
            act=Act.SIGN_IN,
            door=Door.WEB.value,
            source=source_of(request),
            result=result,
            detail={"by": how},
        )

    async def signed_out(self, request: Request, account: Account | None, key: str) -> None:
        """A session ended; `key` is what it was called."""
        if account is not None:
            caller = signed_in_as(account, key, source=source_of(request))
            await self._audit.of(caller, Act.SIGN_OUT)

    async def opened(
        self, request: Request, session: Signed, *, vm: str | None, url: str, result: str = "ok"
    ) -> None:
        """A browser was let in to a VM's address, or was not."""
        caller = caller_of(session, source=source_of(request))
        await self._audit.of(caller, Act.WEB, what=url, vm=vm, result=result)
