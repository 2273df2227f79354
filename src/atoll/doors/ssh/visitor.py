"""One SSH connection from outside: who it is, which machine it means, what it may open.

A visitor is at first nobody. A key the directory knows makes it a caller; its user name then says
whether it goes on to a VM or to the lobby. Nothing but a proven key gives a caller any right: a
visitor let in by keyboard-interactive is a stranger, who is told one line and sent away.

The login at the VM starts as soon as a known key is offered, before the client has signed, so the
two handshakes overlap. `admission` bounds what that costs; its result is used only after the proof.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, cast
from weakref import WeakSet

import asyncssh
from asyncssh.forward import SSHForwarder

from atoll.base.errors import AtollError, NotFound
from atoll.base.log import get
from atoll.base.timeout import timeout
from atoll.domain.account import Caller, Route
from atoll.doors.ssh import target
from atoll.doors.ssh.admission import Limits, Place
from atoll.doors.ssh.relay import ClientSide, VmSide

_log = get(__name__)
_MAX_REFUSED_KEYS = 20  # agents hold several keys; OpenSSH's limit of 6 is a known trap
_CONNECT_S = 10.0
_MAX_ATTEMPTS = 60  # pairs of a user name and a key; each is offered, then signs


class Directory(Protocol):
    """Who owns a key, and where a VM is."""

    async def caller_for_key(self, key_line: str, *, source: str) -> Caller | None:
        """The caller behind `ssh-ed25519 AAAA…`, or None."""

    async def route(self, caller: Caller, vm_name: str) -> Route:
        """Raises NotFound, or Conflict when it does not run (the hint says how to start it)."""

    async def opened(
        self, caller: Caller, route: Route, *, how: str, result: str = "ok", port: int | None = None
    ) -> None:
        """A caller has come into a VM, or to a port of it, or the VM did not answer; raises nothing."""

    def key_refused(self) -> None:
        """A key was offered that nobody has."""


class Places(Protocol):
    """The VMs' own addresses."""

    def is_for_vms(self, address: str) -> bool:
        """True when a connection to it means a VM, though perhaps one that is not."""

    async def vm_at(self, address: str) -> str | None:
        """The name of the VM with this address."""


class House(Protocol):
    """What a visitor uses of the door."""

    directory: Directory
    domain: str
    vm_ssh_port: int
    limits: Limits
    places: Places | None

    async def open_vm(self, route: Route) -> VmSide:
        """Log in to a VM, if the route's caller still may; raises AtollError."""

    def start(self, job: Awaitable[VmSide | AtollError]) -> asyncio.Task[VmSide | AtollError]:
        """Run a job as long as the door is open."""

    def session(self) -> asyncssh.SSHServerProcess[str]:
        """What serves a session channel that is not relayed."""

    def left(self, visitor: Visitor) -> None:
        """The visitor's connection ended."""


@dataclass(slots=True)
class _Way:
    """Where one key with one user name leads; `dial` is the login at the VM, under way or done."""

    caller: Caller
    route: Route | None = None
    trouble: AtollError | None = None  # why there is no VM
    dial: asyncio.Task[VmSide | AtollError] | None = None

    def is_same(self, other: _Way) -> bool:
        """Whether another look found the same."""
        return (self.caller, self.route) == (other.caller, other.route) and (
            (self.trouble is None) == (other.trouble is None)
        )

    def call_off(self) -> None:
        """A login that nobody waits for is cancelled, or closed when it has succeeded."""
        dial, self.dial = self.dial, None
        if dial is not None:
            dial.cancel()
            dial.add_done_callback(_close_unused)


