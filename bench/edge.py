"""Authenticated HTTPS through the edge against plain HAProxy to the same upstream, one thread each.

    .venv/bin/python bench/edge.py [seconds] > edge.json

Needs haproxy and wrk. The upstream is a second HAProxy that answers by itself. The two are measured
in turns and the medians compared: by requests per second, and by the CPU time HAProxy spends on a
request, which does not depend on what else the machine's cores do. Goal: 0.55 or more.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from ipaddress import IPv4Network
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import OctKey

from atoll.config import Config
from atoll.domain.account import Published
from atoll.domain.sharing import EVERY_PORT, Opening
from atoll.domain.web import TOKEN_COOKIE
from atoll.doors.edge import decide, haproxy
from atoll.doors.edge.certs import Authority
from atoll.doors.edge.files import Files

ROUNDS, CONNECTIONS, GOAL = 5, 32, 0.55
KID, KEY = "5e5e5e5e", "5e" * 32
HOST = "web.atoll.localhost"
EDGE_PORT, PLAIN_PORT, UPSTREAM_PORT, UPSTREAM = 18443, 18444, 18000, "127.0.1.1"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def main(seconds: int) -> None:
    """Measure and print JSON."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        processes = [
            _start(root / "upstream.cfg", _upstream()),
            _start(root / "edge.cfg", _edge(root)),
            _start(root / "plain.cfg", _plain(root)),
        ]
        try:
            _wait_for_ports()
            edge, plain = processes[1].pid, processes[2].pid
            rounds = [
                (_measure(edge, EDGE_PORT, seconds), _measure(plain, PLAIN_PORT, seconds))
                for _ in range(ROUNDS)
            ]
        finally:
            for process in processes:
                process.terminate()
                process.wait()
    print(json.dumps(_report(rounds, seconds), indent=1))


def _report(
    rounds: list[tuple[tuple[float, float], tuple[float, float]]], seconds: int
) -> dict[str, object]:
    rate = [statistics.median(side[i][0] for side in rounds) for i in (0, 1)]
    cpu = [statistics.median(side[i][1] for side in rounds) for i in (0, 1)]
    version = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True).stdout
    return {
        "what": "HTTPS, authenticated, against plain HAProxy",
        "goal": GOAL,
        "ratio_requests": round(rate[0] / rate[1], 3),
        "ratio_cpu": round(cpu[1] / cpu[0], 3),
        "edge_requests_per_second": round(rate[0]),
        "plain_requests_per_second": round(rate[1]),
        "edge_cpu_us_per_request": round(cpu[0], 2),
        "plain_cpu_us_per_request": round(cpu[1], 2),
        "rounds": len(rounds),
        "seconds_each": seconds,
        "connections": CONNECTIONS,
        "host": {
            "cpus": os.cpu_count(),
            "machine": platform.machine(),
            "kernel": platform.release(),
            "haproxy": version.split()[2],
        },
    }


def _upstream() -> str:
    return f"""\
global
    nbthread 1
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
frontend upstream
    bind {UPSTREAM}:{UPSTREAM_PORT}
    http-request return status 200 content-type text/plain string "hello from a VM"
"""


def _plain(root: Path) -> str:
    return f"""\
global
    nbthread 1
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
frontend plain
    bind 127.0.0.1:{PLAIN_PORT} ssl crt {Files(root / "run" / "edge").certificate} alpn h2,http/1.1
    default_backend vm
backend vm
    http-reuse safe
    server vm {UPSTREAM}:{UPSTREAM_PORT}
"""


def _edge(root: Path) -> str:
    """The real rules and their files; only thread count, ports and limits are the bench's."""
    config = Config.model_validate({"paths": {"run": root / "run"}})
    files = Files(config.edge_run)
    for folder in (files.pages, files.maps, files.certificate.parent, files.socket.parent):
        folder.mkdir(parents=True)
    leaf = Authority(root, config.https.domain).leaf(files.certificate, now=dt.datetime.now(dt.UTC))
    files.certificate.write_bytes(leaf or b"")
    names = ["web", *(f"vm-{n}-x" for n in range(500))]
    vms = [
        Published(
            vm_name=name, address=UPSTREAM, port=UPSTREAM_PORT,
            openings=frozenset({Opening(account="acct-000000000001", port=EVERY_PORT)}),
        )
        for name in names
    ]  # fmt: skip
    maps = decide.maps(vms, {}, domain=config.https.domain, block=IPv4Network("127.0.1.0/24"),
                       keys={KID: KEY})  # fmt: skip
    for table, entries in maps.tables().items():
        files.map(table).write_text("".join(f"{k} {v}\n" for k, v in entries.items()))
    rendered = haproxy.render(
        config,
        limits=haproxy.Limits(requests_per_10s=100_000_000),
        binds=haproxy.Binds(secure=f"127.0.0.1:{EDGE_PORT}", plain="127.0.0.1:18445"),
    )
    for name, text in rendered.items():
        (files.root / name).write_text(text)
    return rendered["haproxy.cfg"].replace("global\n", "global\n    nbthread 1\n", 1)


def _start(path: Path, text: str) -> subprocess.Popen[bytes]:
    path.write_text(text)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20_000)), hard))
    return subprocess.Popen(["haproxy", "-db", "-f", str(path)], stderr=subprocess.DEVNULL)


def _wait_for_ports() -> None:
    deadline = time.monotonic() + 10
    while subprocess.run(_curl(EDGE_PORT), capture_output=True, check=False).stdout != b"200":
        if time.monotonic() > deadline:
            raise SystemExit("the edge does not answer 200")
        time.sleep(0.1)


def _curl(port: int) -> list[str]:
    return [
        "curl", "-sko", "/dev/null", "-w", "%{http_code}", "-H", f"Host: {HOST}",
        "-H", f"Cookie: {_cookie()}", f"https://127.0.0.1:{port}/",
    ]  # fmt: skip


def _cookie() -> str:
    claims = {
        "aud": HOST, "sub": "acct-000000000001", "email": "ann@example.com", "sid": "5e" * 16,
        "iat": int(time.time()), "exp": int(time.time()) + 3600,
    }  # fmt: skip
    token = jwt.encode({"alg": "HS256", "kid": KID}, claims, OctKey.import_key(KEY.encode()))
    return f"{TOKEN_COOKIE}={token}; theme=dark"


def _measure(pid: int, port: int, seconds: int) -> tuple[float, float]:
    """Requests per second, and microseconds of CPU per request."""
    before = _cpu_s(pid)
    out = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-H", f"Host: {HOST}",
         "-H", f"Cookie: {_cookie()}", f"https://127.0.0.1:{port}/"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    if "Non-2xx" in out:
        raise SystemExit(f"port {port} refused requests:\n{out}")
    count = re.search(r"(\d+) requests in", out)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert count is not None
    assert rate is not None
    return float(rate[1]), (_cpu_s(pid) - before) / int(count[1]) * 1e6


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
