"""Isolation of a started program, looked at from outside (/proc) and from inside."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoll.base.aio import poll
from atoll.base.errors import Unavailable
from atoll.engine.cgroup import Cgroups, Group
from atoll.engine.jail import Jail
from atoll.engine.launch import STDERR_BYTES, Process, adopt, launch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
UID = 700_123
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
PYTHON = "/usr/bin/python3"  # inside there is only the host's /usr
QEMU = ["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-sandbox", SANDBOX]


@dataclass
class Place:
    """Everything `launch` needs, for one VM."""

    jail: Jail
    group: Group

    async def start(
        self, *argv: str, fds: tuple[int, ...] = (), file_bytes: int | None = None
    ) -> Process:
        return await launch(
            argv, jail=self.jail, group=self.group, uid=UID, pass_fds=fds, file_bytes=file_bytes
        )

    async def output(
        self, *argv: str, fds: tuple[int, ...] = (), file_bytes: int | None = None
    ) -> str:
        """Run to the end; what it printed. It is held until it was seen: some end in no time."""
        held, release = os.pipe()
        os.fchown(held, UID, UID)
        hold = f'"$@"; exec cat /proc/self/fd/{held}'
        try:
            process = await self.start(
                "sh", "-c", hold, "sh", *argv, fds=(*fds, held), file_bytes=file_bytes
            )
        finally:
            os.close(release)
            os.close(held)
        try:
            assert await process.wait_exit(20), process.said()
            return process.said()
        finally:
            process.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    cgroups = Cgroups(instance="tnetl")
    jail = Jail(folder=tmp_path / "jail")
    cgroups.setup()
    try:
        await jail.setup()
        yield Place(jail, cgroups.create("vm-1", memory_bytes=256 << 20, cpus=1))
    finally:
        await cgroups.teardown()
        await jail.teardown()
        assert not (tmp_path / "jail").exists()
        assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


async def _program(process: Process, name: str) -> None:
    """Wait until the chain of tools has become the program, and that waits for something itself."""

    async def became() -> bool | None:
        assert process.alive(), process.said()
        comm, _, state = Path(f"/proc/{process.pid}/stat").read_text().partition(") ")
        return True if comm.endswith(f"({name}") and state.startswith("S") else None

    await poll(became, seconds=10, every=0.005, what=name)


async def test_seen_from_outside(place: Place) -> None:
    read, write = os.pipe()
    extra = os.open("/dev/null", os.O_RDONLY)  # ours, and to stay ours
    os.set_inheritable(extra, True)
    process = await place.start("sleep", "60", fds=(write,))
    try:
        await _program(process, "sleep")
        proc = Path(f"/proc/{process.pid}")
        status = dict(
            line.split(":\t", 1)
            for line in (proc / "status").read_text().splitlines()
            if "\t" in line
        )
        assert status["Uid"] == status["Gid"] == "\t".join([str(UID)] * 4)
        assert status["Groups"].strip() == ""
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[name], 16) == 0, name
        assert status["NoNewPrivs"] == "1"
        assert status["PPid"] != str(os.getpid())

        for space in ("mnt", "net", "ipc", "uts"):
            assert os.readlink(proc / "ns" / space) != os.readlink(f"/proc/self/ns/{space}"), space

        fds = {fd: os.readlink(proc / "fd" / fd) for fd in os.listdir(proc / "fd")}
        pipe = fds.pop(str(write))
        assert pipe == os.readlink(f"/proc/self/fd/{write}")
        assert set(fds) == {"0", "1", "2"}
        assert fds["0"] == "/dev/null"
        assert "memfd:atoll-stderr" in fds["1"]
        assert fds["1"] == fds["2"]

        assert place.group.pids() == {process.pid}
        limits = (proc / "limits").read_text()
        assert "Max core file size        0 " in limits
        assert "Max open files            1024 " in limits
        names = {word.split(b"=")[0] for word in (proc / "environ").read_bytes().split(b"\0")}
        assert names <= {b"PATH", b"LC_ALL", b"PWD", b""}
    finally:
        process.kill()
        for fd in (read, write, extra):
            os.close(fd)
        process.close()


async def test_seen_from_inside(place: Place) -> None:
    program = """
import json, os, socket
def works(action):
    try:
        action()
    except OSError as error:
        return error.strerror
    return "works"
