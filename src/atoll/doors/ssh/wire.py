"""An AsyncSSH connection made fit for relaying: cheap sends, back pressure, an orderly end.

`relay.py` builds the two sides of the gateway on it. These two modules are the only ones that touch
AsyncSSH's internals, since its public API would have every kind of channel rebuilt by hand;
`tests/engine/test_ssh_gateway.py` drives them with OpenSSH on both ends.

Invariants:
- bytes held for one direction are bounded by the write buffer limit and one read of the socket:
  the side that cannot write, or is exchanging keys, stops the reading of the other. While both
  exchange keys both are read, and what arrives is bounded by a limit of its own;
- messages keep their order, and what was received before the end of a connection is delivered.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable
from contextlib import suppress
from enum import IntFlag

from asyncssh import DISC_PROTOCOL_ERROR
from asyncssh.connection import SSHConnection
from asyncssh.constants import MSG_CHANNEL_FAILURE, MSG_GLOBAL_REQUEST
from asyncssh.packet import SSHPacket, SSHPacketLogger

_INPUT_LIMIT = 1 << 20  # unparsed bytes; four reads, four times the largest packet
_WRITE_HIGH, _WRITE_LOW = 512 << 10, 128 << 10  # two reads of asyncio, so neither side starves
_KEPT_LIMIT = 32 << 20  # what two peers may have under way when both sides exchange keys at once
_LINGER_S = 30.0  # for a slow peer to take the last bytes


class Hold(IntFlag):
    """Why a connection is not read for the moment."""

    INPUT = 1  # its own packets wait for an answer from elsewhere
    WRITE = 2  # the other side's socket is full
    KEYS = 4  # the other side is exchanging keys


class Wire(SSHConnection):
    """One of two connections; `_other` is set while they are spliced."""

    _other: Wire | None = None
    _socket: asyncio.Transport | None = None  # AsyncSSH forgets its own before the last bytes left
    _outbox: list[bytes]
    _holds = Hold(0)
    _kept_bytes = 0
    _leaving = False

    @property
    def is_open(self) -> bool:
        """Whether messages can still be passed on."""
        return self._transport is not None and not self._leaving

    def pass_on(self, payload: bytes) -> None:
        """Send one message of the connection layer (80 to 100), as received by the other side."""
        if not self._kex_complete or self._is_rekey_due():
            self._keep(payload)
            return
        # As SSHConnection.send_packet, without its MSG_IGNORE before each packet (made for CBC).
        padding = -(self._send_enchdrlen + len(payload)) % self._send_blocksize
        if padding < 4:
            padding += self._send_blocksize
        packet = b"".join((padding.to_bytes(1, "big"), payload, os.urandom(padding)))
        assert self._send_encryption is not None
        body, mac = self._send_encryption.encrypt_packet(
            self._send_seq, len(packet).to_bytes(4, "big"), packet
        )
        self._send_seq = (self._send_seq + 1) & 0xFFFFFFFF
        self._rekey_bytes_sent += len(packet)
        self._send(body)
        self._send(mac)

    def _keep(self, payload: bytes) -> None:
        """Let AsyncSSH begin the key exchange, if it has not, and send the message after it."""
        super().send_packet(payload[0], payload[1:])
        self._kept_bytes += len(payload)
        if self._kept_bytes > _KEPT_LIMIT:
            self.leave(DISC_PROTOCOL_ERROR, "the key exchange does not end")
        elif self._other is not None and self._other._kex_complete:
            # One that exchanges keys itself must be read, or neither exchange would ever end.
            self._other.hold(Hold.KEYS)

    def _is_rekey_due(self) -> bool:
        return self._rekey_bytes_sent >= self._rekey_bytes or bool(
            self._rekey_seconds and time.monotonic() >= self._rekey_time
        )

    def leave(self, code: int, reason: str) -> None:
        """Say goodbye and close once everything written has been taken; input is ignored.

        The other side, if there is one, is told the same.
        """
        if self._transport is None or self._leaving:
            return
        self._leaving = True
        other, self._other = self._other, None
        self._send_disconnect(code, reason, "")
        self._flush()
        with suppress(OSError):  # the peer is gone already: reading on tells
            self._transport.write_eof()
        self._transport.resume_reading()  # to see the peer's end of file
        self._loop.call_later(_LINGER_S, self.abort)
        if other is not None:
            other.leave(code, reason)

    def hold(self, why: Hold) -> None:
        """Stop reading; idempotent per reason."""
        self._holds |= why
        if self._transport is not None:
            self._transport.pause_reading()

    def release(self, why: Hold) -> None:
        """Read again when no reason is left."""
        if self._holds & why:
            self._holds &= ~why
            if not self._holds and self._transport is not None:
                self._transport.resume_reading()

    # --- AsyncSSH's hooks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._socket = transport
        self._outbox = []
        transport.set_write_buffer_limits(high=_WRITE_HIGH, low=_WRITE_LOW)
        super().connection_made(transport)
        keep_alive(transport)

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        if self._leaving:
            return
        super().data_received(data, datatype)
        if len(self._inpbuf) > _INPUT_LIMIT:
            self.hold(Hold.INPUT)

    def _finish_recv_packet(
        self,
        pkttype: int,
        seq: int,
        _task: asyncio.Task[None] | None = None,
        is_async: bool = False,
    ) -> None:
        super()._finish_recv_packet(pkttype, seq, _task, is_async)
        if is_async and len(self._inpbuf) <= _INPUT_LIMIT:
            self.release(Hold.INPUT)

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other.hold(Hold.WRITE)

    def resume_writing(self) -> None:
        if self._other is not None:
            self._other.release(Hold.WRITE)

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool | Awaitable[None]:
        if self._other is not None and MSG_GLOBAL_REQUEST <= pkttype <= MSG_CHANNEL_FAILURE:
            self._other.pass_on(packet.get_full_payload())
            return True
        return super().process_packet(pkttype, pktid, packet)

    def send_packet(
        self, pkttype: int, *args: bytes, handler: SSHPacketLogger | None = None
    ) -> None:
        if pkttype >= MSG_GLOBAL_REQUEST and self._auth_complete:
            self.pass_on(b"".join((pkttype.to_bytes(1, "big"), *args)))
        else:
            super().send_packet(pkttype, *args, handler=handler)

    def _send_deferred_packets(self) -> None:
        self._kept_bytes = 0
        super()._send_deferred_packets()
        if self._kex_complete and self._other is not None:
            self._other.release(Hold.KEYS)

    def _send_kexinit(self) -> None:
        super()._send_kexinit()
        self.release(Hold.KEYS)

    def _send(self, data: bytes) -> None:
        """Collect what one turn of the loop sends: a read of eight packets is one write."""
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(data)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        if outbox and self._socket is not None:
            self._socket.write(b"".join(outbox))

    def _cleanup(self, exc: Exception | None) -> None:
        self._channels = {} if self._other is not None else self._channels
        other, self._other = self._other, None
        super()._cleanup(exc)
        if other is not None:
            other.leave(*self._farewell(exc))

    def _farewell(self, exc: Exception | None) -> tuple[int, str]:
        """What the other side is told of this one's end: a disconnect code and its text."""
        raise NotImplementedError


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Notice a peer that vanished without a word within about two minutes of silence.

    TCP's own probes: SSH keep-alives belong to the two ends, whose answers are counted in order.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
