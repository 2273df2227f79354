"""The SSH gateway beside the sshd it leads to: latency of `true`, throughput of a big copy.

    python bench/gateway.py [--megabytes 200] [--rounds 15] [--copies 3]

One sshd on loopback plays the VM; the client goes to it straight, through the gateway
(`ssh web@gateway`) and by ProxyJump (`ssh -J gateway web.atoll`), turn by turn, so that a busy
machine is busy for all. The jump uses the ciphers that `atoll ssh-config` prints for it. Prints JSON:
medians, and ratios to the direct way. The gateway runs in a process of its own, as in production.
Everything shares this machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from atoll.base import log  # noqa: E402
from atoll.doors.ssh.client_config import JUMP_CIPHERS  # noqa: E402
from framework.gateway import Ground, ground  # noqa: E402

WAYS = ("direct", "gateway", "jump")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            facts = json.loads(server.stdout.readline())
            report = measure(Path(folder), facts, options)
        finally:
            server.stdin.close()
            tail = server.stdout.read()
            server.wait(30)
    report["gateway_process"] = json.loads(tail)
    print(json.dumps(report, indent=1))


async def serve(folder: Path) -> None:
    """Door and sshd until stdin closes; prints where they are, and at the end what it cost."""
    log.setup(json=False, level="warning")
    async with ground(folder) as here:
        add_ways(here)
        print(json.dumps({"config": str(here.config)}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
                "peak_rss_mib": usage.ru_maxrss >> 10,
            }
        ),
        flush=True,
    )


def add_ways(here: Ground) -> None:
    """Three names for the same sshd in the client's configuration."""
    user = next(iter(here.town.routes.values())).login_user
    verified = "HostKeyAlias vm-web"
    here.config.write_text(
        f"""
Host direct
    HostName 127.0.0.2
    Port {here.vm_port}
    User {user}
    {verified}
Host gateway
    HostName 127.0.0.1
    Port {here.door.port}
    User web
Host jump
    HostName web.atoll
    User {user}
    ProxyJump gw
    Ciphers {JUMP_CIPHERS}
    {verified}
"""
        + here.config.read_text()
    )


def measure(folder: Path, facts: dict[str, str], options: argparse.Namespace) -> dict[str, object]:
    ssh = ["-F", facts["config"]]
    size = options.megabytes << 20
    source = folder / "source"
    with source.open("wb") as file:
        for _ in range(options.megabytes):
            file.write(os.urandom(1 << 20))
    target = folder / "copy"

    def up(way: str) -> list[str]:
        return ["scp", "-q", *ssh, str(source), f"{way}:{target}"]

    def down(way: str) -> list[str]:
        return ["scp", "-q", *ssh, f"{way}:{source}", str(target)]

    def stream(way: str) -> list[str]:
        return ["sh", "-c", f"ssh -F {facts['config']} {way} 'head -c {size} /dev/zero' >/dev/null"]

    latency = turns(lambda way: ["ssh", *ssh, way, "true"], options.rounds)
    report: dict[str, object] = {
        "host": {"cpus": os.cpu_count(), "machine": platform.machine(), "python": sys.version[:6]},
        "true_ms": {way: round(seconds * 1000, 1) for way, seconds in latency.items()},
        "true_ratio": ratios(latency, more_is_better=False),
    }
    for name, command in (("scp_up", up), ("scp_down", down), ("stream", stream)):
        seconds = turns(command, options.copies)
        report[f"{name}_mb_s"] = {way: round(size / 1e6 / took) for way, took in seconds.items()}
        report[f"{name}_ratio"] = ratios(seconds, more_is_better=True)
    return report


def turns(command: Callable[[str], list[str]], rounds: int) -> dict[str, float]:
    """Median seconds of each way, taken in turn after one unmeasured round."""
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        for way in WAYS:
            started = time.perf_counter()
            subprocess.run(command(way), check=True, stdin=subprocess.DEVNULL)
            if number:
                taken[way].append(time.perf_counter() - started)
    return {way: statistics.median(times) for way, times in taken.items()}


def ratios(seconds: dict[str, float], *, more_is_better: bool) -> dict[str, float]:
    """Each way relative to the direct one: time, or throughput."""
    direct = seconds["direct"]
    return {
        way: round(direct / took if more_is_better else took / direct, 2)
        for way, took in seconds.items()
        if way != "direct"
    }


if __name__ == "__main__":
    main()
