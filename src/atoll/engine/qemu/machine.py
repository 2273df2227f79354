"""One running QEMU: start it cold or from saved state, save it, let go of it or end it.

Invariant: a machine's memory is its base (a sealed file, or nothing) plus its private pages, so
`save` needs only those pages and the device state, and `start` needs only those to bring it back.
A machine outlives this process; `adopt` finds it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from atoll.base.aio import deadline, shielded
from atoll.base.errors import Conflict, Internal, Unavailable
from atoll.engine.agent import GuestAgent
from atoll.engine.disk.openings import OpenChain
from atoll.engine.launch import Process
from atoll.engine.launcher import Launcher
from atoll.engine.qemu.argv import Handles, Shape, render
from atoll.engine.qemu.memory import GuestMemory, Pages
from atoll.engine.qemu.qmp import Qmp, QmpFailed
from atoll.engine.qemu.state import splice

MONITOR_S = 20.0  # QEMU starts in 50 ms; a host busy with 30 others has been seen to take seconds
LOAD_S = 30.0
POLL_S = 0.002
CONSOLE_CHARS = 128 << 10  # as much as QEMU's ring holds
END_S = 30.0  # killing takes moments; a process stuck in the kernel is reported, not awaited


class Refused(Internal):
    """A saved machine that QEMU does not take, now or later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A whole machine besides its base memory and its disk."""

    pages: Pages
    state: bytes  # loadable device state
    disk_bytes: int = 0  # size of the disk that it remembers; 0: that of its template


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Everything needed to start one machine. `ram` and `tap` are borrowed descriptors."""

    vm: str
    shape: Shape
    run: Path
    kernel: Path
    initrd: Path
    drive: OpenChain
    tap: int | None
    ram: int | None
    uid: int
    tb_size_mib: int
    saved: Saved | None = None
    resized: bool = False  # the disk is not as large as `saved` remembers it
    for_prologue: bool = False


