"""What the engine may ask of a VM: one method of `Verbs` per verb, its arguments checked here.

Every verb is safe to repeat, since an answer can be lost. None runs a program: there is no `exec`,
and whoever holds the engine's socket gains no shell by it.
"""

from __future__ import annotations

import os
import sys
import threading
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress

from atoll.guest import facts
from atoll.guest.freezing import SECONDS_LIMIT, Freezing
from atoll.guest.identity import Identity, Refused
from atoll.guest.kernel import Kernel
from atoll.guest.wire import VERSION

READY = "run/atoll-ready"
_ENTROPY_LIMIT = 512
Args = dict[str, object]


class Verbs:
    """The agent's verbs and the little they remember between calls."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._freezing = Freezing(kernel)
        self._epoch = ""
        self._machine_id = ""
        self._table: dict[str, Callable[[Args], Args]] = {
            "ping": lambda _: {},
            "hello": self._hello,
            "identify": self._identify,
            "clock": self._clock,
            "freeze": self._freeze,
            "thaw": self._thaw,
            "stat": lambda _: facts.stat(kernel.root),
            "grow": lambda _: {"fs_bytes": kernel.grow_root()},
            "shutdown": self._shutdown,
        }

    def start(self) -> str:
        """Before the first request: undo a dead agent's freeze, take a grown disk. -> problem."""
        self._freezing.recover()
        try:
            self._kernel.grow_root()
        except OSError as error:  # the VM works at its old size
            return f"the root file system could not grow to its disk: {error.strerror}"
        return ""

    def run(self, verb: str, args: Args) -> Args:
        """The verb's result. Raises Refused for what may not be asked, OSError from the kernel."""
        method = self._table.get(verb)
        if method is None:
            raise Refused(f"verb {verb[:40]!r} is not one of {', '.join(self._table)}")
        return method(args)

    def _hello(self, _: Args) -> Args:
        return {
            "version": VERSION,
            "boot_id": self._read("proc/sys/kernel/random/boot_id"),
            "machine_id": self._read("etc/machine-id"),
            "hostname": os.uname().nodename,
            "kernel": os.uname().release,
            "ready": os.path.exists(os.path.join(self._kernel.root, READY)),
            "system": self._read(READY),  # what systemd said when boot ended: running, degraded
            "epoch": self._epoch,
            "frozen": self._freezing.held,
        }

    def _identify(self, args: Args) -> Args:
        """Become another VM, or the same in another life (`forked`).

        Thaw comes first: a clone is born frozen, and writing would wait.
        """
        self._freezing.thaw()
        hostname, epoch = _text(args, "hostname"), _text(args, "epoch", "")
        entropy = b64decode(_text(args, "entropy"), validate=True)
        if not 16 <= len(entropy) <= _ENTROPY_LIMIT:
            raise Refused(f"entropy of {len(entropy)} bytes is not within 16 to {_ENTROPY_LIMIT}")
        again = bool(epoch) and epoch == self._epoch
        fresh = _flag(args, "fresh") and not again
        forked = fresh or (bool(args.get("forked")) and not again)
        identity, setup = self._stage(args, hostname), self._stage_setup(args)
        self._kernel.add_entropy(entropy)
        if fresh:
            self._machine_id = identity.machine_id(_text(args, "machine_id", ""))
        if forked:
            identity.forget_seed()
        identity.commit()
        self._kernel.set_hostname(hostname)  # last: half the system wakes up to read it
        if fresh:
            setup.commit()  # a script starts at once, and finds everything as it will be
        self._epoch = epoch
        if forked:
            self._run_hooks(identity.hooks(), hostname)
        machine_id = self._machine_id or self._read("etc/machine-id")
        return {"machine_id": machine_id, "setup": True}

    def _stage(self, args: Args, hostname: str) -> Identity:
        """Check every value before anything changes."""
        identity = Identity(self._kernel.root)
        identity.hostname(hostname)
        if host_key := _text(args, "host_key", ""):
            identity.host_key(host_key)
        if certificate := _text(args, "host_certificate", ""):
            identity.host_certificate(certificate)
        if user_ca := _text(args, "user_ca", ""):
            identity.user_ca(user_ca)
        if args.get("authorized_keys") is not None:
            identity.authorized_keys(_text(args, "login_user"), _lines(args, "authorized_keys"))
        return identity

    def _stage_setup(self, args: Args) -> Identity:
        """What a fresh VM finds at its first start. Written by us, run by systemd: never by us."""
        setup = Identity(self._kernel.root)
        if env := _texts(args, "env"):
            setup.environment(env)
        if script := _text(args, "setup_script", ""):
            setup.setup_script(script)
        return setup

    def _clock(self, args: Args) -> Args:
        return {"clock_moved_ns": self._kernel.set_clock(_number(args, "unix_time_ns"))}

    def _freeze(self, args: Args) -> Args:
        seconds = args.get("seconds")
        if not isinstance(seconds, int | float) or not 0 < seconds <= SECONDS_LIMIT:
            raise Refused(f"seconds must be over 0 and at most {SECONDS_LIMIT:g}")
        return {"mounts": self._freezing.freeze(float(seconds))}

    def _thaw(self, _: Args) -> Args:
        mounts, expired = self._freezing.thaw()
        return {"mounts": mounts, "expired": expired}

    def _shutdown(self, args: Args) -> Args:
        mode = _text(args, "mode")
        if mode not in ("poweroff", "reboot"):
            raise Refused(f"mode {mode[:40]!r} is neither poweroff nor reboot")
        self._freezing.thaw()
        self._kernel.power(mode)
        return {}

    def _run_hooks(self, paths: list[str], hostname: str) -> None:
        """In the background and at idle priority: the user's first login comes first."""
        if paths:
            environment = {**os.environ, "ATOLL_HOSTNAME": hostname}
            threading.Thread(target=_run_each, args=(paths, environment), daemon=True).start()

    def _read(self, name: str) -> str:
        try:
            with open(os.path.join(self._kernel.root, name), encoding="ascii") as file:
                return file.read(256).strip()
        except (OSError, ValueError):
            return ""


def _run_each(paths: list[str], environment: dict[str, str]) -> None:
    for path in paths:
        try:
            pid = os.posix_spawn(path, [path], environment, setsid=True)
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
            os.waitpid(pid, 0)
        except OSError as error:
            say(f"{path}: {error.strerror}")


def say(text: str) -> None:
    """A line for the journal, which may be away. Never between freeze and thaw: it could wait."""
    with suppress(OSError):
        sys.stderr.write(f"atoll-agent: {text}\n")


def _text(args: Args, name: str, default: str | None = None) -> str:
    value = args.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise Refused(f"{name} must be text")
    return value


def _number(args: Args, name: str) -> int:
    value = args.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 63:
        raise Refused(f"{name} must be a positive whole number")
    return value


def _flag(args: Args, name: str) -> bool:
    value = args.get(name)
    if not isinstance(value, bool):
        raise Refused(f"{name} must be true or false")
    return value


def _texts(args: Args, name: str) -> dict[str, str]:
    value = args.get(name) or {}
    if not isinstance(value, dict) or len(value) > 256:
        raise Refused(f"{name} must be names with at most 256 values")
    if not all(isinstance(part, str) for item in value.items() for part in item):
        raise Refused(f"{name} must be text")
    return value


def _lines(args: Args, name: str) -> list[str]:
    value = args.get(name)
    if not isinstance(value, list) or len(value) > 256:
        raise Refused(f"{name} must be a list of at most 256")
    return [line if isinstance(line, str) else "" for line in value]
