"""Starting and keeping VMs: `new` beside a cold boot, thirty at once, fifty idle, pause and resume.

A cold boot is what `restart` does after the shutdown: the same image, size, disk and QEMU, from the
kernel's first instruction to the agent's answer, by the engine's own laps.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Sequence

from bench.cloud import (
    Timed,
    anatomy_mib,
    available_mib,
    cpu_s,
    drop_all,
    prepare,
    pss_mib,
    rounded,
    running,
    timed,
)
from bench.report import Row

from atoll.base.aio import poll
from atoll.base.errors import AtollError
from atoll.base.proc import run
from framework.atoll import Atoll

NEWS, CROWD, IDLE, NAPS, COLD = 20, 30, 50, 4, 2
SETTLE_S = 20
# A server that starts at once: what is measured is the way to it.
SERVE = "mkdir s; echo hi >s/index.html; busybox httpd -p 8000 -h s"


async def measure(atoll: Atoll) -> list[Row]:
    """All rows of this subject; no VM runs at the end."""
    await prepare(atoll)
    cold_ms, cold_memory = await _cold(atoll)
    news, rows = await _news(atoll, cold_ms)
    one_ms = statistics.median(t.wall_ms for t in news)
    rows.append(await _naps(atoll, one_ms))
    rows += await _crowd(atoll, one_ms, cold_memory)
    await drop_all(atoll)
    return rows


# -- cold boots


async def _cold(atoll: Atoll) -> tuple[list[float], dict[str, float]]:
    """Milliseconds of each cold boot; MiB that a VM so booted takes."""
    boots = []
    for number in range(COLD):
        name = f"cold-{number}x"
        await atoll.command(f"new --name {name}")
        again = await timed(atoll, f"restart {name}")
        boots.append(again.engine_ms - again.laps.get("shutdown", 0.0))
    await asyncio.sleep(SETTLE_S)
    pids = _pids(await running(atoll))
    pss = statistics.mean(pss_mib(pid) for pid in pids)
    with_them = await available_mib()
    await drop_all(atoll)
    without = await available_mib()
    return boots, {"available_mib": (without - with_them) / COLD, "pss_mib": pss}


# -- new


async def _news(atoll: Atoll, cold_ms: Sequence[float]) -> tuple[list[Timed], list[Row]]:
    cold = statistics.median(cold_ms)
    daemons = [await atoll.pid_of("engine"), await atoll.pid_of("control")]
    news, python_s = [], 0.0
    ways = (_banner, _shell, _until_page)
    reached: dict[object, list[float]] = {way: [] for way in ways}
    for number in range(NEWS):
        name = f"new-{number}x"
        spent, began = cpu_s(daemons), time.perf_counter()
        made = await timed(atoll, f"new --name {name}")
        python_s += cpu_s(daemons) - spent
        assert made.data["cold_booted"] is False, made.data
        news.append(made)
        way = ways[number % len(ways)]
        await way(atoll, name)
        reached[way].append((time.perf_counter() - began) * 1000)
        await drop_all(atoll)
    wall = statistics.median(t.wall_ms for t in news)
    engine = statistics.median(t.engine_ms for t in news)
    laps = {lap: statistics.median(t.laps.get(lap, 0.0) for t in news) for lap in news[-1].laps}
    busy = python_s * 1000 / sum(t.wall_ms for t in news)
    raw = {
        "cold_ms": rounded(cold_ms),
        "new_ms": rounded([t.wall_ms for t in news]),
        "engine_laps_ms": [t.laps for t in news],
    }
    rows = [
        Row(
            what="`new`, 20 in a row, beside a cold boot of the same image and size",
            goal="median ≤ 1/25 of the cold boot",
            measured=f"1/{cold / wall:.1f} ({wall:.0f} ms; cold {cold / 1000:.1f} s)",
            met=wall <= cold / 25,
            runs=f"{NEWS} `new`, {COLD} cold boots",
            remarks=f"our Python's CPU time is {busy:.0%} of the wall clock; outside the engine's laps "
            f"(control, RPC, opening the port) pass {wall - engine:.0f} ms ({1 - engine / wall:.0%}). "
            "Engine's laps, ms: " + ", ".join(f"{lap} {ms:.0f}" for lap, ms in laps.items()),
            raw=raw,
        )
    ]
    for way, what, goal, note in (
        (_banner, "`new` to the first banner of the VM's sshd, through the gateway", 12,
         "the client's login at the gateway included"),
        (_shell, "`new` to the end of the first `ssh vm true` through the gateway", None,
         "two logins, the VM's own in emulated code, to the exit status"),
        (_until_page, "`new` to the first HTTPS 200", 12,
         "includes one SSH session that starts a server in the VM, and `set-public`"),
    ):  # fmt: skip
        took = statistics.median(reached[way])
        rows.append(
            Row(
                what=what,
                goal=f"median ≤ 1/{goal} of the cold boot" if goal else "–",
                measured=f"1/{cold / took:.1f} ({took:.0f} ms)",
                met=took <= cold / goal if goal else None,
                runs=str(len(reached[way])),
                remarks=f"{note}; `new` itself is {wall:.0f} ms of it",
                raw={"ms": rounded(reached[way])},
            )
        )
    return news, rows


async def _banner(atoll: Atoll, name: str) -> None:
    options, host = atoll.ssh_options(), f"{name}.{atoll.config.https.domain}"
    process = await asyncio.create_subprocess_exec(
        "ssh", *options, "-W", f"{host}:22", "lobby@127.0.0.1",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    line = await asyncio.wait_for(process.stdout.readline(), 60)
    assert line.startswith(b"SSH-2.0-OpenSSH"), line
    process.kill()
    await process.wait()


async def _shell(atoll: Atoll, name: str) -> None:
    await atoll.ssh("true", user=name)


async def _until_page(atoll: Atoll, name: str) -> None:
    async with asyncio.TaskGroup() as both:
        both.create_task(atoll.ssh(SERVE, user=name))
        both.create_task(atoll.command(f"share set-public {name}"))
    https = atoll.config.https
    ca = atoll.config.control_state / "keys" / "ca.pem"
    argv = ["curl", "-so", "/dev/null", "-w", "%{http_code}", "--max-time", "5", "--cacert",
            str(ca), f"https://{name}.{https.domain}:{https.port}/"]  # fmt: skip

    async def answers() -> bool | None:
        return (await run(argv, seconds=10, check=False)).out == b"200" or None

    await poll(answers, seconds=60, what=f"the page of {name}", every=0.02)


# -- pause and resume


async def _naps(atoll: Atoll, new_ms: float) -> Row:
    await atoll.command("new --name nap")
    await asyncio.sleep(5)
    pauses, resumes = [], []
    for _ in range(NAPS):
        pauses.append(await timed(atoll, "pause nap"))
        resumes.append(await timed(atoll, "resume nap"))
        assert resumes[-1].data["cold_booted"] == "false", resumes[-1].data
    await drop_all(atoll)
    pause = statistics.median(t.wall_ms for t in pauses)
    resume = statistics.median(t.wall_ms for t in resumes)
    return Row(
        what="pause; resume of an idle VM, each beside `new`",
        goal="≤ 1.5 each",
        measured=f"{pause / new_ms:.2f} ({pause:.0f} ms); {resume / new_ms:.2f} ({resume:.0f} ms)",
        met=max(pause, resume) <= 1.5 * new_ms,
        runs=f"{NAPS} each",
        remarks=f"laps, ms: pause {pauses[-1].laps}; resume {resumes[-1].laps}",
        raw={"pause_ms": rounded([t.wall_ms for t in pauses]),
             "resume_ms": rounded([t.wall_ms for t in resumes])},
    )  # fmt: skip


# -- many


async def _crowd(atoll: Atoll, one_ms: float, cold: dict[str, float]) -> list[Row]:
    before = await available_mib()
    began = time.perf_counter()
    made = await asyncio.gather(
        *(atoll.command(f"new --name crowd-{n}x") for n in range(CROWD)), return_exceptions=True
    )
    total_ms = (time.perf_counter() - began) * 1000
    failed = [str(error) for error in made if isinstance(error, AtollError | OSError)]
    spent = cpu_s(_pids(await running(atoll)))
    cold_booted = sum(isinstance(m, dict) and m["cold_booted"] is True for m in made)
    crowd = Row(
        what=f"{CROWD} `new` at once, beside one",
        goal="all succeed; total ≤ 12 times one",
        measured=f"{CROWD - len(failed)} succeed; {total_ms / one_ms:.1f} times "
        f"({total_ms / 1000:.1f} s)",
        met=not failed and total_ms <= 12 * one_ms,
        runs="1",
        remarks=f"{cold_booted} of them cold; one after the other they would take {CROWD} times one. "
        f"The QEMUs used {spent / CROWD * 1000:.0f} ms of CPU each, and {os.cpu_count()} cores give "
        f"{total_ms * (os.cpu_count() or 1) / CROWD:.0f} ms for each in that time"
        + (f"; failed: {failed[0][:200]}" if failed else ""),
    )
    for number in range(CROWD, IDLE):
        await atoll.command(f"new --name crowd-{number}x")
    await asyncio.sleep(SETTLE_S)
    return [crowd, await _idle(atoll, before, cold)]


async def _idle(atoll: Atoll, before: float, cold: dict[str, float]) -> Row:
    pids = _pids(await running(atoll))
    each = (before - await available_mib()) / len(pids)
    spent, began = cpu_s(pids), time.perf_counter()
    await asyncio.sleep(10)
    busy = (cpu_s(pids) - spent) / (time.perf_counter() - began) / len(pids)
    pss = statistics.mean(pss_mib(pid) for pid in pids)
    share = each / cold["available_mib"]
    inside = anatomy_mib(pids[0])
    return Row(
        what=f"{len(pids)} idle VMs of 1 GiB: MemAvailable that each takes",
        goal="≤ 40 MiB and ≤ 1/8 of a cold-booted VM",
        measured=f"{each:.0f} MiB, 1/{1 / share:.1f} of a cold-booted one "
        f"({cold['available_mib']:.0f} MiB)",
        met=each <= 40 and share <= 1 / 8,
        runs=f"{len(pids)} VMs; {COLD} cold-booted",
        remarks=f"an idle VM uses {busy:.1%} of a core; proportional set: {pss:.0f} MiB each, "
        f"cold-booted {cold['pss_mib']:.0f} MiB. Of one, its own alone: "
        + ", ".join(f"{what} {mib:.0f}" for what, mib in inside.items()),
        raw={"pss_mib": rounded([pss_mib(pid) for pid in pids])},
    )


def _pids(vms: Sequence[object]) -> list[int]:
    return [pid for vm in vms if isinstance(pid := getattr(vm, "pid", None), int)]
