"""Warm templates before they are asked for: one build at a time, in the background.

What is built: the default size whenever its image is installed and its template is not there (QEMU
was upgraded, a file was damaged), and each size that a `create` had to boot cold for. Nobody waits for
it, and it takes none of the engine's `starts_at_once`. Between builds what nobody uses is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from atoll.base import log
from atoll.base.errors import AtollError, Exhausted
from atoll.base.timeout import timeout
from atoll.base.units import MIB, parse_size, show_size
from atoll.config import Config
from atoll.domain.template_plans import Backlog, Size
from atoll.engine.boot import Boot, Host
from atoll.engine.disks import Disks
from atoll.engine.images.installed import Installed
from atoll.engine.pruning import Pruning
from atoll.engine.space import ENOUGH
from atoll.engine.warm import Warm
from atoll.rpc.messages import Event, Spec

LOOK_S = 300.0  # what deleted VMs leave idle goes within this, and a failed build is tried again
REASON = 160  # characters of a failure that are told
_log = log.get("ahead")


class Ahead:
    """The queue of templates to build, and who works it off."""

    def __init__(
        self,
        *,
        config: Config,
        host: Host,
        images: Installed,
        boot: Boot,
        disks: Disks,
        warm: Warm,
        pruning: Pruning,
        publish: Callable[[Event], None],
    ) -> None:
        self._config = config
        self._host = host
        self._images = images
        self._boot = boot
        self._disks = disks
        self._warm = warm
        self._pruning = pruning
        self._publish = publish
        self._backlog = Backlog()
        self._due = asyncio.Event()

    def missed(self, spec: Spec) -> bool:
        """A VM of `spec` had to boot: whether a template for the next one is being made."""
        try:
            built = self._images.current(spec.image)
            size = self._warm.size(built, spec.cpus, spec.memory_bytes, spec.disk_bytes)
            if self._boot.template_for(size) is not None:
                return False  # it could not be loaded: another would not help
        except (AtollError, OSError):  # the VM runs; the next one of its size asks again
            return False
        if self._config.engine.templates_kept == 0 and size != self._default():
            return False
        self.look()
        return self._backlog.ask(size, time.monotonic())

    def look(self) -> None:
        """Something may be there to build or to remove."""
        self._due.set()

    @property
    def problems(self) -> tuple[str, ...]:
        """Sizes that boot cold although they should not."""
        default, failures = self._default(), self._backlog.failures
        found = [
            f"no warm template of {size}: {failure.reason}"
            for size, failure in failures.items()
            if self._boot.template_for(size) is None
        ]
        if default and default not in failures and self._boot.template_for(default) is None:
            found.append(f"VMs boot cold until the template of {default} is made again")
        return tuple(found)

    async def run(self) -> None:
        """For ever."""
        while True:
            self._due.clear()
            try:
                await self._prune()
                size = self._next()
            except (AtollError, OSError) as error:  # the image's recipe: it is being upgraded
                _log.warning("templates not looked after", reason=str(error))
                size = None
            if size is not None:
                await self._build(size)
            else:
                await self._wait()

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with timeout(LOOK_S):
                await self._due.wait()

    def _next(self) -> Size | None:
        default = self._default()
        if default is not None:
            found = self._boot.template_for(default)
            if found is not None and found.disk_bytes == default.disk_bytes:
                default = None  # a smaller one would do, but every VM would have to grow its disk
        return self._backlog.next(time.monotonic(), default)

    async def _build(self, size: Size) -> None:
        try:
            self._check_room(size)
            meta = await self._warm.make(size)
        except (AtollError, OSError, ValueError) as error:  # ValueError: a size no VM can have
            reason = error.message if isinstance(error, AtollError) else str(error)
            _log.warning("no template ahead", size=str(size), reason=reason)
            self._backlog.failed(size, reason[:REASON] or "it took too long", time.monotonic())
            return
        self._backlog.done(size)
        _log.info("template built ahead", size=str(size), template=meta.id)

    def _check_room(self, size: Size) -> None:
        """Ahead of need is no reason to fill the pool."""
        free_bytes = self._disks.free_bytes()
        if free_bytes < size.memory_bytes + ENOUGH:
            raise Exhausted(
                f"it may take {show_size(size.memory_bytes)}, the pool has {show_size(free_bytes)} left"
            )

    async def _prune(self) -> None:
        default = self._default()
        template = self._boot.template_for(default) if default else None
        removed = await self._pruning.run(template)
        if removed:
            detail = f"{removed} unused warm template{'s' * (removed > 1)} removed"
            self._publish(Event(at=time.time(), kind="template-gone", detail=detail))

    def _default(self) -> Size | None:
        """What `new` makes when nothing is said; None while its image is not installed."""
        vms = self._config.vms
        try:
            built = self._images.current(vms.image)
            memory_bytes = parse_size(vms.memory, what="vms.memory") // MIB * MIB
            return self._warm.size(built, vms.cpus_on(self._host.accel.name), memory_bytes)
        except (AtollError, OSError):  # or a setting that is no size: `new` says so
            return None
