"""Two SSH connections spliced at the connection protocol (RFC 4254): the gateway's data path.

After both logins, every connection-layer message (numbers 80 to 100: global requests, channel
opens, data, windows, signals, exits, closes) is decrypted on one side and encrypted on the other,
unread. Channel numbers and windows stay end to end between the user's client and the VM's sshd, so
whatever the two support works, also what is invented later, and the gateway keeps no channel state.

One exception: a VM's `hostkeys-00@openssh.com` stays here. A client would file the VM's keys under
the gateway's name. One side's end is told to the other with its reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol, cast

from asyncssh import (
    DISC_BY_APPLICATION,
    DISC_CONNECTION_LOST,
    DISC_TOO_MANY_CONNECTIONS,
    OPEN_RESOURCE_SHORTAGE,
    DisconnectError,
    SSHClientConnection,
    SSHServerConnection,
)
from asyncssh.auth import get_supported_server_auth_methods
from asyncssh.channel import SSHChannel
from asyncssh.constants import (
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN,
    MSG_GLOBAL_REQUEST,
    MSG_KEXINIT,
    MSG_USERAUTH_FAILURE,
)
from asyncssh.packet import Boolean, NameList, SSHPacket, SSHPacketHandler

from atoll.doors.ssh.wire import Wire

_MAX_CHANNELS = 256  # of one lobby connection; the VM's sshd limits the spliced ones
_NOT_FOR_CLIENTS = (b"hostkeys-00@openssh.com",)
_KEXINIT_S = 0.5  # a client that waits for the server's offer first gets it after this
# One call of OpenSSL per packet; CTR needs a MAC besides, ChaCha20 costs AsyncSSH the most.
_FAST = frozenset([b"aes128-gcm@openssh.com", b"aes256-gcm@openssh.com"])


class Guest(Protocol):
    """What the client's side asks of the connection's owner (see `visitor`)."""

    refusal: str  # why this connection is turned away at once, or ""
    wants_vm: bool  # messages wait for `vm_side` instead of being handled here

    @property
    def last_words(self) -> tuple[bytes, ...]:
        """What a client that gives up should have shown, as names of authentication methods."""

    async def vm_side(self) -> VmSide | None:
        """The connection to splice, or None: this connection is handled here after all."""


class ClientSide(Wire, SSHServerConnection):
    """The user's client; handled by AsyncSSH as a lobby until `vm_side` gives it a VM."""

    _offer_timer: asyncio.TimerHandle | None = None
    _offered = False

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool | Awaitable[None]:
        if pkttype >= MSG_GLOBAL_REQUEST and self._other is None:
            guest = cast("Guest | None", self._owner)
            if guest is not None and guest.wants_vm:
                return self._join(guest, pkttype, pktid, packet)
            if pkttype == MSG_CHANNEL_OPEN and len(self._channels) >= _MAX_CHANNELS:
                return self._refuse_channel(packet)
        elif pkttype == MSG_KEXINIT and not self._offered:
            self._offer(packet.get_full_payload())
        return super().process_packet(pkttype, pktid, packet)

    async def _join(self, guest: Guest, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Splice on the first message after the login; AsyncSSH keeps the following ones."""
        vm = await guest.vm_side()
        guest.wants_vm = False
        if vm is None:
            result = super().process_packet(pkttype, pktid, packet)
            if not isinstance(result, bool):
                await result
            return
        if not self.is_open:
            vm.leave(DISC_BY_APPLICATION, "client left")
            return
        if not vm.is_open:
            self.leave(*vm._farewell(None))
            return
        self._other, vm._other = vm, self
        self._channels = _EveryChannel(vm)
        vm._channels = _EveryChannel(self)
        vm.pass_on(packet.get_full_payload())

    def _refuse_channel(self, packet: SSHPacket) -> bool:
        packet.get_string()
        self.send_channel_open_failure(
            packet.get_uint32(), OPEN_RESOURCE_SHORTAGE, "too many channels", ""
        )
        return True

    def _send_kexinit(self) -> None:
        """Hold the first offer back until the client's is seen; see `_offer`."""
        if self._offered:
            super()._send_kexinit()
        elif self._offer_timer is None:
            self._offer_timer = self._loop.call_later(_KEXINIT_S, self._offer, b"")

    def _offer(self, client_kexinit: bytes) -> None:
        """Send our algorithms: of the ciphers only the fast ones, if the client has any.

        The client's order decides among what both have, and OpenSSH's puts the fast ones last.
        """
        if self._offer_timer is not None:
            self._offer_timer.cancel()
        if self._offered or not self.is_open:
            return
        self._offered = True
        fast = _FAST.intersection(_ciphers(client_kexinit))
        self._enc_algs = [name for name in self._enc_algs if name in fast] or self._enc_algs
        super()._send_kexinit()

    async def reload_config(self) -> None:
        """No configuration files here; AsyncSSH would build all options anew for each login."""

    def send_userauth_failure(self, partial_success: bool) -> None:
        """Refuse one attempt; the list of methods that may follow ends with words for people.

        OpenSSH prints the list it got last when it has nothing left to try, and only then. A banner
        would be shown to those whose next key is known, and with BatchMode no client comes to
        keyboard-interactive, where the others are told. Clients skip methods they do not know.
        """
        self._auth = None
        guest = cast("Guest | None", self._owner)
        words = guest.last_words if guest is not None else ()
        methods = [*get_supported_server_auth_methods(self), *words]
        self.send_packet(MSG_USERAUTH_FAILURE, NameList(methods), Boolean(partial_success))

    def _send_version(self) -> None:
        super()._send_version()
        guest = cast("Guest | None", self._owner)
        if guest is not None and guest.refusal:
            self.leave(DISC_TOO_MANY_CONNECTIONS, guest.refusal)

    def _farewell(self, exc: Exception | None) -> tuple[int, str]:
        return DISC_BY_APPLICATION, "client left"


class VmSide(Wire, SSHClientConnection):
    """The VM's sshd."""

    vm_name = ""
    vm_id = ""
    account = ""  # id of who enters by it

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool | Awaitable[None]:
        if pkttype == MSG_GLOBAL_REQUEST and _request_name(packet) in _NOT_FOR_CLIENTS:
            return True
        return super().process_packet(pkttype, pktid, packet)

    def _farewell(self, exc: Exception | None) -> tuple[int, str]:
        if isinstance(exc, DisconnectError) and exc.code != DISC_CONNECTION_LOST:
            return exc.code, f"VM '{self.vm_name}': {exc.reason}"
        return DISC_CONNECTION_LOST, f"VM '{self.vm_name}' stopped or lost its connection"


class _EveryChannel(dict[int, "SSHChannel[bytes]"]):
    """Stands in for AsyncSSH's table of channels: any number goes to the other side."""

    def __init__(self, other: Wire) -> None:
        super().__init__()
        self._onward = cast("SSHChannel[bytes]", _Onward(other))

    def __missing__(self, number: int) -> SSHChannel[bytes]:
        return self._onward


class _Onward(SSHPacketHandler):
    def __init__(self, other: Wire) -> None:
        self._other = other

    def log_received_packet(self, *_ignored: object) -> None:
        """Nothing: the formatting alone costs as much as the encryption."""

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool:
        if pkttype > MSG_CHANNEL_FAILURE:
            return False  # AsyncSSH answers that it is not implemented
        self._other.pass_on(packet.get_full_payload())
        return True


def _request_name(packet: SSHPacket) -> bytes:
    return SSHPacket(packet.get_full_payload()[1:]).get_string()


def _ciphers(kexinit: bytes) -> frozenset[bytes]:
    """The ciphers a client offers for both directions (RFC 4253 section 7.1)."""
    if not kexinit:
        return frozenset()
    packet = SSHPacket(kexinit)
    packet.get_bytes(1 + 16)  # message number, cookie
    _kex, _host_keys, up, down = (packet.get_namelist() for _ in range(4))
    return frozenset(up).intersection(down)