print(json.dumps({
    "root": sorted(os.listdir("/")),
    "dev": sorted(os.listdir("/dev")),
    "etc": sorted(os.listdir("/etc")),
    "links": [name for _, name in socket.if_nameindex()],
    "write /": works(lambda: open("/x", "w")),
    "write /usr": works(lambda: open("/usr/x", "w")),
    "proc": sorted(name for name in os.listdir("/proc") if not name.isdigit()),
    "init": works(lambda: os.listdir("/proc/1")),
    "signal": works(lambda: os.kill(1, 0)),
    "root again": works(lambda: os.setuid(0)),
    "kvm": works(lambda: open("/dev/kvm", "rb")),
    "mount list": open("/proc/self/mounts").read(),
}))
"""
    seen = json.loads(await place.output(PYTHON, "-c", program))
    assert set(seen["root"]) - {"lib32", "libx32", "lib64"} == {
        *("bin", "dev", "etc", "lib", "proc", "sbin", "usr")
    }
    assert set(seen["dev"]) - {"kvm"} == {"null", "zero", "random", "urandom"}
    assert set(seen["etc"]) <= {"ld.so.cache"}
    assert seen["links"] == ["lo"]
    assert seen["write /"] == seen["write /usr"] == "Read-only file system"
    assert seen["proc"] == ["self", "thread-self"]
    assert seen["kvm"] != "Permission denied"
    assert seen["init"] == "No such file or directory"
    assert seen["signal"] == "Operation not permitted"
    assert seen["root again"] == "Operation not permitted"
    assert {line.split()[1] for line in seen["mount list"].splitlines()} <= {
        *("/", "/usr", "/proc", "/bin", "/sbin", "/lib", "/lib64")
    }


async def test_qemu_runs_with_its_filter(place: Place) -> None:
    """Sockets, sealed memory and a read-only file, all handed over; then it answers and quits."""
    ours, theirs = socket.socketpair()
    ram = os.memfd_create("ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(ram, 16 << 20)
    fcntl.fcntl(ram, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW)
    process = await place.start(
        *QEMU,
        *(
            "-m",
            "16",
            "-object",
            f"memory-backend-file,id=r,size=16M,share=off,mem-path=/proc/self/fd/{ram}",
        ),
        *("-chardev", f"socket,id=q,fd={theirs.fileno()}", "-mon", "chardev=q,mode=control"),
        fds=(theirs.fileno(), ram),
    )
    theirs.close()
    try:
        ours.settimeout(10)
        with ours.makefile("rwb", buffering=0) as qmp:
            assert b"QMP" in qmp.readline(), process.said()
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert "Seccomp:\t2" in status
            qmp.write(b'{"execute":"qmp_capabilities"}{"execute":"quit"}')
            assert await process.wait_exit(10)
    finally:
        process.kill()
        process.close()
        ours.close()
        os.close(ram)


async def test_sealed_memory_cannot_be_changed_by_a_hostile_program(place: Place) -> None:
    ram = os.memfd_create("ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(ram, b"template")
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(ram, fcntl.F_ADD_SEALS, seals)
    program = f"""
import mmap, os
fd = os.open("/proc/self/fd/{ram}", os.O_RDWR)
private = mmap.mmap(fd, 8, mmap.MAP_PRIVATE)
private[0:8] = b"hostile!"
for name, action in dict(
    write=lambda: os.pwrite(fd, b"x", 0),
    shared=lambda: mmap.mmap(fd, 8, mmap.MAP_SHARED),
    shrink=lambda: os.ftruncate(fd, 0),
    mode=lambda: os.fchmod(fd, 0),
).items():
    try: action()
    except PermissionError: continue
    print(name, "was possible")
