"""The engine's side of the guest agent: typed calls over the chardev socket of one QEMU.

Whatever comes from a guest is checked before it is believed: size and form by the wire, fields by
the models below. One call at a time; QEMU serves one client per socket, so there is one GuestAgent
per VM. After a lost connection the next call connects again.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from atoll.base.aio import deadline, shielded
from atoll.base.errors import AtollError, Unavailable
from atoll.guest import wire
from atoll.rpc.messages import Identity

_CHUNK = 65_536
_HELLO_SECONDS = 5.0  # one try; an agent that is not up yet answers the next
_SLACK_S = 5.0
ENTROPY_BYTES = 64

Line = Annotated[str, StringConstraints(max_length=512)]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class Answer(BaseModel):
    """Facts from inside a VM. Fields of a newer agent are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Hello(Answer):
    """Who answers, and whether its boot has ended (`system`: what systemd said then)."""

    version: int
    boot_id: Line
    machine_id: Line
    hostname: Line
    kernel: Line
    ready: bool
    system: Line
    epoch: Line
    frozen: bool


class Identified(Answer):
    """The VM is who it should be; `setup`: it has what it needs for its first start."""

    machine_id: Line
    setup: bool = False  # agents of images of before 2026-11-26 know none


class Frozen(Answer):
    """Mount points of the file systems held, newest last."""

    mounts: list[Line] = Field(max_length=4096)


class Thawed(Answer):
    """Mount points let go; `expired` when the guest's watchdog had let go before."""

    mounts: list[Line] = Field(max_length=4096)
    expired: bool


class GuestStat(Answer):
    """What the VM says about itself: bytes, seconds, TCP ports open to others."""

    fs_total_bytes: Count
    fs_used_bytes: Count
    fs_available_bytes: Count
    memory_total_bytes: Count
    memory_available_bytes: Count
    swap_total_bytes: Count
    swap_free_bytes: Count
    uptime_seconds: float = Field(ge=0, allow_inf_nan=False)
    load: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(max_length=3)
    ports: list[Annotated[int, Field(ge=1, le=65_535)]] = Field(max_length=1024)


class Clock(Answer):
    """How far the wall clock moved."""

    clock_moved_ns: int


class Grown(Answer):
    """The size of the root file system now."""

    fs_bytes: Count


class Empty(Answer):
    """Done."""


class GuestFailed(AtollError):
    """The agent answered, with an error."""

    code, http, exit = "guest-failed", 503, 69


A = TypeVar("A", bound=Answer)


