"""The file system a QEMU sees: programs and libraries read-only, five devices, its own /proc entry.

Invariant: nothing in it can be written and nothing in it belongs to one VM, so one serves all. A VM's
disks, memory and sockets reach its QEMU as open descriptors and have no path there. It is a mount
namespace kept by a bind mount, as `ip netns` keeps network namespaces; entering costs a millisecond
where building one per VM costs ten. The host's mounts are detached from it, so it pins none of them.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from atoll.base import proc

SETUP_SECONDS = 20.0
_DEVICES = {"null": "1 3", "zero": "1 5", "random": "1 8", "urandom": "1 9"}


class Jail:
    """The namespace file `entrance`, for `nsenter --mount=`. Root of everything is `folder`."""

    def __init__(self, *, folder: Path) -> None:
        self.entrance = folder / "namespace"
        self._folder = folder

    async def setup(self) -> None:
        """Build it afresh; processes in an older one stay there. About 40 ms."""
        await _sh(_PREPARE.format(folder=shlex.quote(str(self._folder))))
        await proc.run(
            [
                "unshare",
                f"--mount={self.entrance}",
                "--propagation",
                "private",
                "sh",
                "-euc",
                _BUILD.format(folder=shlex.quote(str(self._folder)), devices=_devices()),
            ],
            seconds=SETUP_SECONDS,
        )

    async def teardown(self) -> None:
        """Remove it; processes inside keep it alive until they end."""
        await _sh(_REMOVE.format(folder=shlex.quote(str(self._folder))))


async def _sh(script: str) -> None:
    await proc.run(["sh", "-euc", script], seconds=SETUP_SECONDS)


def _devices() -> str:
    return "\n".join(f"mknod -m 666 dev/{name} c {at}" for name, at in _DEVICES.items())


# The namespace file must lie on a private mount: a namespace cannot hold a reference to itself.
_PREPARE = """
mkdir -p {folder}/root
mountpoint -q {folder} || mount --bind {folder} {folder}
mount --make-private {folder}
mountpoint -q {folder}/namespace && umount -l {folder}/namespace
: > {folder}/namespace
"""

_BUILD = """
cd {folder}/root
mount -t tmpfs -o size=1m,mode=755,nosuid,noexec atoll-jail .
cd {folder}/root
mkdir usr dev proc etc old
mount --bind /usr usr
mount -o remount,bind,ro,nosuid,nodev usr
for name in bin sbin lib lib32 lib64 libx32; do
  if [ -L /$name ]; then cp -P /$name $name
  elif [ -d /$name ]; then
    mkdir $name; mount --bind /$name $name; mount -o remount,bind,ro,nosuid,nodev $name
  fi
done
[ ! -e /etc/ld.so.cache ] || cp /etc/ld.so.cache etc/
{devices}
[ ! -e /dev/kvm ] || mknod -m 666 dev/kvm c $(stat -c '0x%t 0x%T' /dev/kvm)
mount -t proc -o nosuid,nodev,noexec,hidepid=2,subset=pid proc proc
pivot_root . old
cd /
umount -l /old
rmdir /old
mount -o remount,ro /
"""

_REMOVE = """
for at in {folder}/namespace {folder}; do
  if mountpoint -q $at; then umount -l $at; fi
done
rm -f {folder}/namespace
if [ -d {folder}/root ]; then rmdir {folder}/root; fi
if [ -d {folder} ]; then rmdir {folder}; fi
"""
