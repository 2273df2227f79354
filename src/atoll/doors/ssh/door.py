"""The SSH door: listens, lets AsyncSSH do the handshake, and keeps track of who is inside.

`Visitor` decides who somebody is, `Lobby` runs commands, `relay` carries everything of a VM. One
ed25519 host key stands for the lobby and for all VMs. Public keys are the only proof of identity.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import asyncssh

from atoll.base.aio import TaskGroup
from atoll.base.errors import AtollError, Conflict, Internal, NotFound
from atoll.base.log import get
from atoll.domain.account import Route
from atoll.doors.ssh.admission import Admission, Limits
from atoll.doors.ssh.lobby import Lobby
from atoll.doors.ssh.relay import ClientSide, VmSide
from atoll.doors.ssh.roll import Roll
from atoll.doors.ssh.session import History, Language
from atoll.doors.ssh.visitor import Directory, Places, Visitor
from atoll.doors.ssh.vm import Certifier, VmLogin

_log = get(__name__)
_LOGIN_S = 60  # for a person to type the passphrase of a key
_GOODBYE_S = 1.0  # for clients to read the reason
_ANSWER_S = 1.0  # for whoever removes the key in use to read that it worked
_BACKLOG = 512
_WINDOW = 4 << 20  # per channel that ends here (jumps); more than a fast network has under way
_REKEY_BYTES = 1 << 30  # RFC 4253 section 9
# Elliptic curves and ML-KEM only: the library we compute with has deprecated finite fields.
_KEY_EXCHANGES = "-diffie-hellman-*,rsa*"
# `relay` narrows these to AES-GCM where the client has it; the others are for clients without.
_CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes256-ctr",
    "chacha20-poly1305@openssh.com",
)
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256")


class GatewayKeys(Certifier, Protocol):
    """The keys the door needs."""

    @property
    def host_key_path(self) -> Path:
        """The gateway's private host key (ed25519, OpenSSH format)."""


