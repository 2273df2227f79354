"""Who this VM is, on its disk: name, machine id, ssh host key, and whose keys may log in.

Changes are staged and then committed together: every file is written beside its place, all are
renamed, then all are made durable at once. A VM cut off at any moment has old files or new ones,
never half a key. Programs that read the machine id once at their start
(the init system, the bus, the journal daemon) keep the parent's until the next reboot; for the
journal a link from the new id to the directory in use lets `journalctl` find it at once.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import ExitStack, suppress

_NEW = ".atoll-new"
HOST_KEY = "etc/ssh/ssh_host_ed25519_key"
_HOSTNAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
_TEXT_LIMIT = 16_384
SETUP = "var/lib/atoll/setup"  # atoll-setup.path starts it when it appears
ENVIRONMENT = "etc/profile.d/atoll-env.sh"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class Refused(ValueError):
    """A value that may not be written."""


class Identity:
    """The identity files under `root`; nothing changes before `commit`."""

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._files: list[tuple[str, str, int]] = []
        self._links: list[tuple[str, str]] = []
        self._forget: list[str] = []

    def commit(self) -> None:
        """Make everything staged so far true on disk."""
        files = [file for file in self._files if not self._is_there(*file)]
        with ExitStack() as opened:
            fds = [self._stage(opened, *file) for file in files]
            for fd in fds:  # gives each its blocks: no rename becomes durable before its data
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            for name, _, _ in files:
                os.rename(self._path(name) + _NEW, self._path(name))
            for target, link in self._links:
                os.symlink(target, link)
            for name in self._forget:
                with suppress(FileNotFoundError):
                    os.unlink(self._path(name))
            for fd in fds[-1:]:
                # One commit of ext4's journal holds all of it, in ordered mode after all data.
                os.fsync(fd)
        self._files, self._links, self._forget = [], [], []

    def hostname(self, name: str) -> None:
        """/etc/hostname and the name's line in /etc/hosts."""
        if not _HOSTNAME.fullmatch(name):
            raise Refused(f"hostname {name[:80]!r}")
        self._write("etc/hostname", f"{name}\n", 0o644)
        lines = self._read("etc/hosts").splitlines() or ["127.0.0.1\tlocalhost"]
        others = [line for line in lines if line.split("#")[0].split()[:1] != ["127.0.1.1"]]
        self._write("etc/hosts", "\n".join([*others, f"127.0.1.1\t{name}"]) + "\n", 0o644)

    def machine_id(self, new: str = "") -> str:
        """Give the machine a new id (drawn here when `new` is empty) and return it.

        Draw only after the kernel's generator was reseeded.
        """
        if new and not _MACHINE_ID.fullmatch(new):
            raise Refused(f"machine id {new[:80]!r}")
        new = new or os.urandom(16).hex()
        old = self._read("etc/machine-id").strip()
        self._write("etc/machine-id", f"{new}\n", 0o444)
        bus = self._path("var/lib/dbus/machine-id")
        if os.path.exists(bus) and not os.path.islink(bus):
            self._write("var/lib/dbus/machine-id", f"{new}\n", 0o444)
        for journal in ("run/log/journal", "var/log/journal"):
            self._carry_journal(journal, old, new)
        return new

    def forget_seed(self) -> None:
        """No random seed for the next boot: every clone of this disk has the same."""
        self._forget.append("var/lib/systemd/random-seed")

    def host_key(self, pem: str) -> None:
        """The ssh host key; its public half and certificate are other files."""
        if not pem.startswith(_KEY) or len(pem) > _TEXT_LIMIT:
            raise Refused("host key is not an OpenSSH private key")
        self._write(HOST_KEY, pem if pem.endswith("\n") else pem + "\n", 0o600)

    def host_certificate(self, line: str) -> None:
        """The certificate that lets clients of this cloud know the host key."""
        self._write(f"{HOST_KEY}-cert.pub", _line(line), 0o644)

    def user_ca(self, line: str) -> None:
        """The authority whose certificates may log in."""
        self._write("etc/ssh/atoll_user_ca.pub", _line(line), 0o644)

    def authorized_keys(self, user: str, lines: list[str]) -> None:
        """The account's keys for `user`, beside and apart from ~/.ssh/authorized_keys.

        A file of its own, owned by root: taking a key back is exact and the user's file is theirs.
        """
        if not _USER.fullmatch(user):
            raise Refused(f"user {user[:80]!r}")
        os.makedirs(self._path("etc/ssh/authorized_keys.d"), mode=0o755, exist_ok=True)
        text = "".join(_line(line) for line in lines)
        self._write(f"etc/ssh/authorized_keys.d/{user}", text, 0o644)

    def environment(self, values: dict[str, str]) -> None:
        """Variables for login shells, and for the setup script, which reads them there."""
        lines = []
        for name, value in values.items():
            if not _VARIABLE.fullmatch(name) or set(value) & {"\0", "\n", "\r"}:
                raise Refused(f"variable {name[:80]!r}")
            quoted = value.replace("'", "'\\''")
            lines.append(f"export {name}='{quoted}'\n")
        os.makedirs(self._path(os.path.dirname(ENVIRONMENT)), mode=0o755, exist_ok=True)
        self._write(ENVIRONMENT, "".join(lines), 0o644)

    def setup_script(self, text: str) -> None:
        """A script for systemd to run once, as root; nobody else may read it."""
        if not text or len(text) > _TEXT_LIMIT or "\0" in text:
            raise Refused("setup script is empty, too long or not text")
        os.makedirs(self._path(os.path.dirname(SETUP)), mode=0o755, exist_ok=True)
        self._write(SETUP, text, 0o700)

    def hooks(self) -> list[str]:
        """Executables of /etc/atoll/after-fork.d, in order of name."""
        folder = self._path("etc/atoll/after-fork.d")
        with suppress(FileNotFoundError):
            paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
            return [path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)]
        return []

    def _carry_journal(self, folder: str, old: str, new: str) -> None:
        """Let the new id's journal directory be the one in use under the old id."""
        in_use = os.path.join(self._path(folder), old)
        link = os.path.join(self._path(folder), new)
        if old and old != new and os.path.isdir(in_use) and not os.path.lexists(link):
            self._links.append((os.path.basename(os.path.realpath(in_use)), link))

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _read(self, name: str) -> str:
        try:
            with open(self._path(name), encoding="utf-8", errors="surrogateescape") as file:
                return file.read(1 << 20)
        except FileNotFoundError:
            return ""

    def _write(self, name: str, text: str, mode: int) -> None:
        self._files.append((name, text, mode))

    def _is_there(self, name: str, text: str, mode: int) -> bool:
        """A start with the keys it had writes nothing."""
        with suppress(FileNotFoundError):
            status = os.lstat(self._path(name))
            if stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == mode:
                return self._read(name) == text
        return False

    def _stage(self, opened: ExitStack, name: str, text: str, mode: int) -> int:
        """Write `name`'s new content beside it; returns the file, open until `opened` ends."""
        path = self._path(name) + _NEW
        with suppress(FileNotFoundError):
            os.unlink(path)  # left by a cut; O_EXCL below then never follows a planted link
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        opened.callback(os.close, fd)
        os.fchmod(fd, mode)
        os.write(fd, text.encode("utf-8", "surrogateescape"))
        return fd


def _line(line: str) -> str:
    """`line` ended, if it is one line of printable text."""
    if not line.isprintable() or not line.strip() or len(line) > _TEXT_LIMIT:
        raise Refused("a key must be one line of text")
    return line.strip() + "\n"
