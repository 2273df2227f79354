"""What becomes of a QEMU that an earlier engine left: every kind of record, every run state."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.engine.records import Intent, Record
from atoll.engine.recovery import Verdict, judge
from atoll.rpc.messages import GIB, Spec, VmState
from framework.lone_vm import VM, lone_vm

KEEP, GO_ON, HALTED, END = Verdict.KEEP, Verdict.GO_ON, Verdict.HALTED, Verdict.END
RUNNING, PAUSED, STOPPED = VmState.RUNNING, VmState.PAUSED, VmState.STOPPED


def record(state: VmState, doing: str = "") -> Record:
    return Record(
        vm="vm-000000000000",
        owner="acct-a",
        spec=Spec(image="debian", cpus=1, memory_bytes=GIB, disk_bytes=GIB),
        state=state,
        hostname="web",
        created_at=1.0,
        login_user="atoll",
        intent=Intent(op="op-000000000000", kind=doing) if doing else None,
    )


@pytest.mark.parametrize(
    ("state", "doing", "status", "is_saved", "verdict"),
    [
        (RUNNING, "", "running", False, KEEP),
        (RUNNING, "identify", "running", False, KEEP),
        (RUNNING, "", "io-error", False, HALTED),
        # A clone of it or its pause was cut short.
        (RUNNING, "", "paused", False, GO_ON),
        (RUNNING, "pause", "paused", False, GO_ON),
        (RUNNING, "pause", "paused", True, GO_ON),
        # Its pause was complete but for the end of the process.
        (PAUSED, "pause", "paused", True, END),
        # Its resume was cut short: before, while and after its guest took over from the saved memory.
        (PAUSED, "resume", "inmigrate", True, END),
        (PAUSED, "resume", "paused", True, END),
        (PAUSED, "resume", "paused", False, GO_ON),
        (PAUSED, "resume", "running", False, KEEP),
        # A boot was.
        (STOPPED, "resume", "prelaunch", False, END),
        (STOPPED, "restart", "prelaunch", False, END),
        (STOPPED, "restart", "paused", False, END),
        (STOPPED, "restart", "running", False, KEEP),
        # A shutdown was: it goes on, and is asked again.
        (RUNNING, "stop", "running", False, KEEP),
        # A snapshot was, or a rollback: before its VM was ended, and while it booted.
        (RUNNING, "snapshot", "running", False, KEEP),
        (RUNNING, "rollback", "running", False, KEEP),
        (STOPPED, "rollback", "prelaunch", False, END),
        (STOPPED, "rollback", "running", False, KEEP),
        # What only a broken or a hostile QEMU says.
        (RUNNING, "", "internal-error", False, END),
        (RUNNING, "", "shutdown", False, END),
        (RUNNING, "", "unknown", False, END),
        (RUNNING, "", "", False, END),
    ],
)
def test_a_process_that_was_left(
    state: VmState, doing: str, status: str, is_saved: bool, verdict: Verdict
) -> None:
    assert judge(record(state, doing), status, is_saved=is_saved) is verdict


@pytest.mark.parametrize("status", ["running", "paused", "io-error"])
@pytest.mark.parametrize("state", [PAUSED, STOPPED])
def test_a_copy_that_is_not_itself_yet_is_not_let_out(state: VmState, status: str) -> None:
    for unknown in ({"newborn": True}, {"forked": True}):
        left = record(state, "resume").model_copy(update=unknown)
        assert judge(left, status, is_saved=False) is END


@pytest.mark.parametrize(
    "answers",
    [
        {"query-status": []},
        {"query-status": {"status": "running"}, "query-named-block-nodes": 7},
        {"query-status": {"status": "running"}, "query-named-block-nodes": ["node"]},
        {"query-status": {"status": "running"}, "query-block": [{"inserted": []}]},
    ],
)
async def test_a_qemu_that_answers_anything_does_not_keep_the_engine_from_starting(
    tmp_path: Path, answers: dict[str, object]
) -> None:
    async with lone_vm(tmp_path) as world:
        world.monitor.answers.update(answers)
        await world.recovery._guarded(world.service.record(VM))
        assert (world.state, world.service.machines) == (STOPPED, {})
        assert not world.machine.process.alive()
