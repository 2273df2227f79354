"""Guest memory seen from outside: which pages a VM has made its own, read and written in place.

Every VM maps its template's memory privately, so the kernel's page tables say which pages differ
from it: those that are anonymous. (template, device state, private pages) is therefore a whole
machine, on any file system, and a clone of a clone is as flat as the first.

Private pages are found in /proc/PID/pagemap (present or swapped, and not of a file:
Documentation/admin-guide/mm/pagemap.rst, bits 61-63). The PAGEMAP_SCAN ioctl was seen to report
more than exist, so the plain file is read: 2 MiB per GiB of guest.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from atoll.base.errors import AtollError, Conflict, Internal, Unavailable

PAGE = 4096
CHUNK = 1 << 20  # fits the second-level cache, so comparing costs one pass over main memory
THREADS = 2  # the VM stands still, so a core is free, and the calls let go of the interpreter
MAGIC = b"ATOLLPG1"
RAM_NAME = "atoll-ram"  # of the sealed memory file, as /proc/PID/maps shows it
_HEAD = struct.Struct("<8sQQ32s")  # magic, memory size, number of runs, sha256 of all else
_PRIVATE = bytes(1 if not b & 0x20 and b & 0xC0 else 0 for b in range(256))
_libc = ctypes.CDLL(None, use_errno=True)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


@dataclass(frozen=True, slots=True)
class Run:
    """Adjacent pages: byte offset into guest memory, and length in bytes."""

    offset: int
    length: int


class GuestMemory:
    """The memory of one running QEMU. Close it, or use it as a context manager.

    Raises Conflict when the process is gone. Threads that read or write must end before it is
    closed: they would go on with whatever gets the numbers of its descriptors next.
    """

    def __init__(self, pid: int, size: int) -> None:
        self.size = size
        self._base = _find(pid, size)
        self._mem = self._map = -1
        try:
            self._mem = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
            self._map = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self.close()
            raise Conflict(f"process {pid} is gone: {error.strerror}") from error

    def __enter__(self) -> GuestMemory:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the process's files."""
        for fd in (self._mem, self._map):
            if fd >= 0:
                os.close(fd)
        self._mem = self._map = -1

    def private_runs(self) -> list[Run]:
        """Pages that differ, or may differ, from the template. 4-12 ms per GiB."""
        count = self.size // PAGE
        entries = os.pread(self._map, count * 8, self._base // PAGE * 8)
        if len(entries) != count * 8:
            raise Conflict("the process ended while its memory was read")
        private = entries[7::8].translate(_PRIVATE)
        return [
            Run(m.start() * PAGE, (m.end() - m.start()) * PAGE)
            for m in re.finditer(b"\x01+", private)
        ]

    def read(self, offset: int, into: memoryview) -> None:
        """Fill `into` from guest memory at byte `offset`."""
        while into:
            got = os.preadv(self._mem, [into], self._base + offset)
            if got <= 0:
                raise Conflict("the process ended while its memory was read")
            into, offset = into[got:], offset + got

    def write(self, offset: int, data: memoryview) -> None:
        """Put `data` at byte `offset`; only this process sees it, its mapping being private."""
        while data:
            put = os.pwritev(self._mem, [data], self._base + offset)
            if put <= 0:
                raise Conflict("the process ended while its memory was written")
            data, offset = data[put:], offset + put


class Pages:
    """A copy of a VM's private pages, addressed as in the guest; holds memory only where copied.

    `precopy` while the VM runs, then `settle` while it is stopped: afterwards `runs` and the content
    are exactly those of that instant.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.runs: list[Run] = []
        self._copy = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | _MAP_NORESERVE)
        self._view = memoryview(self._copy)
        self._at = ctypes.addressof(ctypes.c_char.from_buffer(self._copy))

    def precopy(self, memory: GuestMemory) -> None:
        """Copy what is private now, so that little is left for the pause."""
        for run in memory.private_runs():
            memory.read(run.offset, self._view[run.offset : run.offset + run.length])

    def settle(self, memory: GuestMemory) -> None:
        """Bring the copy up to date with a stopped VM.

        Reads every private page again: this kernel may lack soft-dirty tracking, and a page missed
        is a corrupt clone. Reading into a small buffer and comparing costs less than copying, as
        most pages did not change.
        """
        self.runs = memory.private_runs()
        self._share(partial(self._compare, memory))

    def _compare(self, memory: GuestMemory, pieces: Sequence[Run]) -> None:
        """Read each piece again and copy what differs."""
        buffer = mmap.mmap(-1, CHUNK)
        view = memoryview(buffer)
        at = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        for piece in pieces:
            memory.read(piece.offset, view[: piece.length])
            if _libc.memcmp(self._at + piece.offset, at, piece.length):
                ctypes.memmove(self._at + piece.offset, at, piece.length)

    def apply(self, memory: GuestMemory) -> None:
        """Write the pages into a fresh mapping of the same template."""
        self._share(partial(self._write, memory))

    def _write(self, memory: GuestMemory, pieces: Sequence[Run]) -> None:
        for piece in pieces:
            memory.write(piece.offset, self._view[piece.offset : piece.offset + piece.length])

    def _share(self, work: Callable[[Sequence[Run]], None]) -> None:
        """Do `work` on all runs, cut into chunks, in threads. Raises what one of them raises."""
        pieces = list(self._pieces())
        parts = [pieces[first::THREADS] for first in range(THREADS)]
        with ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="pages") as threads:
            for done in threads.map(work, parts):
                assert done is None  # the map raises what a thread raised

    def _pieces(self) -> Iterator[Run]:
        for run in self.runs:
            for offset in range(run.offset, run.offset + run.length, CHUNK):
                yield Run(offset, min(CHUNK, run.offset + run.length - offset))

    def close(self) -> None:
        """Give the copy back to the system now; nothing may be using it. Closed already is fine."""
        self.runs = []
        self._view.release()
        self._copy.close()

    @property
    def bytes_held(self) -> int:
        """Sum of the runs."""
        return sum(run.length for run in self.runs)

    def save(self, path: Path) -> None:
        """Write to `path` (which must not exist), durable when it returns."""
        index = b"".join(struct.pack("<QQ", run.offset, run.length) for run in self.runs)
        digest = _digest(self.size, index)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb", buffering=0) as file:
            file.write(bytes(_HEAD.size) + index)
            for chunk in self._chunks():
                digest.update(chunk)
                while chunk:
                    chunk = chunk[file.write(chunk) :]
            file.seek(0)
            file.write(_HEAD.pack(MAGIC, self.size, len(self.runs), digest.digest()))
            os.fsync(file.fileno())

    def _chunks(self) -> Iterator[memoryview]:
        for piece in self._pieces():
            yield self._view[piece.offset : piece.offset + piece.length]

    @classmethod
    def load(cls, path: Path) -> Pages:
        """Read what `save` wrote.

        Raises Internal when the file is missing, cut short or altered, Unavailable when this host
        cannot read it now.
        """
        try:
            with path.open("rb", buffering=0) as file:
                return cls._load(file.fileno(), str(path))
        except OSError as error:
            raise unreadable(f"saved memory {path}", error) from error

    @classmethod
    def _load(cls, fd: int, name: str) -> Pages:
        head = os.read(fd, _HEAD.size)
        if len(head) != _HEAD.size:
            raise Internal(f"saved memory {name} is cut short")
        magic, size, count, digest = _HEAD.unpack(head)
        if magic != MAGIC or not 0 < size <= 1 << 44 or count > size // PAGE:
            raise Internal(f"{name} is not saved memory")
        index = _read_exactly(fd, count * 16, name)
        runs = [Run(*struct.unpack_from("<QQ", index, i * 16)) for i in range(count)]
        _check_runs(runs, size, name)
        pages = cls(size)
        pages.runs = runs
        seen = _digest(size, index)
        for chunk in pages._chunks():
            left = chunk
            while left:
                got = os.readv(fd, [left])
                if got <= 0:
                    raise Internal(f"saved memory {name} is cut short")
                left = left[got:]
            seen.update(chunk)
        if seen.digest() != digest:
            raise Internal(f"saved memory {name} is damaged: its checksum differs")
        return pages

    def sealed_file(self) -> int:
        """A memory file with these pages that nobody can ever change; an inheritable descriptor.

        VMs map it privately. Sealing keeps a hostile QEMU, which must open it for writing (QEMU 7.2
        opens no other way), from changing what all its siblings run on.
        """
        fd = os.memfd_create(RAM_NAME, os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, self.size)
            for run in self.runs:
                left, offset = self._view[run.offset : run.offset + run.length], run.offset
                while left:
                    put = os.pwritev(fd, [left], offset)
                    left, offset = left[put:], offset + put
            seal(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd


def unreadable(what: str, error: OSError) -> AtollError:
    """Internal for a file that is damaged or gone, Unavailable for a host short of something.

    Only the first is a reason to give the file up: what is out of memory now can be read later.
    """
    text = f"{what} cannot be read: {error.strerror}"
    return Unavailable(text) if error.errno in _TRANSIENT else Internal(text)


_TRANSIENT = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT)


def seal(fd: int) -> None:
    """No more writes, growth, shrinking or unsealing (linux/fcntl.h: F_ADD_SEALS)."""
    fcntl.fcntl(
        fd,
        fcntl.F_ADD_SEALS,
        fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL,
    )


_MAP_NORESERVE = 0x4000  # linux/mman.h; not in the mmap module


def _find(pid: int, size: int) -> int:
    """Address of the guest's memory: the private mapping named like our file, else of this size."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError as error:
        raise Conflict(f"process {pid} is gone: {error.strerror}") from error
    unnamed = []
    for line in maps.splitlines():
        span, mode, *rest = line.split(maxsplit=5)
        low, high = (int(part, 16) for part in span.split("-"))
        if high - low != size or not mode.startswith("rw"):
            continue
        if len(rest) == 4 and RAM_NAME in rest[3]:
            return low
        if len(rest) < 4:
            unnamed.append(low)
    if len(unnamed) != 1:
        raise Internal(f"{len(unnamed)} mappings of process {pid} could be the guest's memory")
    return unnamed[0]


def _digest(size: int, index: bytes) -> hashlib._Hash:
    return hashlib.sha256(struct.pack("<QQ", size, len(index)) + index)


def _read_exactly(fd: int, length: int, name: str) -> bytes:
    data = b""
    while len(data) < length:
        piece = os.read(fd, length - len(data))
        if not piece:
            raise Internal(f"saved memory {name} is cut short")
        data += piece
    return data


def _check_runs(runs: Sequence[Run], size: int, name: str) -> None:
    end = 0
    for run in runs:
        if run.offset < end or run.length <= 0 or run.offset % PAGE or run.length % PAGE:
            raise Internal(f"{name}: its index is damaged")
        end = run.offset + run.length
    if end > size:
        raise Internal(f"{name}: its index is damaged")
