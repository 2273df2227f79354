"""`POST /exec` with `ls`, and the page that lists VMs, of 500 VMs; beside `GET /healthz` there.

    python bench/api.py [seconds] > api.json

Needs wrk. The cloud is `bench/api_server.py`, a process of its own. Turn by turn, medians: requests per
second by 4 connections, CPU time of the server's process per request, which does not depend on what else
runs here, and the latency of one connection alone. A page to measure is a path in PAGES and what its
body holds when it is the right one; it is asked for with the cookie of a signed-in browser.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROUNDS, CONNECTIONS, VMS = 5, 4, 500
PAGE_GOAL_KB = 150
PAGES = {"list page": ("/", "row-499x")}
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
SERVER = Path(__file__).with_name("api_server.py")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked again and again."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""

    def once(self) -> bytes:
        """The answer's body; raises HTTPError for any status but one of success."""
        asked = urllib.request.Request(
            self.url, data=self.body.encode() or None, headers=self.headers, method=self.method
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return bytes(answer.read())

    def script(self) -> str:
        """The same for wrk."""
        headers = "".join(f"wrk.headers[{_lua(k)}]={_lua(v)}\n" for k, v in self.headers.items())
        return f"wrk.method={_lua(self.method)}\nwrk.body={_lua(self.body)}\n{headers}"


def main(seconds: int) -> None:
    """Measure and print JSON."""
    with tempfile.TemporaryDirectory() as name, _server(Path(name)) as (process, said):
        base = f"http://127.0.0.1:{said['port']}"
        asked = {"healthz": Request(f"{base}/healthz"), "ls": _ls(base, said["token"])}
        asked |= {
            page: Request(base + path, headers={"Cookie": said["cookie"]})
            for page, (path, _) in PAGES.items()
        }
        bodies = {what: request.once() for what, request in asked.items()}
        assert len(json.loads(bodies["ls"])["vms"]) == VMS
        for page, (_, held) in PAGES.items():
            assert held.encode() in bodies[page], f"{page}: {bodies[page][:200]!r}"
        rounds = [
            {
                what: _measure(process.pid, request, Path(name), seconds)
                for what, request in asked.items()
            }
            for _ in range(ROUNDS)
        ]
    print(json.dumps(_report(rounds, bodies, seconds), indent=1))


def _ls(base: str, token: str) -> Request:
    return Request(
        f"{base}/exec", method="POST", headers={"Authorization": f"Bearer {token}"}, body="ls"
    )


def _report(
    rounds: list[dict[str, dict[str, float]]], bodies: dict[str, bytes], seconds: int
) -> dict[str, Any]:
    return {
        "rounds": len(rounds),
        "seconds_each": seconds,
        "connections": CONNECTIONS,
        "page_goal_kb": PAGE_GOAL_KB,
        "of": {
            what: {
                **{
                    key: round(statistics.median(r[what][key] for r in rounds), 3)
                    for key in rounds[0][what]
                },
                "bytes": len(body),
                "bytes_gzip": len(gzip.compress(body)),
            }
            for what, body in bodies.items()
        },
    }


@contextmanager
def _server(folder: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    process = subprocess.Popen(
        [sys.executable, str(SERVER), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        _wait_for(Request(f"http://127.0.0.1:{said['port']}/healthz"))
        yield process, said
    finally:
        process.communicate(timeout=30)


def _wait_for(request: Request) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            request.once()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _measure(pid: int, request: Request, folder: Path, seconds: int) -> dict[str, float]:
    script = folder / "ask.lua"
    script.write_text(request.script())
    before = _cpu_s(pid)
    rate, count, _ = _wrk(request.url, script, seconds, CONNECTIONS)
    cpu_ms = (_cpu_s(pid) - before) / count * 1000
    _, _, latency_ms = _wrk(request.url, script, 1, 1)
    return {"per_second": rate, "cpu_ms": cpu_ms, "latency_ms": latency_ms}


def _wrk(url: str, script: Path, seconds: int, connections: int) -> tuple[float, int, float]:
    """Requests per second, requests, median latency in milliseconds."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out:
        raise SystemExit(f"{url} refused requests:\n{out}")
    count = re.search(r"(\d+) requests in", out)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    median = re.search(r"50%\s+([\d.]+)(us|ms|s)\b", out)
    assert count is not None
    assert rate is not None
    assert median is not None
    unit_ms = {"us": 0.001, "ms": 1.0, "s": 1000.0}[median[2]]
    return float(rate[1]), int(count[1]), float(median[1]) * unit_ms


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def _lua(text: str) -> str:
    return json.dumps(text)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