@dataclass(slots=True, kw_only=True)
class Machine:
    """A live QEMU process with its monitor and its guest agent."""

    vm: str
    run: Path
    process: Process
    launcher: Launcher
    qmp: Qmp
    agent: GuestAgent
    memory_bytes: int
    resized: bool = False  # its guest was told of another disk size and may grow into it
    closed: bool = False  # the process's handle is let go: its number may be another's by now
    ended: str = ""  # why the guest stopped, as QEMU's SHUTDOWN event says
    printed: str = ""  # what was read of its serial console
    timings_ms: dict[str, float] = field(default_factory=dict)

    async def resume(self) -> None:
        """Let the vCPUs run."""
        await self.qmp.execute("cont")

    async def stop(self) -> None:
        """Halt the vCPUs; the process stays."""
        await self.qmp.execute("stop")

    async def status(self) -> str:
        """QEMU's run state: running, paused, prelaunch, inmigrate, internal-error, ..."""
        answer = await self.qmp.execute("query-status")
        return str(answer.get("status")) if isinstance(answer, dict) else "unknown"

    async def console(self) -> str:
        """The newest part of what the serial console said."""
        # Reading empties QEMU's ring.
        answer = await self.qmp.execute("ringbuf-read", {"device": "console", "size": 1 << 20})
        self.printed = (self.printed + str(answer))[-CONSOLE_CHARS:]
        return self.printed

    async def device_state(self) -> bytes:
        """Raw state of all devices of a stopped machine."""
        with _memory_file() as file:
            # QEMU takes from a set the descriptor whose mode is exactly the one it wants.
            write_only = os.open(f"/proc/self/fd/{file.fileno()}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                await self.qmp.add_fd(DEVICE_FDSET, write_only)
            finally:
                os.close(write_only)
            try:
                # "live" would hand the disk over as for a migration: no snapshot, no way on.
                await self.qmp.execute(
                    "xen-save-devices-state",
                    {"filename": f"/dev/fdset/{DEVICE_FDSET}", "live": False},
                )
            finally:
                await self.qmp.execute("remove-fd", {"fdset-id": DEVICE_FDSET})
            # A hostile QEMU writes what it likes.
            if (size := os.fstat(file.fileno()).st_size) > STATE_BYTES:
                raise Internal(f"device state of {self.vm} has {size} bytes; that is none")
            file.seek(0)
            return file.read()

    async def end(self) -> None:
        """Kill the process and wait until it is gone; the sockets go with it."""
        if self.closed:
            return
        try:
            await self.qmp.close()  # first, or the library takes the end for an error
            await self.agent.close()
        finally:
            self.process.kill()
        try:
            await self.launcher.end(self.vm)
            await self.process.wait_exit(seconds=10)
            remove_sockets(self.run)
        finally:
            self._close()

    async def detach(self) -> None:
        """Close our connections and leave the process running."""
        if self.closed:
            return
        try:
            await self.agent.close()
            await self.qmp.close()
        finally:
            self._close()

    def memory(self) -> GuestMemory:
        """Its memory, for one thread to open, use and close. Raises Conflict when it ended."""
        memory = GuestMemory(self.process.pid, self.memory_bytes)
        if self.closed or not self.process.alive():  # the pid may be another's
            memory.close()
            raise Conflict(f"the process of {self.vm} ended")
        return memory

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            self.process.close()


STATE_BYTES = 64 << 20  # device state is under 1 MiB
DEVICE_FDSET = 900  # above the fd sets of the disk chain


async def start(launcher: Launcher, plan: Start) -> Machine:
    """Launch QEMU and load `plan.saved` if given; the vCPUs are not running yet.

    On any failure the process is gone when this raises.
    """
    clock = _Clock()
    with contextlib.ExitStack() as ours:
        ours.callback(plan.drive.close)
        plan.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        remove_sockets(plan.run)
        qmp_socket = ours.enter_context(_listen(plan.run / "qmp.sock"))
        agent_socket = ours.enter_context(_listen(plan.run / "agent.sock"))
        kernel = _open(ours, plan.kernel)
        initrd = _open(ours, plan.initrd)
        handles = Handles(
            name=plan.vm,
            qmp=qmp_socket.fileno(),
            agent=agent_socket.fileno(),
            kernel=kernel,
            initrd=initrd,
            tap=plan.tap,
            ram=plan.ram,
            fdsets=plan.drive.fds,
            blockdevs=plan.drive.nodes,
            disk_node=plan.drive.top_node,
            restoring=plan.saved is not None,
            tb_size_mib=plan.tb_size_mib,
            shared_ram=plan.for_prologue,
        )
        fds = [handles.qmp, handles.agent, kernel, initrd]
        fds += [fd for fd in (plan.tap, plan.ram) if fd is not None]
        fds += [fd for fd, _ in plan.drive.fds]
        process = await launcher.start(
            plan.vm,
            render(plan.shape, handles),
            fds=fds,
            uid=plan.uid,
            memory_bytes=plan.shape.memory_bytes,
            cpus=plan.shape.cpus,
        )
    machine = Machine(
        vm=plan.vm,
        run=plan.run,
        process=process,
        launcher=launcher,
        qmp=Qmp(plan.run / "qmp.sock"),
        agent=GuestAgent(plan.run / "agent.sock"),
        memory_bytes=plan.shape.memory_bytes,
        resized=plan.resized,
    )
    clock.mark(machine, "spawn")
    try:
        await _connect(machine)
        clock.mark(machine, "monitor")
        if plan.saved is not None:
            await _load(machine, plan.saved)
            if plan.resized:
                await _announce_size(machine, plan.drive.top_node)
            clock.mark(machine, "load")
    except BaseException:
        await shielded(machine.end(), seconds=END_S)
        raise
    return machine


async def adopt(
    launcher: Launcher, *, vm: str, run: Path, process: Process, memory_bytes: int
) -> Machine:
    """Take over a machine that an earlier engine started. Raises Unavailable if it is not ours."""
    machine = Machine(
        vm=vm,
        run=run,
        process=process,
        launcher=launcher,
        qmp=Qmp(run / "qmp.sock"),
        agent=GuestAgent(run / "agent.sock"),
        memory_bytes=memory_bytes,
    )
    try:
        await machine.qmp.connect(seconds=MONITOR_S)
    except BaseException:
        await shielded(machine.qmp.close(), seconds=5)
        raise
    return machine


async def save(machine: Machine, prologue: bytes, pages: Pages, *, disk_bytes: int = 0) -> Saved:
    """State of a stopped machine, exact at this instant. `pages` may hold a precopy."""
    devices = await machine.device_state()
    await asyncio.to_thread(_settle, machine, pages)
    return Saved(pages=pages, state=splice(prologue, devices), disk_bytes=disk_bytes)


async def precopy(machine: Machine) -> Pages:
    """Copy private pages while the machine runs."""
    pages = Pages(machine.memory_bytes)
    await asyncio.to_thread(_precopy, machine, pages)
    return pages


# In threads, which go on when their caller is cancelled: each opens and closes what it uses.


def _precopy(machine: Machine, pages: Pages) -> None:
    with machine.memory() as memory:
        pages.precopy(memory)


def _settle(machine: Machine, pages: Pages) -> None:
    with machine.memory() as memory:
        pages.settle(memory)


def _apply(machine: Machine, pages: Pages) -> None:
    with machine.memory() as memory:
        if memory.private_runs():
            raise Internal(f"memory of {machine.vm} was written before its state was loaded")
        pages.apply(memory)


async def prologue(machine: Machine) -> bytes:
    """The head of a migration stream of a machine that never ran (see `state`).

    The machine must be started `for_prologue`: its memory is shared, so the stream leaves it out.
    """
    with _memory_file() as file:
        await machine.qmp.execute("migrate-set-capabilities", IGNORE_SHARED)
        await machine.qmp.pass_fd("prologue", file.fileno())
        await machine.qmp.execute("migrate", {"uri": "fd:prologue"})
        async with deadline(LOAD_S, "saving an empty machine"):
            while (status := (await machine.qmp.execute("query-migrate")).get("status")) not in (
                "completed",
                "failed",
            ):
                await asyncio.sleep(POLL_S)
        if status != "completed":
            raise Internal("QEMU cannot save an empty machine")
        file.seek(0)
        return file.read()


IGNORE_SHARED: dict[str, Any] = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}


