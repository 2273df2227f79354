"""The system calls the agent makes, one method each, and nothing else that changes the machine.

Request numbers are those of the generic ioctl encoding (x86-64 and arm64 alike). No method starts a
process: fork and exec cost 60-90 ms in an emulated guest, an ioctl well under one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import stat
import struct
import time

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878
RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207
BLKGETSIZE64 = 0x80081272
EXT4_IOC_RESIZE_FS = 0x40086610

NS = 1_000_000_000


class Kernel:
    """The running kernel. `root` is / except under test; paths in answers are inside it."""

    def __init__(self, root: str = "/") -> None:
        self.root = root

    def set_clock(self, unix_time_ns: int) -> int:
        """Step the wall clock; returns how far it moved, in nanoseconds."""
        moved = unix_time_ns - time.time_ns()
        time.clock_settime_ns(time.CLOCK_REALTIME, unix_time_ns)
        return moved

    def add_entropy(self, data: bytes) -> None:
        """Credit `data` (at most 512 bytes) to the kernel's generator and make it reseed at once.

        Without the second call a clone would go on with its parent's key until the next interval.
        """
        fd = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
        try:
            padded = data + bytes(-len(data) % 4)
            pool = struct.pack("ii", 8 * len(data), len(data)) + padded
            fcntl.ioctl(fd, RNDADDENTROPY, pool)
            fcntl.ioctl(fd, RNDRESEEDCRNG)
        finally:
            os.close(fd)

    def set_hostname(self, name: str) -> None:
        """The name in the kernel; the files are identity's."""
        socket.sethostname(name)

    def writable_mounts(self) -> list[tuple[str, str]]:
        """(mount point, file system) a freeze must hold: each super block once, oldest first.

        Only block devices count: tmpfs and friends are memory, which the snapshot takes anyway, and
        network file systems are not ours to stop.
        """
        found: dict[str, tuple[str, str]] = {}
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                left, _, right = line.partition(" - ")
                fields, (kind, source, options) = left.split(" "), right.split()[:3]
                device, point, here = fields[2], _unescape(fields[4]), fields[5].split(",")
                if device.startswith("0:") or not source.startswith("/dev/"):
                    continue
                if "rw" in here and "rw" in options.split(","):
                    found.setdefault(device, (point, kind))
        return list(found.values())

    def freeze(self, point: str) -> int | None:
        """Freeze the file system at `point`; returns an open descriptor for `thaw`.

        None when it cannot be frozen (no such operation) or somebody else froze it before.
        """
        fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, FIFREEZE, 0)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EOPNOTSUPP, errno.EBUSY, errno.ENOTTY):
                return None
            raise
        return fd

    def thaw(self, fd: int) -> None:
        """Undo one `freeze` and close its descriptor; a file system not frozen is fine."""
        try:
            fcntl.ioctl(fd, FITHAW, 0)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        finally:
            os.close(fd)

    def power(self, mode: str) -> None:
        """Orderly `poweroff` or `reboot`: the signals systemd documents for its own process."""
        os.kill(1, signal.SIGRTMIN + {"poweroff": 4, "reboot": 5}[mode])

    def grow_root(self) -> int:
        """Grow the root file system to its device, online; returns its size in bytes.

        Only ext4 is grown, and only by 16 MiB and more: the device of an image of the same size
        differs from its file system by less.
        """
        before = os.statvfs(self.root)
        device = self._root_device()
        if device is None:
            return before.f_frsize * before.f_blocks
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            raw: bytes = fcntl.ioctl(fd, BLKGETSIZE64, bytes(8))
            size = int(struct.unpack("Q", raw)[0])
            if size - _ext4_size(fd) < 16 << 20:
                return before.f_frsize * before.f_blocks
        finally:
            os.close(fd)
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, EXT4_IOC_RESIZE_FS, struct.pack("Q", size // before.f_frsize))
        finally:
            os.close(fd)
        after = os.statvfs(self.root)
        return after.f_frsize * after.f_blocks

    def _root_device(self) -> str | None:
        """The block device under the root file system when that is ext4."""
        number = os.stat(self.root).st_dev
        wanted = f"{os.major(number)}:{os.minor(number)}"
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                left, _, right = line.partition(" - ")
                kind, source = right.split()[:2]
                if left.split(" ")[2] == wanted and kind == "ext4":
                    node = f"/dev/block/{wanted}" if source == "/dev/root" else source
                    return node if _is_block(node) else None
        return None


def _is_block(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def _ext4_size(fd: int) -> int:
    """Bytes of the ext4 file system on `fd`, from its super block (statvfs leaves out overhead)."""
    block = os.pread(fd, 1024, 1024)
    low, shift = struct.unpack_from("<I", block, 4)[0], struct.unpack_from("<I", block, 24)[0]
    high = struct.unpack_from("<I", block, 0x150)[0]
    return int((high << 32 | low) << (10 + shift))


def _unescape(text: str) -> str:
    """mountinfo writes space, tab, newline and backslash as three octal digits."""
    for octal in ("\\040", "\\011", "\\012", "\\134"):
        text = text.replace(octal, chr(int(octal[1:], 8)))
    return text
