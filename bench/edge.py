"""Authenticated HTTPS through the edge beside plain HAProxy, Caddy and nginx, to the same upstream.

    python bench/edge.py [seconds] > edge.json

Needs haproxy, nginx, caddy, wrk, h2load. Caddy asks an authority that says yes by `forward_auth`,
nginx by `auth_request`, as an identity-aware proxy does. All have one thread and are
measured in turns, and the medians compared: requests per second; the CPU time of the proxy for a
request, which does not depend on what else the machine's cores do; latency at a rate that none finds
hard, beside the upstream asked directly; memory for idle connections.
"""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from bench.proxies import HOST, UPSTREAM, UPSTREAM_PORT, Proxy, cookie, running  # noqa: E402

ROUNDS, CONNECTIONS, GOAL = 5, 32, 0.6
CLIENTS, RATE_EACH = 8, 50  # 400 requests a second in all: a tenth of what the slowest does
WARM_UP_S = 1
IDLE = 2_000  # each measured, then told per 10,000: the client has a limit of descriptors, too


def main(seconds: int) -> None:
    """Measure and print JSON."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as proxies:
        flood: dict[str, list[tuple[float, float]]] = {name: [] for name in proxies}
        waits: dict[str, list[float]] = {name: [] for name in ("direct", *proxies)}
        for number in range(ROUNDS):
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
            for name, proxy in proxies.items():
                flood[name].append(_flood(proxy, seconds))
            direct = f"http://{UPSTREAM}:{UPSTREAM_PORT}/"
            for name, url in {"direct": direct, **{n: p.url for n, p in proxies.items()}}.items():
                waits[name] += _waits(url, seconds, Path(folder) / "waits")
        idle = {name: _idle_kib(proxy) for name, proxy in proxies.items()}
    print(json.dumps(_report(flood, waits, idle, seconds), indent=1))


def _report(
    flood: dict[str, list[tuple[float, float]]],
    waits: dict[str, list[float]],
    idle: dict[str, float],
    seconds: int,
) -> dict[str, Any]:
    rate = {name: statistics.median(one[0] for one in all_) for name, all_ in flood.items()}
    cpu = {name: statistics.median(one[1] for one in all_) for name, all_ in flood.items()}
    version = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True).stdout
    return {
        "what": "HTTPS, authenticated, beside plain HAProxy, Caddy forward_auth, nginx auth_request",
        "goal": GOAL,
        "ratio_requests": {name: round(rate[name] / rate["plain"], 3) for name in rate},
        "ratio_cpu": {name: round(cpu["plain"] / cpu[name], 3) for name in cpu},
        "requests_per_second": {name: round(rate[name]) for name in rate},
        "cpu_us_per_request": {name: round(cpu[name], 2) for name in cpu},
        "latency_us": {
            name: {
                "p50": round(_percentile(all_, 50)),
                "p99": round(_percentile(all_, 99)),
                "count": len(all_),
            }
            for name, all_ in waits.items()
        },
        "idle_mib_per_10000": {name: round(kib * 10_000 / 1024, 1) for name, kib in idle.items()},
        "idle_measured": IDLE,
        "rounds": ROUNDS,
        "seconds_each": seconds,
        "connections": CONNECTIONS,
        "latency_at_per_second": CLIENTS * RATE_EACH,
        "host": {
            "cpus": os.cpu_count(),
            "machine": platform.machine(),
            "kernel": platform.release(),
            "haproxy": version.split()[2],
            "caddy": _said("caddy", "version").split()[0],
            "nginx": _said("nginx", "-v").strip().rpartition("/")[2],
        },
    }  # fmt: skip


def _flood(proxy: Proxy, seconds: int) -> tuple[float, float]:
    """Requests per second, and microseconds of CPU per request."""
    before = proxy.cpu_s()
    out = _said(
        "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-H", f"Cookie: {cookie()}", proxy.url
    )
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"{proxy.name} refused requests:\n{out}")
    count = re.search(r"(\d+) requests in", out)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert count is not None
    assert rate is not None
    return float(rate[1]), (proxy.cpu_s() - before) / int(count[1]) * 1e6


def _waits(url: str, seconds: int, log: Path) -> list[float]:
    """How long each answer took, in microseconds, at a fixed moderate rate."""
    log.unlink(missing_ok=True)
    out = _said(
        "h2load", "--h1", "-t1", f"-c{CLIENTS}", f"--rps={RATE_EACH}", f"-D{seconds}",
        f"--warm-up-time={WARM_UP_S}", f"--log-file={log}", "-H", f"Cookie: {cookie()}", url,
    )  # fmt: skip
    rows = [line.split() for line in log.read_text().splitlines()]
    if not rows or any(status != "200" for _, status, _ in rows):
        raise SystemExit(f"{url} refused requests:\n{out}")
    return [float(microseconds) for _, _, microseconds in rows]


def _idle_kib(proxy: Proxy) -> float:
    """Memory that one more connection takes which has asked once and is silent now."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    request = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie()}\r\n\r\n".encode()
    before, held = proxy.memory_kib(), []
    try:
        for _ in range(IDLE):
            plain = socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
            held.append(context.wrap_socket(plain, server_hostname=HOST))
            held[-1].sendall(request)
            if not held[-1].recv(4096).startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"{proxy.name} refused connection {len(held)}")
        return (proxy.memory_kib() - before) / IDLE
    finally:
        for connection in held:
            connection.close()


def _said(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout + done.stderr


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
