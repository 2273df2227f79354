"""A clone is the machine of one instant: memory and disk of the parent, an identity of its own."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from atoll.base.proc import run
from framework.agreement import vm_id
from framework.atoll import Atoll
from framework.log_writer import LOG_WRITER

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(1500)]

CLONES = 20
GENERATIONS = 5
DATA_MB = 300
# In memory: random data, and a process that ticks every 5 ms and keeps its longest pause. On disk: the
# writer's log.
SETUP = f"""
set -e
sudo mount -o remount,size={DATA_MB + 50}M /dev/shm
head -c {DATA_MB}M /dev/urandom > /dev/shm/data
md5sum < /dev/shm/data > /dev/shm/md5
{LOG_WRITER}
cat > ticker.py <<'END'
import time
worst, last = 0.0, time.monotonic()
while True:
    time.sleep(0.005)
    now = time.monotonic()
    if now - last > worst:
        worst = now - last
        open("/dev/shm/worst", "w").write(str(worst))
    last = now
END
systemd-run --user --unit writer python3 writer.py
systemd-run --user --unit ticker python3 ticker.py
"""
# What a child must say of itself. What was acknowledged is read before the log: the writer goes on.
CHECK = """
acked=$(cat /dev/shm/acked); cp log log.now
md5sum < /dev/shm/data | cmp - /dev/shm/md5 && echo memory same
python3 - $acked <<'END'
import hashlib, sys
lines = open("log.now").read().split("\\n")[:-1]
good = all(line == f"{n} {hashlib.md5(str(n).encode()).hexdigest()}" for n, line in enumerate(lines))
print("log prefix" if good and len(lines) > int(sys.argv[1]) else f"log BAD {len(lines)} {sys.argv[1]}")
END
hostname; cat /etc/machine-id; sudo ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key | cut -d' ' -f2
head -c 32 /dev/urandom | md5sum | cut -d' ' -f1; date +%s.%N; cat /dev/shm/acked
"""


async def ask(atoll: Atoll, vm: str) -> list[str]:
    """CHECK's lines: memory, log, hostname, machine-id, host key, random, time, acked."""
    return (await atoll.ssh("bash -s", user=vm, stdin=CHECK.encode())).out.decode().split("\n")


async def sound(atoll: Atoll, vm: str, folder: Path) -> None:
    """The VM's disk, paused and read from outside: its file system has nothing to mend.

    It is mounted still: first the journal is played back, as a boot would.
    """
    await atoll.command(f"pause {vm}")
    layers = atoll.config.pool / "layers"
    top = max(layers.glob(f"{vm_id(atoll, vm)}-*.qcow2"))
    raw = folder / f"{vm}.raw"
    try:
        await run(["qemu-img", "convert", "-O", "raw", str(top), str(raw)], seconds=120)
        for options, good in (("-fp", (0, 1)), ("-fn", (0,))):
            done = await run(["e2fsck", options, str(raw)], seconds=120, check=False)
            assert done.code in good, f"{vm}: e2fsck {options}: {done.out.decode()}"
    finally:
        raw.unlink(missing_ok=True)