class Visitor(asyncssh.SSHServer):
    """AsyncSSH's owner of one connection; see `relay.Guest` for what the relay asks of it."""

    def __init__(self, house: House, admit: Callable[[str], tuple[Place, str]]) -> None:
        self._house = house
        self._admit = admit
        self._place: Place | None = None
        self._conn: ClientSide | None = None
        self._ways: dict[tuple[str, str], _Way | None] = {}
        self._way: _Way | None = None
        self._is_stranger = False
        self._refused = self._attempts = 0
        self.refusal = ""
        self.wants_vm = False
        self.caller: Caller | None = None
        self.user = ""
        self.source = ""
        self._dialled = ""  # our own end
        self.offered = ""  # fingerprint of the last key that nobody knows
        self.trouble: AtollError | None = None
        self.route: Route | None = None
        self._jumps: dict[str, WeakSet[SSHForwarder]] = {}  # by VM id

    # --- the connection

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        assert isinstance(conn, ClientSide)
        self._conn = conn
        self.source = str(conn.get_extra_info("peername", ("",))[0])
        self._dialled = str(conn.get_extra_info("sockname", ("",))[0])
        self._place, self.refusal = self._admit(self.source)

    def connection_lost(self, exc: Exception | None) -> None:
        self._take(None)
        if self._place is not None:
            self._place.leave()
        self._house.left(self)

    def dismiss(self, code: int, reason: str) -> None:
        """End the connection, telling the client why."""
        if self._conn is not None:
            self._conn.leave(code, reason)

    def end_jumps(self, vm_id: str) -> None:
        """End what goes to a VM by way of the lobby."""
        for forwarder in tuple(self._jumps.pop(vm_id, ())):
            forwarder.close()

    def abort(self) -> None:
        """End the connection now."""
        if self._conn is not None:
            self._conn.abort()

    # --- who

    def begin_auth(self, username: str) -> bool:
        self.user = username
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Called when a key is offered and again when it signs; AsyncSSH checks the signature.

        The way taken is always that of the key looked at last: only that one may succeed, and
        nothing is awaited between taking it and `auth_completed`.
        """
        line = " ".join(key.export_public_key().decode().split()[:2])
        asked = (username, line)
        self._attempts += 1
        is_one_more = asked not in self._ways and len(self._ways) >= _MAX_ATTEMPTS
        if is_one_more or self._attempts > 2 * _MAX_ATTEMPTS:
            self.dismiss(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "too many attempts")
            return False
        try:
            way = await self._way_now(asked)
        except AtollError as error:
            self.dismiss(asyncssh.DISC_SERVICE_NOT_AVAILABLE, str(error))
            return False
        self._take(way)
        if way is None:
            self._refuse(key)
            return False
        if way.route is not None and way.dial is None:
            way.dial = self._house.start(self._open(way.route))
        return True

    async def _way_now(self, asked: tuple[str, str]) -> _Way | None:
        """Where it leads at this moment: between an offer and its proof a right may have been lost."""
        known, found = self._ways.get(asked), await self._find_way(*asked)
        if known is not None and found is not None and known.is_same(found):
            return known  # with the login that is under way
        if known is not None:
            known.call_off()
        self._ways[asked] = found
        return found

    async def _find_way(self, user: str, key_line: str) -> _Way | None:
        """Lobby or VM, or what stands in the way, which is told after the proof."""
        caller = await self._house.directory.caller_for_key(key_line, source=self.source)
        if caller is None:
            return None
        wanted = await self._wanted(user)
        if wanted.vm is None:
            return _Way(caller)
        try:
            return _Way(caller, route=await self._house.directory.route(caller, wanted.vm))
        except NotFound as error:
            if wanted.address:  # the same for nobody's, another's, and one this key may not enter
                return _Way(caller, trouble=NotFound(f"No VM at {wanted.address}", hint="Try: ls"))
            return _Way(caller, trouble=error if wanted.must_exist else None)
        except AtollError as error:
            return _Way(caller, trouble=error)

    async def _wanted(self, user: str) -> target.Target:
        places, address = self._house.places, self._dialled
        if places is None or not places.is_for_vms(address):
            return target.of_user(user)
        return target.of_address(address, await places.vm_at(address))

    def _take(self, way: _Way | None) -> None:
        if self._way is not None and self._way is not way:
            self._way.call_off()
        self._way = way

    def _refuse(self, key: asyncssh.SSHKey) -> None:
        self.offered = key.get_fingerprint()
        self._refused += 1
        self._house.directory.key_refused()
        if self._refused >= _MAX_REFUSED_KEYS:
            self.dismiss(
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
                f"{self._refused} keys of yours are unknown here; choose one with: ssh -i <file>"
                " -o IdentitiesOnly=yes",
            )

    async def _open(self, route: Route) -> VmSide | AtollError:
        try:
            return await self._house.open_vm(route)
        except AtollError as error:
            return error

    async def vm_side(self) -> VmSide | None:
        """The VM's connection once it is there; None leaves `trouble` to tell."""
        assert self._way is not None
        assert self._way.dial is not None
        dial, self._way.dial = self._way.dial, None
        result = await asyncio.shield(dial)
        assert self.caller is not None
        assert self.route is not None
        said = result.code if isinstance(result, AtollError) else "ok"
        try:
            await self._house.directory.opened(self.caller, self.route, how="ssh", result=said)
        except BaseException:
            if isinstance(result, VmSide):
                result.abort()
            raise
        if isinstance(result, AtollError):
            self.trouble = result
            return None
        return result

    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> bool:
        """Clients come here when all their keys are refused: let them in to be told so.

        A refusal would end in the client's bare "Permission denied". The stranger has no caller.
        """
        self._is_stranger = True
        self._take(None)
        return True

    def auth_completed(self) -> None:
        """The proof is given: only now does the visitor become somebody."""
        if self._place is not None:
            self._place.proven()
        if self._is_stranger or self._way is None:
            asyncio.get_running_loop().call_later(
                self._house.limits.stranger_s,
                self.dismiss,
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
                self.advice,
            )
            return
        way = self._way
        self.caller, self.route, self.trouble = way.caller, way.route, way.trouble
        self.wants_vm = way.dial is not None
        _log.info(
            "ssh login",
            account=self.caller.account.id,
            source=self.source,
            user=self.user,
            vm=self.route.vm_name if self.route else None,
        )

    @property
    def advice(self) -> str:
        """The one line for somebody whose keys nobody knows."""
        key = f"key {self.offered}" if self.offered else "you offered no key, so you"
        verb = "is" if self.offered else "are"
        return (
            f"atoll: {key} {verb} not known here. From a computer that is, run: ssh-key add"
            " '<your public key>'; with several keys, choose: ssh -o IdentitiesOnly=yes -i <file>"
        )

    @property
    def last_words(self) -> tuple[bytes, ...]:
        """The same for clients that never get so far, in names: 64 characters each, no spaces."""
        if not self.offered:
            return ()
        words = (
            f"unknown-key-{self.offered}",
            "add-it-from-a-computer-that-is-known-with:ssh-key-add",
        )
        return tuple(word.encode() for word in words)

    # --- what it may open in the lobby (a VM's connection is relayed unread)

    def session_requested(self) -> asyncssh.SSHServerProcess[str]:
        return self._house.session()

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Awaitable[asyncssh.SSHTCPSession[bytes]]:
        """`-W`, `-J` and `-L` by way of the lobby: to the caller's own VMs and nowhere else."""
        # A forwarder is a session in all but its base class; AsyncSSH casts its own likewise.
        return cast("Awaitable[asyncssh.SSHTCPSession[bytes]]", self._jump(dest_host, dest_port))

    async def _jump(self, host: str, port: int) -> SSHForwarder:
        refused = asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
        if self.caller is None or self._conn is None:
            raise asyncssh.ChannelOpenError(refused, self.advice)
        if self.trouble is not None:
            raise asyncssh.ChannelOpenError(refused, str(self.trouble))
        name = target.of_host(host, self._house.domain)
        try:
            route = await self._house.directory.route(self.caller, name)
        except AtollError as error:
            raise asyncssh.ChannelOpenError(refused, str(error)) from error
        inside = self._house.vm_ssh_port if port == 22 else port
        try:
            async with timeout(_CONNECT_S):
                forwarder = await self._conn.forward_connection(route.address, inside)
        except TimeoutError as error:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_CONNECT_FAILED, f"port {port} of VM '{name}' does not answer"
            ) from error
        self._jumps.setdefault(route.vm_id, WeakSet()).add(forwarder)
        try:  # from here on a loss ends it; one while it connected is seen now
            await self._house.directory.route(self.caller, name)
        except AtollError as error:
            forwarder.close()
            raise asyncssh.ChannelOpenError(refused, str(error)) from error
        await self._house.directory.opened(self.caller, route, how="jump", port=inside)
        return forwarder


def _close_unused(dial: asyncio.Task[VmSide | AtollError]) -> None:
    if not dial.cancelled() and isinstance(side := dial.result(), VmSide):
        side.leave(asyncssh.DISC_BY_APPLICATION, "not needed")
