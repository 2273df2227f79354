"""Logging in to a VM's own sshd: a short-lived certificate of ours, a host certificate of theirs.

Invariant: no trust on first use. The host key must carry a certificate of the cloud's host CA with
the VM's id among its principals, so that an address given to another VM meanwhile is noticed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

import asyncssh
from asyncssh.public_key import CERT_TYPE_HOST, SSHOpenSSHCertificate, decode_ssh_certificate

from atoll.base.errors import Unavailable
from atoll.base.timeout import timeout
from atoll.domain.account import Route
from atoll.doors.ssh.relay import VmSide
from atoll.doors.ssh.roll import Roll

LOGIN_S = 15.0  # a VM under load still answers within this
# A login costs an emulated vCPU two seconds: of a dozen at once none would be done in time.
LOGINS_AT_ONCE = 4
TURN_S = 60.0  # a file sent in many parts at once; then the VM is stuck
_CERTIFICATE_S = 3600  # our own key never leaves this process; an hour bounds a stolen copy
# One hop inside this machine. AES-GCM is one call of OpenSSL per packet in AsyncSSH.
_CIPHERS = ("aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr")
_KEY_EXCHANGES = ("curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256")


class Certifier(Protocol):
    """Signs user certificates with the cloud's user CA."""

    def user_certificate(self, public_key: str, principals: Sequence[str], seconds: float) -> str:
        """An OpenSSH certificate line valid from now on."""


@dataclass(frozen=True, slots=True)
class _Credential:
    pair: asyncssh.SSHKeyPair
    made_at: float  # of the wall clock: a certificate is judged by that, also when it was set


class VmLogin:
    """Opens connections to VMs; one key pair for the life of the process."""

    def __init__(self, *, certifier: Certifier, port: int = 22) -> None:
        self._certifier = certifier
        self._port = port
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self._credentials: dict[str, _Credential] = {}
        self._sides: Roll[VmSide] = Roll()
        self._options: asyncssh.SSHClientConnectionOptions | None = None
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def open(self, route: Route) -> VmSide:
        """A connection logged in as `route.login_user`; logins to one VM take turns.

        Raises Unavailable when the VM does not answer, is not the VM it should be or refuses us.
        """
        turn = self._turns.setdefault(route.vm_id, asyncio.Semaphore(LOGINS_AT_ONCE))
        try:
            async with timeout(TURN_S):
                await turn.acquire()
        except TimeoutError as error:
            raise _unreachable(route, f"too many log in at once ({TURN_S:g} s)") from error
        try:
            return await self._open(route)
        finally:
            turn.release()

    async def _open(self, route: Route) -> VmSide:
        loop = asyncio.get_running_loop()
        options = self._options = self._options or await _client_options()
        owner = _Owner(self._sides, loop.create_future(), self._credential(route.login_user))
        try:
            async with timeout(LOGIN_S):
                _, side = await loop.create_connection(
                    lambda: _VerifiedVm(loop, options, owner, route), route.address, self._port
                )
                try:
                    await owner.ready
                except BaseException:
                    side.abort()
                    raise
        except TimeoutError as error:
            raise _unreachable(route, f"no answer within {LOGIN_S:g} s") from error
        except (OSError, asyncssh.Error) as error:
            raise _unreachable(route, str(error) or type(error).__name__) from error
        return side

    def end(self, vm_id: str, *, account: str | None = None) -> None:
        """End the connections to a VM that is no longer where it was: nothing comes back from it.

        With `account` (an id) those of one who may not enter any more.
        """
        for side in self._sides:
            if side.vm_id == vm_id and account in (None, side.account):
                side.abort()

    async def close(self, *, seconds: float) -> None:
        """End every connection, those that linger after `seconds` without a goodbye."""
        await self._sides.see_off(
            lambda side: side.leave(asyncssh.DISC_BY_APPLICATION, "the gateway is stopping"),
            lambda side: side.abort(),
            seconds=seconds,
        )

    def _credential(self, user: str) -> asyncssh.SSHKeyPair:
        now = time.time()
        credential = self._credentials.get(user)
        if credential is None or not 0 <= now - credential.made_at < _CERTIFICATE_S / 2:
            line = self._certifier.user_certificate(
                self._key.export_public_key().decode(), [user], _CERTIFICATE_S
            )
            certificate = asyncssh.import_certificate(line)
            pair = asyncssh.load_keypairs([(self._key, certificate)])[0]
            credential = self._credentials[user] = _Credential(pair, now)
        return credential.pair


class _VerifiedVm(VmSide):
    """Accepts only the VM of its route as the other end."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: asyncssh.SSHClientConnectionOptions,
        owner: _Owner,
        route: Route,
    ) -> None:
        super().__init__(loop, options, wait=None)
        self.vm_name = route.vm_name
        self.vm_id = route.vm_id
        self.account = route.caller.account.id
        self._route = route
        self._username = route.login_user
        self._protocol_factory = lambda: owner

    def validate_server_host_key(self, key_data: bytes) -> asyncssh.SSHKey:
        """The certified key; raises HostKeyNotVerifiable for every other."""
        try:
            certificate = decode_ssh_certificate(key_data)
            if not isinstance(certificate, SSHOpenSSHCertificate):
                raise ValueError("not an OpenSSH certificate")
            if certificate.signing_key != asyncssh.import_public_key(self._route.host_ca):
                raise ValueError("signed by another CA")
            if self._route.vm_id not in certificate.principals:  # AsyncSSH lets an empty list pass
                raise ValueError(f"made for {', '.join(certificate.principals) or 'nobody'}")
            certificate.validate(CERT_TYPE_HOST, self._route.vm_id)
        except (ValueError, asyncssh.KeyImportError) as error:
            raise asyncssh.HostKeyNotVerifiable(
                f"its host key is not that of the VM: {error}"
            ) from error
        return certificate.key


class _Owner(asyncssh.SSHClient):
    """Turns AsyncSSH's callbacks into one future, and is on the roll while connected."""

    def __init__(
        self, sides: Roll[VmSide], ready: asyncio.Future[None], pair: asyncssh.SSHKeyPair
    ) -> None:
        self.ready = ready
        self._sides = sides
        self._side: VmSide | None = None
        self._pairs = [pair]

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        assert isinstance(conn, VmSide)
        self._side = conn
        self._sides.add(conn)

    def public_key_auth_requested(self) -> asyncssh.SSHKeyPair | None:
        return self._pairs.pop() if self._pairs else None

    def auth_completed(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._side is not None:
            self._sides.discard(self._side)
        if not self.ready.done():
            self.ready.set_exception(exc or asyncssh.ConnectionLost("connection closed"))


async def _client_options() -> asyncssh.SSHClientConnectionOptions:
    options: asyncssh.SSHClientConnectionOptions
    options = await asyncssh.SSHClientConnectionOptions.construct(
        config=[],
        username="atoll",
        client_keys=None,
        agent_path=None,
        known_hosts=None,  # validate_server_host_key decides instead
        gss_host=None,
        preferred_auth="publickey",
        disable_trivial_auth=True,
        server_host_key_algs=["ssh-ed25519-cert-v01@openssh.com"],
        kex_algs=_KEY_EXCHANGES,
        encryption_algs=_CIPHERS,
        compression_algs=["none"],
        login_timeout=LOGIN_S,
        client_version="Atoll",
    )
    return options


def _unreachable(route: Route, why: str) -> Unavailable:
    return Unavailable(
        f"VM '{route.vm_name}' does not let us in: {why}",
        hint=f"Try again in a moment, or in the lobby: restart {route.vm_name}",
    )