async def test_twenty_clones_five_generations_deep(atoll: Atoll, tmp_path: Path) -> None:
    await atoll.ssh("new", "--name", "gen", "--memory", "512M")
    await atoll.ssh("bash -s", user="gen", stdin=SETUP.encode())
    seen: dict[str, set[str]] = {name: set() for name in ("machine", "key", "random")}
    parent, pauses = "gen", []
    for number in range(CLONES):
        child = f"gen-c{number}x"
        made = json.loads((await atoll.ssh("cp", parent, child, "--json")).out)
        assert made["name"] == child
        asked = time.time()
        lines = await ask(atoll, child)
        assert len(lines) == 8, f"{child}: {lines}"
        memory, log, hostname, machine, key, random, clock, acked = lines
        assert memory == "memory same", f"{child}: {lines}"
        assert log == "log prefix", f"{child}: {lines}"
        assert hostname == child
        assert asked - 2 < float(clock) < time.time() + 2, "the wall clock is right in a child"
        for name, value in (("machine", machine), ("key", key), ("random", random)):
            assert value not in seen[name], f"{child} has the {name} of another VM"
            seen[name].add(value)
        assert int(acked) > 0, "the writer goes on in the child"
        pauses.append(
            float((await atoll.ssh("cat /dev/shm/worst; echo 0 > /dev/shm/worst", user=parent)).out)
        )
        if number % (CLONES // GENERATIONS) == 0 and number:
            await atoll.command(f"rm {parent}")
            parent = child
        else:
            if number == CLONES - 1:
                await sound(atoll, child, tmp_path)
            await atoll.command(f"rm {child}")
    await sound(atoll, parent, tmp_path)
    await atoll.command(f"rm {parent}")
    assert max(pauses) < 5.0


async def test_parent_and_child_go_apart_and_disks_are_sound(atoll: Atoll, tmp_path: Path) -> None:
    await atoll.ssh("new", "--name", "left")
    await atoll.ssh("echo one > shared; sync; echo 1 > /dev/shm/n", user="left")
    await atoll.ssh("cp", "left", "right")
    await atoll.ssh("echo two > shared; echo 2 > /dev/shm/n; sync", user="left")
    assert (await atoll.ssh("cat shared /dev/shm/n", user="right")).out == b"one\n1\n"
    await atoll.ssh("echo three > shared", user="right")
    assert (await atoll.ssh("cat shared /dev/shm/n", user="left")).out == b"two\n2\n"
    for vm in ("left", "right"):
        errors = await atoll.ssh("sudo dmesg --level err,crit,alert,emerg | grep -i ext4", user=vm,
                                 check=False)  # fmt: skip
        assert errors.out == b""
        await sound(atoll, vm, tmp_path)
    await atoll.command("rm left right")


async def test_a_clone_of_a_stopped_and_of_a_paused_vm_copies_what_is_there(atoll: Atoll) -> None:
    await atoll.ssh("new", "--name", "rest")
    await atoll.ssh("echo kept > note; echo alive > /dev/shm/alive", user="rest")
    await atoll.ssh("pause", "rest")
    await atoll.ssh("cp", "rest", "rest-copy")
    machines = set()
    for vm in ("rest", "rest-copy"):
        resumed = await atoll.command(f"resume {vm}")
        assert resumed["cold_booted"] == "false"
        asked = "cat note /dev/shm/alive; hostname; cat /etc/machine-id"
        out = (await atoll.ssh(asked, user=vm)).out.decode().split()
        assert out[:3] == ["kept", "alive", vm]
        machines.add(out[3])
    assert len(machines) == 2, "the copy became a machine of its own"
    await atoll.command("rm rest rest-copy")


async def test_a_tcp_client_of_the_parent_sees_a_pause_and_nothing_else(atoll: Atoll) -> None:
    await atoll.ssh("new", "--name", "echo")
    echo = "python3 -c \"import sys\nfor line in sys.stdin: print(line, end='', flush=True)\""
    import asyncio

    process = await asyncio.create_subprocess_exec(
        "ssh", *atoll.ssh_options(), "echo@127.0.0.1", echo,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout

    async def beat(number: int) -> float:
        assert process.stdin
        assert process.stdout
        began = time.monotonic()
        process.stdin.write(b"%d\n" % number)
        await process.stdin.drain()
        async with asyncio.timeout(30):
            assert int(await process.stdout.readline()) == number
        return time.monotonic() - began

    await beat(0)
    cloning = asyncio.ensure_future(atoll.command("cp echo echo-copy"))
    worst, number = 0.0, 1
    while not cloning.done():
        worst = max(worst, await beat(number))
        number += 1
    await cloning
    process.stdin.close()
    assert await process.wait() == 0
    assert number > 3, "the client talked during the clone"
    assert worst < 10
    assert re.match(rb"echo-copy", (await atoll.ssh("hostname", user="echo-copy")).out)
    await atoll.command("rm echo echo-copy")
