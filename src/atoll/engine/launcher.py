"""QEMU processes of this node: each in the jail and in a control group of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from atoll.base import log
from atoll.engine import launch
from atoll.engine.cgroup import Cgroups
from atoll.engine.jail import Jail
from atoll.engine.launch import Process

_log = log.get("launcher")


class Launcher:
    """Starts, finds again and removes them."""

    def __init__(self, *, jail: Jail, cgroups: Cgroups) -> None:
        self._jail = jail
        self._cgroups = cgroups

    async def start(
        self,
        vm: str,
        argv: Sequence[str],
        *,
        fds: Sequence[int],
        uid: int,
        memory_bytes: int,
        cpus: int,
    ) -> Process:
        """Run `argv` for `vm`; see `launch.launch`. Left-overs of an earlier process are ended."""
        await self._cgroups.group(vm).remove()
        group = self._cgroups.create(vm, memory_bytes=memory_bytes, cpus=cpus)
        return await launch.launch(argv, jail=self._jail, group=group, uid=uid, pass_fds=fds)

    def adopt(self, pid: int, start_time: int) -> Process | None:
        """A process that an earlier engine started; None when it has ended."""
        return launch.adopt(pid, start_time)

    async def end(self, vm: str) -> None:
        """Kill whatever runs for `vm` and remove its group."""
        await self._cgroups.group(vm).remove()

    async def remove_strays(self, known: Collection[str]) -> None:
        """End processes of VMs that no record names."""
        for vm in sorted(self._cgroups.existing() - set(known)):
            _log.warning("stray vm process removed", vm=vm)
            await self.end(vm)
