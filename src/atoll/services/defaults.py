"""What an account's new VMs get unless the command says otherwise. So far: a setup script."""

from __future__ import annotations

from atoll.base.errors import NotFound
from atoll.domain.account import Caller
from atoll.domain.setup import check_script
from atoll.store import defaults
from atoll.store.engine import Store

SETUP_SCRIPT = "new.setup-script"
KEYS = (SETUP_SCRIPT,)


class Defaults:
    """Reads and writes them; only their account does."""

    def __init__(self, *, store: Store) -> None:
        self._store = store

    async def all(self, caller: Caller) -> dict[str, str]:
        """Those that are set, by key."""
        async with self._store.read() as tx:
            return await defaults.of(tx, caller.account.id)

    async def read(self, caller: Caller, key: str) -> str:
        """One. Raises NotFound when it is not set."""
        found = (await self.all(caller)).get(_known(key))
        if found is None:
            raise NotFound(f"the default {key} is not set")
        return found

    async def write(self, caller: Caller, key: str, value: str) -> None:
        """Set one, for VMs made from now on. Raises Invalid for a script that cannot run."""
        _known(key)
        check_script(value)
        async with self._store.begin() as tx:
            await defaults.put(tx, caller.account.id, key, value)

    async def delete(self, caller: Caller, key: str) -> None:
        """Forget one. Raises NotFound when it is not set."""
        async with self._store.begin() as tx:
            if not await defaults.drop(tx, caller.account.id, _known(key)):
                raise NotFound(f"the default {key} is not set")


def _known(key: str) -> str:
    if key not in KEYS:
        raise NotFound(f"there is no default {key[:40]!r}", hint=f"Defaults: {', '.join(KEYS)}")
    return key