class SshDoor:
    """Lobby and gateway on one TCP port."""

    def __init__(
        self,
        *,
        listen: str,
        port: int,
        domain: str,
        directory: Directory,
        language: Language,
        history: History,
        keys: GatewayKeys,
        vm_ssh_port: int = 22,
        limits: Limits | None = None,
        places: Places | None = None,
    ) -> None:
        """`port` 0 takes a free one (see `port` while serving); `domain` is that of the VMs."""
        self.directory = directory
        self.places = places
        self.domain = domain
        self.vm_ssh_port = vm_ssh_port
        self.port = port
        self._listen = listen
        self._keys = keys
        self.limits = limits or Limits()
        self._admission = Admission(self.limits)
        self._vms = VmLogin(certifier=keys, port=vm_ssh_port)
        self._lobby = Lobby(language=language, history=history, opener=self)
        self._visitors: Roll[Visitor] = Roll()
        self._group: TaskGroup | None = None

    async def run(self) -> None:
        """Serve until cancelled."""
        async with self.serving():
            await asyncio.Event().wait()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[SshDoor]:
        """Serve while the body runs; sessions still open then are told and closed."""
        loop = asyncio.get_running_loop()
        options = await _server_options(self._keys.host_key_path, self._welcome)
        try:
            server = await loop.create_server(
                lambda: ClientSide(loop, options),
                _hosts(self._listen),
                self.port,
                backlog=_BACKLOG,
                reuse_address=True,
            )
        except OSError as error:
            raise Conflict(
                f"Cannot listen for SSH on {self._listen} port {self.port}: {error.strerror}",
                hint="Set another `port` under [ssh] in the configuration",
            ) from error
        self.port = server.sockets[0].getsockname()[1]
        _log.info("ssh door open", listen=self._listen, port=self.port)
        try:
            async with TaskGroup() as self._group:
                try:
                    yield self
                finally:
                    server.close()
                    await self._close_all()
        finally:
            self._group = None

    def _dismiss(
        self, account_id: str | None, fingerprint: str | None, vm_id: str | None, reason: str
    ) -> None:
        theirs = [
            visitor
            for visitor in self._visitors
            if visitor.caller is not None
            and account_id in (None, visitor.caller.account.id)
            and fingerprint in (None, visitor.caller.key_fingerprint)
        ]
        if vm_id is not None:
            for visitor in theirs:
                visitor.end_jumps(vm_id)
            theirs = [v for v in theirs if v.route is not None and v.route.vm_id == vm_id]
        for visitor in theirs:
            visitor.dismiss(asyncssh.DISC_BY_APPLICATION, reason)

    def end_key(self, fingerprint: str) -> None:
        """End the connections of a key that was removed, logins under way included."""
        loop = asyncio.get_running_loop()
        loop.call_later(_ANSWER_S, self._dismiss, None, fingerprint, None, "its key was removed")

    def end_access(self, account_id: str, vm_id: str) -> None:
        """End what an account has open in a VM that it may no longer enter."""
        self._dismiss(account_id, None, vm_id, "access was withdrawn")
        self._vms.end(vm_id, account=account_id)

    def end_vm(self, vm_id: str) -> None:
        """End the connections to a VM that is no longer where it was; a paused one says no goodbye."""
        self._dismiss(None, None, vm_id, "the VM was paused or stopped")
        self._vms.end(vm_id)  # what other doors and the lobby's prompt have there

    async def open_vm(self, route: Route) -> VmSide:
        """Log in to a VM. Raises Unavailable, or what `Directory.route` does for who may not any more.

        A login takes a while. What is lost during it is seen here; what is lost later finds the
        connection on the roll, and ends it.
        """
        side = await self._vms.open(route)
        try:
            now = await self.directory.route(route.caller, route.vm_name)
            if now.vm_id != route.vm_id:
                raise NotFound(f"No VM {route.vm_name!r}", hint="Try: ls")
        except BaseException:
            side.abort()
            raise
        return side

    def start(self, job: Awaitable[VmSide | AtollError]) -> asyncio.Task[VmSide | AtollError]:
        """Run a login as long as the door is open."""
        assert self._group is not None, "the door is not open"
        return self._group.create_task(_contained(job))

    def session(self) -> asyncssh.SSHServerProcess[str]:
        """A session of the lobby."""
        return self._lobby.session()

    def left(self, visitor: Visitor) -> None:
        """A visitor's connection ended."""
        self._visitors.discard(visitor)

    def _welcome(self) -> Visitor:
        visitor = Visitor(self, self._admission.enter)
        self._visitors.add(visitor)
        return visitor

    async def _close_all(self) -> None:
        await self._visitors.see_off(
            lambda visitor: visitor.dismiss(
                asyncssh.DISC_BY_APPLICATION, "Atoll is stopping; VMs go on running"
            ),
            lambda visitor: visitor.abort(),
            seconds=_GOODBYE_S,
        )
        await self._vms.close(seconds=_GOODBYE_S)


def _hosts(listen: str) -> tuple[str, ...]:
    """`::` takes IPv4 too, by a socket of its own: clients keep addresses as people know them."""
    return ("0.0.0.0", "::") if listen == "::" else (listen,)


async def _contained(job: Awaitable[VmSide | AtollError]) -> VmSide | AtollError:
    """A defect in one login must not close the door for all."""
    try:
        return await job
    except Exception:  # noqa: BLE001 - the door is where defects end
        _log.exception("login to a VM failed")
        return Internal("This is a defect of Atoll", hint="Its log has details")


async def _server_options(host_key: Path, welcome: object) -> asyncssh.SSHServerConnectionOptions:
    options: asyncssh.SSHServerConnectionOptions
    options = await asyncssh.SSHServerConnectionOptions.construct(
        config=[],
        server_factory=welcome,
        server_host_keys=[str(host_key)],
        server_version="Atoll",
        encoding="utf-8",
        errors="surrogateescape",
        line_editor=False,  # `editor` does more: words, search, pastes, wide characters
        kex_algs=_KEY_EXCHANGES,
        encryption_algs=_CIPHERS,
        mac_algs=_MACS,
        compression_algs=["none"],  # a compressed packet may unfold to any size
        password_auth=False,
        host_based_auth=False,
        gss_host=None,
        x11_forwarding=False,
        agent_forwarding=False,
        allow_scp=False,
        login_timeout=_LOGIN_S,
        window=_WINDOW,
        rekey_bytes=_REKEY_BYTES,
    )
    return options