class GuestAgent:
    """One VM's agent. Every call raises Unavailable past its deadline, GuestFailed on an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = asyncio.Lock()
        self._ids = itertools.count(1)
        self._nonce = ""
        self._reader = wire.Reader()
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @classmethod
    async def connect(cls, path: Path, *, seconds: float) -> Self:
        """A client connected to QEMU's chardev socket; says nothing about the agent behind it."""
        agent = cls(path)
        async with deadline(seconds, f"connecting to {path}"):
            await agent._connected()
        return agent

    async def close(self) -> None:
        """Drop the connection; the next call would connect again."""
        stream = self._stream
        self._drop()
        if stream is not None:
            with suppress(OSError):
                await stream[1].wait_closed()

    async def ping(self, *, seconds: float) -> None:
        """The agent answers."""
        await self._call("ping", {}, Empty, seconds)

    async def hello(self, *, seconds: float) -> Hello:
        """Who answers, and whether it is ready."""
        hello = await self._call("hello", {}, Hello, seconds)
        if hello.version != wire.VERSION:
            raise GuestFailed(
                f"the guest agent speaks version {hello.version}, this engine {wire.VERSION}"
            )
        return hello

    async def wait_ready(self, *, seconds: float) -> Hello:
        """Ask until boot has ended; the agent may appear long after QEMU."""
        async with deadline(seconds, "the VM's boot", hint="Try: look at its console"):
            while True:
                try:
                    hello = await self.hello(seconds=_HELLO_SECONDS)
                except Unavailable:  # at once, where nothing listens
                    await asyncio.sleep(0.05)
                    continue
                if hello.ready:
                    return hello
                await asyncio.sleep(0.25)

    async def identify(
        self,
        identity: Identity,
        *,
        login_user: str,
        epoch: str,
        seconds: float,
        machine_id: str | None = None,
        forked: bool = False,
    ) -> Identified:
        """Make the VM be `identity`; `epoch` names this life of it, so a repeat acts once.

        `forked`: it has lived from the same memory before. Agents of before 2026-11-26 do not mind it.

        Entropy is drawn here, each time anew. The time is for agents in VMs made by an Atoll of
        before 2026-11-25, which refuse to go without; a VM keeps the agent it was made with.
        """
        args: dict[str, object] = {
            "hostname": identity.hostname,
            "fresh": identity.fresh,
            "forked": forked,
            "machine_id": machine_id,
            "host_key": identity.host_key,
            "host_certificate": identity.host_certificate,
            "user_ca": identity.user_ca,
            "authorized_keys": list(identity.authorized_keys),
            "login_user": login_user,
            "unix_time_ns": time.time_ns(),
            "entropy": b64encode(secrets.token_bytes(ENTROPY_BYTES)).decode(),
            "epoch": epoch,
        }
        wants_setup = identity.setup_script is not None or bool(identity.env)
        if wants_setup:
            args |= {"setup_script": identity.setup_script, "env": dict(identity.env)}
        identified = await self._call("identify", args, Identified, seconds)
        if wants_setup and not identified.setup:
            raise GuestFailed("the agent in this image takes neither setup script nor --env")
        return identified

    async def clock(self, unix_time_ns: int, *, seconds: float) -> Clock:
        """Step the VM's wall clock."""
        return await self._call("clock", {"unix_time_ns": unix_time_ns}, Clock, seconds)

    async def freeze(self, *, held_seconds: float, seconds: float) -> Frozen:
        """Hold the VM's file systems; by itself it lets go after `held_seconds`."""
        return await self._call("freeze", {"seconds": held_seconds}, Frozen, seconds)

    async def thaw(self, *, seconds: float) -> Thawed:
        """Let go."""
        return await self._call("thaw", {}, Thawed, seconds)

    async def stat(self, *, seconds: float) -> GuestStat:
        """File system, memory, load, ports."""
        return await self._call("stat", {}, GuestStat, seconds)

    async def grow(self, *, seconds: float) -> Grown:
        """Grow the root file system to its device, after the device was resized."""
        return await self._call("grow", {}, Grown, seconds)

    async def shutdown(self, mode: str, *, seconds: float) -> None:
        """Begin an orderly `poweroff` or `reboot`; its end is QEMU's to report."""
        await self._call("shutdown", {"mode": mode}, Empty, seconds)

    async def _call(self, verb: str, args: dict[str, object], kind: type[A], seconds: float) -> A:
        what = f"guest agent: {verb}"
        async with deadline(seconds, what), self._turn:
            try:
                number = await self._send(verb, args)
                message = await self._answer(number)
            except OSError as error:
                self._drop()
                raise Unavailable(f"{what}: the connection broke off: {error}") from error
        if "error" in message:
            raise _failure(what, message["error"])
        try:
            return kind.model_validate(message.get("ok"))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise GuestFailed(f"{what}: not an answer: {where[:80]}: {first['msg']}") from error

    async def _send(self, verb: str, args: dict[str, object]) -> int:
        _, writer = await self._connected()
        number = next(self._ids)
        writer.write(wire.encode(wire.request(self._nonce, number, verb, args)))
        await writer.drain()
        return number

    async def _answer(self, number: int) -> dict[str, object]:
        """The next message that answers this very request; all others are dropped."""
        reader, _ = await self._connected()
        while data := await reader.read(_CHUNK):
            for message in self._reader.feed(data):
                if wire.is_answer(message, self._nonce, number):
                    return message
        raise ConnectionResetError("QEMU closed it")

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._stream is None:
            try:
                self._stream = await asyncio.open_unix_connection(self._path, limit=_CHUNK)
            except OSError as error:
                raise Unavailable(
                    f"no guest agent port at {self._path}: {error.strerror}"
                ) from error
            self._nonce = secrets.token_hex(8)
            self._reader = wire.Reader()
        return self._stream

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None


def _failure(what: str, error: object) -> GuestFailed:
    """Words of the guest, cut and made printable: shown, never trusted."""
    said = error.get("message") if isinstance(error, dict) else None
    text = said if isinstance(said, str) else "an error without words"
    printable = "".join(letter if letter.isprintable() else "?" for letter in text[:500])
    return GuestFailed(f"{what}: the VM says: {printable}")


class FrozenGuest:
    """`async with FrozenGuest(agent, ...)`: file systems held in the body, let go on every path.

    The body must leave the VM running, or the thaw cannot be heard. `held` is True afterwards when
    nothing was let go before the body ended: only then is a copy made in it consistent. Raises
    AtollError when the guest does not freeze; a thaw that fails is told by `held` alone.
    """

    def __init__(self, agent: GuestAgent, *, held_seconds: float, seconds: float) -> None:
        self._agent = agent
        self._held_seconds = held_seconds
        self._seconds = seconds
        self.mounts: tuple[str, ...] = ()
        self.held: bool | None = None

    async def __aenter__(self) -> Self:
        try:
            frozen = await self._agent.freeze(
                held_seconds=self._held_seconds, seconds=self._seconds
            )
        except BaseException:
            await self._let_go()  # it may have frozen all the same
            self.held = False
            raise
        self.mounts = tuple(frozen.mounts)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._let_go()

    async def _let_go(self) -> None:
        # Longer than the call's own deadline: a guest that says nothing is no defect of ours.
        await shielded(self._thaw(), seconds=self._seconds + _SLACK_S)

    async def _thaw(self) -> None:
        """A guest that cannot be asked thaws by itself; then nothing is known to have held."""
        self.held = False
        try:
            thawed = await self._agent.thaw(seconds=self._seconds)
        except AtollError:
            return
        self.held = not thawed.expired and set(thawed.mounts) >= set(self.mounts)