async def _connect(machine: Machine) -> None:
    """Connect the monitor, or say what QEMU printed when it ended at once.

    QEMU inherited the listening socket, so a connection made before it accepts waits, and breaks off
    when QEMU ends.
    """
    try:
        await machine.qmp.connect(seconds=MONITOR_S)
    except Unavailable as error:
        said = machine.process.said()[-500:] or error.message
        raise Unavailable(f"qemu of {machine.vm} did not start: {said}") from error


async def _load(machine: Machine, saved: Saved) -> None:
    """Bring a fresh process to `saved`. Raises Refused when QEMU does not take it."""
    try:
        await _load_state(machine, saved)
    except QmpFailed as error:
        raise Refused(f"{machine.vm}: {error.message}") from error
    except (Unavailable, Conflict) as error:
        said = machine.process.said()[-500:]
        if machine.process.alive() or not said:
            raise  # slow, or killed by a host out of memory: QEMU says what it does not like
        raise Refused(f"qemu of {machine.vm} ended while loading: {said}") from error


async def _announce_size(machine: Machine, node: str) -> None:
    """Make the guest read its disk's size: its memory is a template's with a smaller disk.

    Resizing to the size it has moves no data; the device then reports a change of configuration.
    """
    for each in await machine.qmp.execute("query-named-block-nodes", {"flat": True}):
        if each.get("node-name") == node:
            size = each["image"]["virtual-size"]
            await machine.qmp.execute("block_resize", {"node-name": node, "size": size})


async def _load_state(machine: Machine, saved: Saved) -> None:
    """Pages first: devices look into guest memory while their state is loaded."""
    await asyncio.to_thread(_apply, machine, saved.pages)
    await machine.qmp.execute("migrate-set-capabilities", IGNORE_SHARED)
    with _memory_file() as file:
        file.write(saved.state)
        file.flush()
        file.seek(0)
        await machine.qmp.pass_fd("state", file.fileno())
        await machine.qmp.execute("migrate-incoming", {"uri": "fd:state"})
        async with deadline(LOAD_S, f"loading the state of {machine.vm}"):
            while (status := await machine.status()) == "inmigrate":
                await asyncio.sleep(POLL_S)
    if status not in ("paused", "prelaunch", "postmigrate"):
        raise Refused(f"{machine.vm} is {status} after loading: {machine.process.said()[-500:]}")


def remove_sockets(run: Path) -> None:
    """Unlink the sockets of a process that is gone."""
    for name in ("qmp.sock", "agent.sock"):
        (run / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _listen(path: Path) -> Iterator[socket.socket]:
    """A listening socket that QEMU inherits: it never creates a path itself."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(str(path))
        os.chmod(path, 0o600)
        listener.listen(4)
        yield listener
    finally:
        listener.close()


def _open(stack: contextlib.ExitStack, path: Path) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _memory_file() -> BinaryIO:
    """A file without a path, for state on its way to or from QEMU."""
    return os.fdopen(os.memfd_create("atoll-state", os.MFD_CLOEXEC), "w+b")


class _Clock:
    """Milliseconds between marks, into a machine's timings."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def mark(self, machine: Machine, name: str) -> None:
        now = time.monotonic()
        machine.timings_ms[name] = round((now - self._last) * 1000, 1)
        self._last = now
