"""Ports and sizes out of /proc texts."""

from __future__ import annotations

from pathlib import Path

from atoll.guest import facts

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"


def row(address: str, state: str = "0A") -> str:
    return f"   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 0 0 0\n"


def test_only_ports_others_can_reach_are_listed() -> None:
    tcp = HEAD + row("00000000:1F40") + row("0100007F:0016") + row("0F02000A:0050", "01")
    tcp6 = (
        HEAD
        + row("00000000000000000000000000000000:0016")
        + row("00000000000000000000000001000000:0277")
        + row("0000000000000000FFFF00000100007F:0278")
        + row("0000000000000000FFFF00000F02000A:1F90")
    )
    assert facts.ports(tcp, tcp6) == [22, 8000, 8080]


def test_stat_reads_a_proc_tree(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "net").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 400 kB\nSwapTotal: 0 kB\n")
    (proc / "uptime").write_text("12.50 3.00\n")
    (proc / "loadavg").write_text("0.10 0.20 0.30 1/100 99\n")
    (proc / "net/tcp").write_text(HEAD + row("00000000:1F40"))
    stat = facts.stat(str(tmp_path))
    assert stat["memory_total_bytes"] == 1_024_000
    assert stat["memory_available_bytes"] == 409_600
    assert stat["uptime_seconds"] == 12.5
    assert stat["load"] == [0.1, 0.2, 0.3]
    assert stat["ports"] == [8000]
    assert isinstance(stat["fs_total_bytes"], int)
    assert stat["fs_total_bytes"] > 0
