"""Every measurement in one run: `make bench` (root, about half an hour).

    python bench/run.py [vms] [clone] [listing] [edge] [gateway] [api] [terminal] [disk_chain]
                        [snapshots] [sharing] [agent_tax]

Writes bench/results/<date>.json and docs/benchmarks.md. With names, only these subjects are measured
and the others of today are kept. A subject that fails is named on the page, with the reason, and the
exit code is 1; a goal that is missed is a result.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "tests")]

from bench import clone, listing, sharing, snapshots, terminal, vms  # noqa: E402
from bench.agent_tax import measure as agent_tax  # noqa: E402
from bench.peer import WITHOUT_BASHRC  # noqa: E402
from bench.report import ORDER, Row, Section, host_facts, write  # noqa: E402

from atoll.rpc.messages import Node, NodeInfo  # noqa: E402
from framework.atoll import Atoll, running_atoll  # noqa: E402

SETTINGS: dict[str, Any] = {
    "vms": {"cpus": 1, "memory": "1G", "disk": "8G"},
    "network": {"block": "10.211.0.0/16"},  # not one of those that tests draw from
}
IN_A_CLOUD: dict[str, Callable[[Atoll], Awaitable[list[Row]]]] = {
    "vms": vms.measure,
    "listing": listing.measure,
    "clone": clone.measure,
    "sharing": sharing.measure,
    "snapshots": snapshots.measure,
}
ALONE: dict[str, Callable[[], Awaitable[list[Row]]]] = {
    "terminal": terminal.measure,
    "agent_tax": agent_tax.measure,
}
SCRIPT_S = 400


async def main(names: list[str]) -> int:
    """Measure, write, print the page."""
    wanted = names or list(ORDER)
    if unknown := set(wanted) - set(ORDER):
        raise SystemExit(f"no such subject: {', '.join(sorted(unknown))}")
    facts, found = host_facts(), {}
    inside = [name for name in IN_A_CLOUD if name in wanted]
    if inside:
        async with running_atoll(prepare_image=False, **SETTINGS) as atoll:
            node = await atoll.engine.call(NodeInfo(), Node, seconds=60)
            facts["accelerator"] = f"{node.accel} ({node.accel_reason})"
            for name in inside:
                found[name] = await _section(name, partial(IN_A_CLOUD[name], atoll))
    for name, measure in ALONE.items():
        if name in wanted:
            found[name] = await _section(name, measure)
    for name, script in SCRIPTS.items():
        if name in wanted:
            found[name] = await _section(name, partial(asyncio.to_thread, script))
    path = write(found, facts)
    print(f"wrote {path}")
    for name, section in found.items():
        for row in section.rows:
            verdict = {None: "", True: "met", False: "MISSED"}[row.met]
            print(f"{row.what}: {row.measured}; goal {row.goal} {verdict}")
        if section.failed:
            print(f"{name}: not measured: {section.failed}", file=sys.stderr)
    return 1 if any(section.failed for section in found.values()) else 0


async def _section(name: str, measure: Callable[[], Awaitable[list[Row]]]) -> Section:
    print(f"measuring {name} …", file=sys.stderr, flush=True)
    rows: list[Row] = []
    failed, before, began = "", os.getloadavg()[0], time.monotonic()
    try:
        rows = await measure()
    except Exception as error:  # noqa: BLE001  the page says it; the other subjects are still measured
        failed = f"{type(error).__name__}: {error}"[:500]
    return Section(
        rows=rows,
        at=f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
        seconds=round(time.monotonic() - began, 1),
        load_before=before,
        load_after=os.getloadavg()[0],
        failed=failed,
    )


# -- the subjects that need no cloud are programs of their own


def _script(
    name: str,
    *arguments: str,
    wrapper: Sequence[str] = (),
    environment: dict[str, str] | None = None,
) -> Any:
    argv = [*wrapper, sys.executable, str(ROOT / "bench" / name), *arguments]
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=SCRIPT_S,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr[-300:]}")
    return json.loads(done.stdout)


def edge_is_fast_enough(said: Mapping[str, Any]) -> bool:
    """By what it takes of the machine, too: requests per second depend on what the other cores do."""
    rate: Mapping[str, float] = said["ratio_requests"]
    cpu: Mapping[str, float] = said["ratio_cpu"]
    goal: float = said["goal"]
    others = max(rate["caddy"], rate["nginx"])
    return min(rate["atoll"], cpu["atoll"]) >= goal and rate["atoll"] > others


def _edge() -> list[Row]:
    said = _script("edge.py", "2")
    rate, cpu, waits = said["ratio_requests"], said["ratio_cpu"], said["latency_us"]
    runs = f"{said['rounds']} of {said['seconds_each']} s each, in turns"
    idle, host = said["idle_mib_per_10000"], said["host"]
    return [
        Row(
            what="HTTPS, authenticated, beside plain HAProxy to the same upstream, one thread each",
            goal="≥ 0.6 by both, ahead of Caddy's forward_auth and nginx's auth_request to a no-op",
            measured=f"{rate['atoll']:.2f} by requests, {cpu['atoll']:.2f} by CPU per request; "
            f"Caddy {rate['caddy']:.2f}, nginx {rate['nginx']:.2f} by requests; each request looked at "
            f"anew (as a first one, or one that writes) {rate['anew']:.2f} and {cpu['anew']:.2f}",
            met=edge_is_fast_enough(said),
            runs=runs,
            remarks="µs of the proxy's CPU per request: "
            + ", ".join(f"{name} {us:.0f}" for name, us in said["cpu_us_per_request"].items())
            + f". HAProxy {host['haproxy']}, Caddy {host['caddy']}, nginx {host['nginx']}",
            raw=said,
        ),
        Row(
            what=f"the same at {said['latency_at_per_second']} requests per second: p50 and p99 that "
            "the proxy adds to the upstream asked directly, beside plain HAProxy's",
            goal="–",
            measured=f"{_added(waits, 'atoll', 'p50') / _added(waits, 'plain', 'p50'):.2f}, "
            f"{_added(waits, 'atoll', 'p99') / _added(waits, 'plain', 'p99'):.2f}",
            met=None,
            runs=runs,
            remarks="added, ms: "
            + ", ".join(
                f"{name} {_added(waits, name, 'p50') / 1000:.2f} and "
                f"{_added(waits, name, 'p99') / 1000:.2f}"
                for name in rate
            ),
        ),
        Row(
            what="memory for 10,000 idle TLS connections, beside plain HAProxy",
            goal="–",
            measured=f"{idle['atoll'] / idle['plain']:.2f} ({idle['atoll']:.0f} MiB)",
            met=None,
            runs=f"{said['idle_measured']} connections",
            remarks=", ".join(f"{name} {mib:.0f} MiB" for name, mib in idle.items())
            + "; the process alone, without the kernel's sockets",
        ),
    ]


def _added(waits: dict[str, dict[str, float]], name: str, percentile: str) -> float:
    return max(waits[name][percentile] - waits["direct"][percentile], 1.0)


def _gateway() -> list[Row]:
    megabytes, rounds, copies = 1000, 10, 3
    said = _script("gateway.py", "--megabytes", str(megabytes), "--rounds", str(rounds),
                   "--copies", str(copies), wrapper=WITHOUT_BASHRC,
                   # In memory: the disk would be the slowest part, and another each time.
                   environment={"BENCH_DIR": "/dev/shm"})  # fmt: skip
    true, up, down = said["true_ratio"], said["scp_up_ratio"], said["scp_down_ratio"]
    through = min(up["gateway"], down["gateway"])
    jump = min(up["jump"], down["jump"])
    speeds = f"MB/s up {said['scp_up_mb_s']}, down {said['scp_down_mb_s']}"
    copy = f"{copies} copies of {megabytes} MB each way in memory, in turns"
    ms = said["true_ms"]
    return [
        Row(
            what="`ssh vm@host true` through the gateway, beside the same sshd directly",
            goal="≤ 1.5",
            measured=f"{true['gateway']:.2f} ({ms['gateway']:.0f} ms; direct {ms['direct']:.0f} ms)",
            met=true["gateway"] <= 1.5,
            runs=f"{rounds} of each, in turns",
            remarks="not the same key exchange: OpenSSH directly uses sntrup761, "
            f"the gateway goes on to the "
            f"VM by X25519; see `ls` for its worth. ProxyJump {true['jump']:.2f}",
            raw=said,
        ),
        Row(
            what="scp through the gateway, throughput beside direct",
            goal="≥ 0.5",
            measured=f"{up['gateway']:.2f} up, {down['gateway']:.2f} down",
            met=through >= 0.5,
            runs=copy,
            remarks=f"{speeds}. Client, gateway and sshd share {os.cpu_count()} cores, and the gateway "
            "deciphers and enciphers every byte in one process",
        ),
        Row(
            what="scp by ProxyJump, throughput beside direct",
            goal="≥ 0.8",
            measured=f"{up['jump']:.2f} up, {down['jump']:.2f} down",
            met=jump >= 0.8,
            runs=copy,
            remarks="every byte is enciphered twice by the client, with the ciphers of "
            "`atoll ssh-config`; direct with OpenSSH's own choice",
        ),
    ]


def _api() -> list[Row]:
    said = _script("api.py", "3")
    of, runs = said["of"], f"{said['rounds']} of {said['seconds_each']} s each, in turns"
    health, ls = of["healthz"], of["ls"]
    rows = [
        Row(
            what="`POST /exec` with `ls` of 500 VMs, requests per second beside `GET /healthz`",
            goal="–",
            measured=f"1/{health['per_second'] / ls['per_second']:.0f} ({ls['per_second']:.0f}; "
            f"healthz {health['per_second']:.0f})",
            met=None,
            runs=runs,
            remarks=f"CPU per request {ls['cpu_ms']:.1f} ms (healthz {health['cpu_ms']:.2f}), one "
            f"connection alone waits {ls['latency_ms']:.1f} ms (healthz {health['latency_ms']:.2f}); "
            f"{ls['bytes'] / 1000:.0f} kB. uvicorn alone, without HAProxy; the engine is a fake",
            raw=said,
        )
    ]
    for page in of.keys() - {"healthz", "ls"}:
        one, kb = of[page], of[page]["bytes_gzip"] / 1000
        rows.append(
            Row(
                what=f"{page} with 500 VMs: compressed size, and server time beside `ls` over `/exec`",
                goal=f"≤ {said['page_goal_kb']} kB",
                measured=f"{kb:.1f} kB; {one['latency_ms'] / ls['latency_ms']:.2f} "
                f"({one['latency_ms']:.1f} ms)",
                met=kb <= said["page_goal_kb"],
                runs=runs,
                remarks=f"{one['bytes'] / 1000:.0f} kB not compressed; {one['cpu_ms']:.1f} ms of CPU, "
                f"{one['per_second']:.0f} requests per second; what it loads besides is not in it",
            )
        )
    return rows


def _disk_chain() -> list[Row]:
    said = _script("disk_chain.py", "/var/tmp")
    rows = [
        Row(
            what=f"disk at chain depth 1, 8, 16 beside a raw file: {name}",
            goal=f"≥ {pattern['goal']}" if pattern["goal"] else "–",
            measured=", ".join(f"{ratio:.2f}" for ratio in pattern["ratio"].values()),
            met=min(pattern["ratio"].values()) >= pattern["goal"] if pattern["goal"] else None,
            runs="5, in turns",
            remarks=f"raw: {pattern['raw_per_second']} requests per second{_spread(name, pattern)}",
            raw=pattern,
        )
        for name, pattern in said["depth"].items()
    ]
    live = said["live"]
    worst = live["cloning"]["max_ms"]
    rows.append(
        Row(
            what="live clone of a disk under full write load: longest stall of a write",
            goal=f"≤ {live['goal_stall_ms']} ms",
            measured=f"{worst:.0f} ms",
            met=worst <= live["goal_stall_ms"],
            runs="8 clones",
            remarks=f"longest write without a clone {live['alone']['max_ms']:.0f} ms; the switch itself "
            f"{live['switch_ms']['median']} ms, at most {live['switch_ms']['max']} ms; while merging "
            f"{live['merging']['max_ms']:.0f} ms",
            raw=live,
        )
    )
    return rows


def _spread(name: str, pattern: dict[str, Any]) -> str:
    """Of writes the first run makes the layer's clusters, the others find them: not one figure."""
    if "write" not in name or "after" in name:
        return ""
    raw, *chains = pattern["seconds"].values()
    first = [raw[0] / times[0] for times in chains]
    best = [min(raw) / min(times) for times in chains]
    return (
        f". The first of the five runs, which allocates: {', '.join(f'{x:.2f}' for x in first)}; "
        f"the fastest: {', '.join(f'{x:.2f}' for x in best)}"
    )


SCRIPTS = {"edge": _edge, "gateway": _gateway, "api": _api, "disk_chain": _disk_chain}


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
