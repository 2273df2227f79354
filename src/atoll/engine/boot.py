"""Bringing one VM's process to life and its guest to an identity.

Owns the way from a record to a running, acknowledged guest: shape, template, network slot, process,
boot, identity, port. What an operation means is `service`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from atoll.base import atomic, log
from atoll.base.aio import TaskGroup, shielded, unless
from atoll.base.errors import AtollError, Internal, Unavailable
from atoll.config import Config
from atoll.domain.template_plans import Size
from atoll.engine.agent import GuestFailed
from atoll.engine.disk.openings import OpenChain
from atoll.engine.disks import Disks
from atoll.engine.images.cache import BuiltImage
from atoll.engine.images.installed import Installed
from atoll.engine.launcher import Launcher
from atoll.engine.net.address import Slot
from atoll.engine.net.network import Network
from atoll.engine.qemu import machine as qemu
from atoll.engine.qemu.argv import Shape, shape_key
from atoll.engine.qemu.machine import Machine, Saved
from atoll.engine.qemu.probe import Accel, cpu_name
from atoll.engine.records import Record
from atoll.engine.templates import Loaded, Meta, Templates
from atoll.rpc.messages import Identity, Spec

BOOT_S = 240.0  # cold boots take 15-36 s under TCG alone, several times that in a crowd
ACK_S = 30.0
CLOCK_TRUSTED_S = 0.1  # a round trip takes 1 ms, and some more on a crowded host
CLOCK_TRIES = 10
RELEASE_S = 30.0
_log = log.get("boot")

HoldSlot = Callable[[str, int], Record]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What every shape on this node has in common."""

    accel: Accel
    qemu_version: str

    def shape(self, image: BuiltImage, cpus: int, memory_bytes: int) -> Shape:
        """The machine that runs `image` with this size."""
        version = self.qemu_version
        if self.accel.name == "kvm":
            version += f" on {cpu_name()}"  # `-cpu host` state fits this CPU only
        return Shape(
            arch=platform.machine(),
            accel=self.accel.name,
            cpu_model=self.accel.cpu_model,
            cpus=cpus,
            memory_bytes=memory_bytes,
            cmdline=f"{image.cmdline} {image.cmdline_tcg}"
            if self.accel.name == "tcg"
            else image.cmdline,
            kernel=image.digest,
            qemu_version=version,
        )


def _data(event: Mapping[str, object]) -> dict[str, object]:
    data = event.get("data")
    return {str(key): value for key, value in data.items()} if isinstance(data, dict) else {}


async def _end_of(machine: Machine) -> None:
    """Raises Unavailable as soon as the process ends."""
    await machine.process.wait_exit(seconds=None)
    raise Unavailable(f"qemu of {machine.vm} ended: {machine.process.said()[-500:]}")


async def set_clock(machine: Machine) -> None:
    """Step the guest's wall clock until one round trip was short enough to trust the result.

    A busy guest may take seconds to read a message, and is then that much behind.
    """
    for _ in range(CLOCK_TRIES):
        sent = time.monotonic()
        await machine.agent.clock(time.time_ns(), seconds=ACK_S)
        if time.monotonic() - sent < CLOCK_TRUSTED_S:
            return


