"""What a measurement is, where it was taken, and how it is shown.

A `Row` is one goal of the table: a ratio of two things measured in the same run on the same machine,
so it means something on another one. `write` keeps everything as JSON and renders the page.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
ORDER = (
    "vms",
    "clone",
    "edge",
    "sharing",
    "gateway",
    "listing",
    "api",
    "terminal",
    "disk_chain",
    "snapshots",
    "agent_tax",
)  # of the page


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One goal. `met` is None for what is reported without a goal."""

    what: str
    goal: str
    measured: str
    met: bool | None
    runs: str
    remarks: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)  # every number behind it, for the JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The rows of one subject, and the machine while they were taken."""

    rows: Sequence[Row]
    at: str
    seconds: float
    load_before: float
    load_after: float
    failed: str = ""  # why there are no rows


def host_facts() -> dict[str, str | int]:
    """What the numbers depend on."""
    cpu = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.processor(),
        "cpus": os.cpu_count() or 1,
        "memory_mib": int(memory) >> 10,
        "qemu": _first_line("qemu-system-x86_64", "--version"),
        "file_system": _first_line("stat", "-f", "-c", "%T", "/var/tmp"),
        "python": platform.python_version(),
        "commit": _first_line("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
    }


def write(found: Mapping[str, Section], facts: Mapping[str, str | int]) -> Path:
    """Today's JSON and the page. Subjects not measured now stay as they were measured today."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{dt.datetime.now(dt.UTC):%Y-%m-%d}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    sections = before.get("sections", {}) | {name: asdict(s) for name, s in found.items()}
    whole = {"host": {**before.get("host", {}), **facts}, "sections": sections}
    path.write_text(json.dumps(whole, indent=1) + "\n")
    PAGE.write_text(page(whole))
    return path


def page(whole: dict[str, Any]) -> str:
    """`docs/benchmarks.md`."""
    host, sections = whole["host"], whole["sections"]
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; do not edit. Each number is a ratio of two things measured in the",
        "same run, because seconds of one machine say little about another. Every single measurement",
        "is in `bench/results`.",
        "",
        "Host: " + ", ".join(f"{name} {value}" for name, value in host.items()) + ".",
        "",
        "| what | goal | measured | goal met | runs | remarks |",
        "|---|---|---|---|---|---|",
    ]
    named = {None: "–", True: "yes", False: "**no**"}
    known = [name for name in ORDER if name in sections]
    for name in known:
        for row in sections[name]["rows"]:
            cells = (row["what"], row["goal"], row["measured"], named[row["met"]], row["runs"],
                     row["remarks"])  # fmt: skip
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "When, and how busy the machine was (load average of one minute):", ""]
    for name in known:
        s = sections[name]
        failed = f" Not measured: {s['failed']}" if s["failed"] else ""
        lines.append(
            f"- {name}: {s['at']}, {s['seconds']:.0f} s, load {s['load_before']:.1f} before, "
            f"{s['load_after']:.1f} after.{failed}"
        )
    return "\n".join(lines) + "\n"


def _first_line(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError:
        return "none"
    return (done.stdout.splitlines() or ["?"])[0]
