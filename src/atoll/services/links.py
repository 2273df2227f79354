"""Links: web addresses that give a grant to whoever opens them and signs in.

Invariant: the store holds no secret. The second half of a link's token is a code made of its id by a
key of the cloud's own, so that the owner can be shown a link again and a copy of the store opens
nothing.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable

from atoll.base import ids
from atoll.base.errors import Exhausted, NotFound
from atoll.domain.account import Account, Caller
from atoll.domain.sharing import Grant, Level, Link, Place, Who
from atoll.domain.vm import VmRecord
from atoll.services.access import find
from atoll.services.granting import Granting
from atoll.store import grants, vms
from atoll.store.engine import Store, Tx

MAX_LINKS = 100
_ID_CHARS = 12
_TOKEN = re.compile(r"[0-9a-z]{12}[A-Za-z0-9_-]{22}")


class Links:
    """Makes, reads and removes them. `code` makes the secret half of a token from a link's id."""

    def __init__(
        self,
        *,
        store: Store,
        granting: Granting,
        code: Callable[[str], str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._granting = granting
        self._code = code
        self._now = now

    def token(self, link: Link) -> str:
        """What a link's address ends in: its id, and what only we can make of it."""
        return self._token_of(link.id)

    async def add(self, caller: Caller, name: str, place: Place, *, until: float | None) -> Link:
        """A new link to a place of the caller's VM. Raises NotFound or Exhausted."""
        async with self._store.begin() as tx:
            vm = await find(tx, caller, name)
            made = Link(
                id=ids.new("link"),
                vm=vm.id,
                port=place.port,
                path=place.path,
                created_at=self._now(),
                created_by=caller.account.id,
                expires_at=until,
            )
            if len(await grants.links_of(tx, vm.id)) >= MAX_LINKS:
                raise Exhausted(f"{MAX_LINKS} links are the most", hint=f"Try: share show {name}")
            await grants.add_link(tx, made)
        await self._granting.changed()  # its end is to be noticed
        return made

    async def remove(
        self, caller: Caller, name: str, which: str, *, evict: bool, act: str
    ) -> tuple[Link, tuple[Grant, ...]]:
        """Forget a link by its token or id; with `evict` also who came by it. Raises NotFound."""
        async with self._store.begin() as tx:
            vm = await find(tx, caller, name)
            owned = await grants.links_of(tx, vm.id)
            link = next((one for one in owned if which in (one.id, self.token(one))), None)
            if link is None:
                raise NotFound(
                    f"{vm.title} has no link {which[:60]!r}", hint=f"Try: share show {name}"
                )
            came = [g for g in await grants.of_vm(tx, vm.id) if g.link == link.id]
            out = tuple(came) if evict else ()
            await grants.remove_link(tx, link.id)
            await self._granting.remove(tx, vm, out, act=act)
        await self._granting.changed(*out)
        return link, out

    async def read(self, token: str) -> tuple[Link, VmRecord] | None:
        """The link behind a token, and where it leads; None when it is none, or over."""
        if (id_ := self._id_in(token)) is None:
            return None
        async with self._store.read() as tx:
            return await self._find(tx, id_)

    async def come(self, account: Account, token: str) -> tuple[Link, VmRecord]:
        """Give an account what a link is for. Raises NotFound; for the owner nothing is given."""
        if (id_ := self._id_in(token)) is None:
            raise _over()
        async with self._store.begin() as tx:
            found = await self._find(tx, id_)
            if found is None:
                raise _over()
            link, vm = found
            if vm.owner == account.id:
                return found
            grant = self._grant(link, account)
            await grants.link_used(tx, link.id, now=self._now())
            is_new = not _has_already(await grants.of_vm(tx, vm.id), grant)
            if is_new:
                await self._granting.put(tx, vm, grant, act=ids.new("act"))
        if is_new:
            await self._granting.changed(grant)
        return found

    async def _find(self, tx: Tx, id_: str) -> tuple[Link, VmRecord] | None:
        link = await grants.link(tx, id_)
        vm = await vms.get(tx, link.vm) if link else None
        if link is None or link.is_over(self._now()) or vm is None or vm.name is None:
            return None
        return link, vm

    def _grant(self, link: Link, account: Account) -> Grant:
        return Grant(
            id=ids.new("grant"),
            vm=link.vm,
            kind=Who.PERSON,
            who=account.email,
            port=link.port,
            path=link.path,
            created_at=self._now(),
            created_by=link.created_by,
            expires_at=link.expires_at,
            link=link.id,
        )

    def _id_in(self, token: str) -> str | None:
        """The id of a link in a token that is ours."""
        id_ = f"link-{token[:_ID_CHARS]}"
        is_ours = _TOKEN.fullmatch(token) and hmac.compare_digest(self._token_of(id_), token)
        return id_ if is_ours else None

    def _token_of(self, id_: str) -> str:
        return f"{id_.partition('-')[2]}{self._code(id_)}"


def _over() -> NotFound:
    return NotFound("this link is over or never was one", hint="Ask who sent it for another")


def _has_already(given: tuple[Grant, ...], grant: Grant) -> bool:
    """Whether they may open as much already, and for as long: a link takes nothing away."""
    return any(
        (one.kind, one.who) == (grant.kind, grant.who)
        and (one.level is Level.ROOT or (one.port, one.path) == (grant.port, grant.path))
        and (one.expires_at is None or (grant.expires_at or float("inf")) <= one.expires_at)
        for one in given
    )