class Boot:
    """Starts machines."""

    def __init__(
        self,
        *,
        config: Config,
        host: Host,
        images: Installed,
        templates: Templates,
        disks: Disks,
        network: Network,
        launcher: Launcher,
        group: TaskGroup,
    ) -> None:
        self._config = config
        self._host = host
        self._images = images
        self._templates = templates
        self._disks = disks
        self._network = network
        self._launcher = launcher
        self._group = group
        self._prologues: dict[str, bytes] = {}
        self._prologue_lock = asyncio.Lock()
        self._watching: set[asyncio.Task[None]] = set()

    # -- choosing

    async def choose(self, spec: Spec) -> tuple[Loaded | None, BuiltImage]:
        """The warm template that fits `spec` (None: boot cold) and the image it is of.

        Raises NotFound for an unknown image, Unavailable for one that is not built yet.
        """
        image = self._images.current(spec.image)
        meta = self._find(image, spec)
        if meta is None:
            return None, image
        try:
            return await self._templates.load(meta.id), image
        except (Internal, Unavailable) as error:
            _log.error("template unusable, booting cold", reason=str(error))
            return None, image

    async def load_template(self, template: str) -> None:
        """Have its memory at hand. Raises Internal when it is missing or damaged."""
        await self._templates.load(template)

    def template_for(self, wanted: Spec | Size) -> Meta | None:
        """The template that new VMs like this start from. Raises as `choose` does."""
        return self._find(self._images.current(wanted.image), wanted)

    def _find(self, image: BuiltImage, wanted: Spec | Size) -> Meta | None:
        return self._templates.find(self.key_of(image, wanted), image.digest, wanted.disk_bytes)

    def key_of(self, image: BuiltImage, wanted: Spec | Size) -> str:
        """Shape key of the machine that new VMs like this get."""
        return shape_key(self._host.shape(image, wanted.cpus, wanted.memory_bytes))

    def shape(self, record: Record) -> Shape:
        """The machine of a VM, with the kernel it was made with."""
        image = self._images.by_digest(record.image)
        return self._host.shape(image, record.spec.cpus, record.spec.memory_bytes)

    def key(self, record: Record) -> str:
        """Shape key of a VM."""
        return shape_key(self.shape(record))

    # -- processes

    async def start(
        self, record: Record, saved: Saved | None, hold: HoldSlot, *, forked: bool
    ) -> Machine:
        """A process for `record`, vCPUs halted. `hold` writes its slot down first.

        `forked`: `saved` has run elsewhere, or before. Raises AtollError; nothing is left running then.
        """
        slot = await self._take_slot(record, hold)
        image, shape = self._images.by_digest(record.image), self.shape(record)
        with contextlib.ExitStack() as ours:
            ram, remembered = None, saved.disk_bytes if saved is not None else 0
            if saved is not None and record.base is not None:
                template = await self._templates.load(record.base)
                # Our own: a template that is set aside meanwhile closes its descriptor.
                ram = os.dup(template.ram)
                ours.callback(os.close, ram)
                remembered = remembered or template.meta.disk_bytes
            tap = await self._network.open_tap(slot, forked=forked)
            ours.callback(os.close, tap)
            plan = qemu.Start(
                vm=record.vm,
                shape=shape,
                run=self.run(record.vm),
                kernel=image.kernel,
                initrd=image.initrd,
                # Last, for `qemu.start` closes it.
                drive=await self._disks.drive(record.vm, size_bytes=record.spec.disk_bytes),
                tap=tap,
                ram=ram,
                uid=self._config.engine.vm_uid_base + slot.number,
                tb_size_mib=self._config.engine.tb_size_mib,
                saved=saved,
                resized=remembered not in (0, record.spec.disk_bytes),
            )
            return await qemu.start(self._launcher, plan)

    async def release(self, record: Record) -> None:
        """Give back a VM's network slot."""
        if record.slot is not None:
            await self._network.release(record.slot)

    async def _take_slot(self, record: Record, hold: HoldSlot) -> Slot:
        if record.slot is not None:
            slot = await self._network.ensure(record.slot)
        else:
            slot = await self._network.acquire()
            try:
                hold(record.vm, slot.number)
            except BaseException:
                await shielded(self._network.release(slot.number), seconds=RELEASE_S)
                raise
        self._network.close(slot.number)  # until the guest is who it should be
        return slot

    def watch(
        self,
        machine: Machine,
        *,
        died: Callable[[Machine], Awaitable[None]],
        heard: Callable[[Machine, str, dict[str, object]], None],
    ) -> None:
        """Pass on what QEMU tells by itself; call `died` when its process ends."""

        async def listen() -> None:
            async for event in machine.qmp.events():
                heard(machine, str(event.get("event")), _data(event))

        async def wait() -> None:
            if machine.closed:
                return
            listening = self._group.create_task(listen(), name=f"events of {machine.vm}")
            try:
                await machine.process.wait_exit(seconds=None)
            finally:
                listening.cancel()
            try:
                await died(machine)
            except (AtollError, OSError, TimeoutError) as error:  # one VM's trouble is not all VMs'
                _log.error("clean-up of an ended vm failed", vm=machine.vm, reason=str(error))

        task = self._group.create_task(wait(), name=f"watch {machine.vm}")
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    def stop_watching(self) -> None:
        """The engine ends; VMs go on unwatched until the next one adopts them."""
        for task in self._watching:
            task.cancel()

    # -- the guest

    async def wait_ready(self, machine: Machine) -> None:
        """Wait for a cold boot. Raises Unavailable with the end of the console."""

        try:
            await unless(machine.agent.wait_ready(seconds=BOOT_S), _end_of(machine))
        except Unavailable as error:
            said = await self._last_words(machine)
            raise Unavailable(f"{error.message}; its console ends: {said}") from error

    async def _last_words(self, machine: Machine) -> str:
        try:
            return (await machine.console())[-600:]
        except AtollError:
            return "(no console)"

    async def identify(
        self, machine: Machine, record: Record, identity: Identity, *, forked: bool = False
    ) -> None:
        """Clock, entropy, name, keys: sent by us, acknowledged by the guest.

        `forked`: its memory has run elsewhere, or before, and was saved while its file systems were
        held still. What is secret or unique in it is so no more, which its hooks are told.

        The clock is stepped once: each step wakes every timer in the guest. So a first message, whose
        way into a guest that just woke is long, goes before it. Raises Unavailable when the guest
        does not acknowledge.
        """
        agent = machine.agent
        if identity.fresh or forked:
            await agent.thaw(seconds=ACK_S)
        else:
            await agent.ping(seconds=ACK_S)
        if machine.resized:
            await self._grow(machine)
        await set_clock(machine)
        await agent.identify(
            identity,
            login_user=record.login_user,
            epoch=secrets.token_hex(16),
            forked=forked,
            seconds=ACK_S,
        )

    async def _grow(self, machine: Machine) -> None:
        try:
            await machine.agent.grow(seconds=ACK_S)
        except GuestFailed as error:  # it works at its old size
            _log.warning("file system does not grow", vm=machine.vm, reason=error.message)

    # -- the port

    def address(self, slot: int) -> str:
        """Outer address of a slot."""
        return str(self._network.layout.slot(slot).address)

    async def refresh_slot(self, record: Record) -> None:
        """Bring the rules of an adopted VM up to date; its connections stay."""
        if record.slot is not None:
            await self._network.ensure(record.slot)

    async def open_port(self, record: Record) -> None:
        """Let packets in and out."""
        if record.slot is not None:
            self._network.open(record.slot)

    async def close_port(self, record: Record) -> None:
        """Let no packet in or out."""
        if record.slot is not None:
            self._network.close(record.slot)

    def run(self, vm: str) -> Path:
        """Sockets of one VM."""
        return self._config.paths.run / "vm" / vm

    # -- prologues

    async def prologue_of(self, record: Record) -> bytes:
        """The prologue of a VM's shape."""
        return await self.prologue(self.shape(record), self._images.by_digest(record.image))

    async def prologue(self, shape: Shape, image: BuiltImage) -> bytes:
        """The head of saved states of this shape (see `qemu.state`); made once per shape."""
        key = shape_key(shape)
        async with self._prologue_lock:
            if key not in self._prologues:
                path = self._config.pool / "prologues" / key
                if not path.exists():
                    path.parent.mkdir(exist_ok=True, mode=0o700)
                    atomic.write(path, await self._make_prologue(shape, image, key), mode=0o400)
                self._prologues[key] = await asyncio.to_thread(path.read_bytes)
            return self._prologues[key]

    async def _make_prologue(self, shape: Shape, image: BuiltImage, key: str) -> bytes:
        plan = qemu.Start(
            vm=f"prologue-{key[:12]}",
            shape=shape,
            run=self.run(f"prologue-{key[:12]}"),
            kernel=image.kernel,
            initrd=image.initrd,
            drive=OpenChain(
                fds=(),
                nodes=({"driver": "null-co", "node-name": "empty", "size": 1 << 30},),
                top_node="empty",
            ),
            tap=None,
            ram=None,
            uid=self._config.engine.vm_uid_base - 1,
            tb_size_mib=self._config.engine.tb_size_mib,
            for_prologue=True,
        )
        machine = await qemu.start(self._launcher, plan)
        try:
            return await qemu.prologue(machine)
        finally:
            await shielded(machine.end(), seconds=qemu.END_S)
