"""The start script: order of the steps, quoting, refusals."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from atoll.engine.launch import render


def script(argv: list[str], *, uid: int = 700_003, file_bytes: int | None = None) -> str:
    return render(
        argv,
        entrance=Path("/run/atoll/jail/namespace"),
        procs=(
            Path("/cg/memory/atoll/vm-1/cgroup.procs"),
            Path("/cg/pids/atoll/vm-1/cgroup.procs"),
        ),
        uid=uid,
        output=Path("/proc/7/fd/9"),
        file_bytes=file_bytes,
    )


def test_the_whole_script() -> None:
    assert script(["qemu", "-name", "it's"], file_bytes=1025) == (
        "echo 0 > /cg/memory/atoll/vm-1/cgroup.procs\n"
        "echo 0 > /cg/pids/atoll/vm-1/cgroup.procs\n"
        "{\n"
        "  exec </dev/null 1<>/proc/7/fd/9 2>&1\n"
        "  umask 077\n"
        "  ulimit -c 0\n"
        "  ulimit -n 1024\n"
        "  trap '' XFSZ\n"
        "  ulimit -f 3\n"
        "  exec nsenter --mount=/run/atoll/jail/namespace -- unshare --net --ipc --uts --"
        " setpriv --reuid=700003 --regid=700003 --clear-groups --no-new-privs"
        " --inh-caps=-all --ambient-caps=-all --bounding-set=-all -- qemu -name 'it'\"'\"'s'\n"
        "} &\n"
        "echo $!\n"
    )


def test_no_argument_reaches_the_shell() -> None:
    hostile = ["qemu", "$(reboot)", "`id`", "a;b", "x\ny", "&", "'", '"', "*"]
    line = script(hostile).split("  exec nsenter", 1)[1].rsplit("\n} &", 1)[0]
    assert shlex.split("nsenter" + line)[-len(hostile) :] == hostile


@pytest.mark.parametrize("uid", [0, -1])
def test_never_as_root(uid: int) -> None:
    with pytest.raises(ValueError, match="unprivileged"):
        script(["qemu"], uid=uid)