print("done")
"""
    assert await place.output(PYTHON, "-c", program, fds=(ram,)) == "done"
    assert os.pread(ram, 8, 0) == b"template"
    os.close(ram)


async def test_files_open_by_their_own_mode_whatever_their_folder(
    place: Place, tmp_path: Path
) -> None:
    """What /proc/self/fd/N needs: the mode of the file lets the VM's uid in; its path is no matter."""
    folder = tmp_path / "root-only"
    folder.mkdir(mode=0o700)
    (folder / "kernel").write_bytes(b"vmlinuz")
    program = 'import sys\nfor n in sys.argv[1:]: print(open(f"/proc/self/fd/{n}").read())'
    (folder / "kernel").chmod(0o444)
    fd = os.open(folder / "kernel", os.O_RDONLY)
    assert await place.output(PYTHON, "-c", program, str(fd), fds=(fd,)) == "vmlinuz"
    (folder / "kernel").chmod(0o400)
    assert "Permission denied" in await place.output(PYTHON, "-c", program, str(fd), fds=(fd,))
    os.close(fd)


async def test_a_restarted_engine_finds_it_again(place: Place) -> None:
    process = await place.start("sh", "-c", "echo here I am >&2; exec sleep 60")
    await _program(process, "sleep")
    again = adopt(process.pid, process.start_time)
    assert again is not None
    assert again.alive()
    assert again.said() == "here I am"
    assert adopt(process.pid, process.start_time + 1) is None
    assert not await again.wait_exit(0.01)
    again.kill()
    assert await process.wait_exit(5)
    assert not again.alive()
    assert adopt(process.pid, process.start_time) is None
    again.kill()  # harmless
    again.close()
    process.close()


def _start_and_kill_engine(program: str) -> tuple[int, int]:
    engine = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )
    assert engine.stdout is not None
    with engine.stdout:
        pid, began = map(int, engine.stdout.readline().split())
    os.killpg(engine.pid, signal.SIGKILL)
    engine.wait()
    return pid, began


async def test_it_outlives_the_engine(place: Place) -> None:
    """An engine (a process of its own) starts it and is killed, with its whole process group."""
    program = f"""
import asyncio, os, pathlib
from atoll.engine.cgroup import Group
from atoll.engine.jail import Jail
from atoll.engine.launch import launch
folders = tuple(pathlib.Path(f) for f in {[str(f) for f in place.group.folders]})
async def main():
    process = await launch(["sleep", "60"], group=Group(version={place.group.version},
        folders=folders), jail=Jail(folder=pathlib.Path({str(place.jail.entrance.parent)!r})),
        uid={UID})
    print(process.pid, process.start_time, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    pid, began = _start_and_kill_engine(program)
    process = adopt(pid, began)
    assert process is not None
    await _program(process, "sleep")
    process.kill()
    assert await process.wait_exit(5)
    process.close()


async def test_what_it_says_is_kept_and_bounded(place: Place) -> None:
    said = await place.output("sh", "-c", "echo out; echo err >&2; echo more")
    assert said.splitlines() == ["out", "err", "more"]
    flood = await place.output("sh", "-c", "yes | head -c 1000000; echo $? >&2")
    assert len(flood) <= STDERR_BYTES
    assert flood.startswith("y\ny\n")


async def test_a_program_that_cannot_start_says_why(place: Place, tmp_path: Path) -> None:
    try:
        process = await place.start("no-such-program")
    except Unavailable as error:  # it ended before it was seen
        said = str(error)
    else:
        assert await process.wait_exit(20)
        said = process.said()
        process.close()
    assert "no-such-program" in said

    missing = Place(place.jail, Group(version=1, folders=(tmp_path / "not-a-group",)))
    with pytest.raises(Unavailable, match="not-a-group"):
        await missing.start("sh", "-c", "echo it ran")


async def test_no_file_grows_beyond_what_is_allowed(place: Place) -> None:
    with tempfile.TemporaryFile() as disk:
        os.fchmod(disk.fileno(), 0o666)
        program = f"""
import os
os.pwrite({disk.fileno()}, b"x", 4095)
try: os.pwrite({disk.fileno()}, b"x", 4096)
except OSError as error: print(error.strerror)
print("alive")
"""
        said = await place.output(PYTHON, "-c", program, fds=(disk.fileno(),), file_bytes=4096)
        assert said.splitlines() == ["File too large", "alive"]
        assert os.fstat(disk.fileno()).st_size == 4096


async def test_a_new_jail_leaves_running_programs_alone(place: Place) -> None:
    process = await place.start("sh", "-c", "sleep 60; true")
    await _program(process, "sh")
    await place.jail.setup()
    assert process.alive()
    assert "usr" in await place.output("ls", "/")
    process.kill()
    assert await process.wait_exit(5)
    process.close()
