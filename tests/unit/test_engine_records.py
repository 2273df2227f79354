"""Records: whole on disk, kept when unreadable, outcomes remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.engine.records import KEPT_OUTCOMES, Intent, Record, Records
from atoll.rpc.messages import GIB, MIB, Outcome, Spec, Vm, VmState

SPEC = Spec(image="debian", cpus=1, memory_bytes=512 * MIB, disk_bytes=10 * GIB)
VM = "vm-000000000001"
OTHER = "vm-000000000002"


def record(vm: str = VM, **more: object) -> Record:
    facts = {
        "vm": vm,
        "owner": "ann",
        "spec": SPEC,
        "state": VmState.RUNNING,
        "hostname": "web",
        "created_at": 1.0,
        "login_user": "atoll",
    }
    return Record.model_validate(facts | more)


def outcome(vm: str = VM) -> Outcome:
    return Outcome(vm=Vm(vm=vm, owner="ann", spec=SPEC, state=VmState.RUNNING))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "vms"


def opened(root: Path) -> Records:
    records = Records(root)
    records.load()
    return records


def test_what_is_put_is_there_after_a_restart(root: Path) -> None:
    intent = Intent(op="op-000000000001", kind="pause")
    kept = opened(root).put(record(slot=3, intent=intent, done={"op-000000000000": outcome()}))
    again = opened(root)
    assert again.get(VM) == kept
    assert again.slots() == {3}
    assert again.unreadable == set()
    assert again.problems == ()


def test_what_is_dropped_is_gone_with_all_beside_it(root: Path) -> None:
    records = opened(root)
    records.put(record())
    (records.folder(VM) / "saved").mkdir()
    records.drop(VM)
    records.drop(VM)
    assert records.get(VM) is None
    assert list(root.iterdir()) == []


def test_a_folder_made_before_its_first_record_is_removed(root: Path) -> None:
    (root / VM).mkdir(parents=True)
    assert list(opened(root).all()) == []
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"vm": "vm-000000000001"}', b"\xff\xfe", b"[" * 5000]
)
def test_an_unreadable_record_is_named_and_nothing_of_it_is_deleted(
    root: Path, content: bytes
) -> None:
    opened(root).put(record(OTHER))
    saved = root / VM / "saved"
    saved.mkdir(parents=True)
    (root / VM / "vm.json").write_bytes(content)
    records = opened(root)
    assert [known.vm for known in records.all()] == [OTHER]
    assert records.unreadable == {VM}
    assert saved.is_dir()
    (problem,) = records.problems
    assert str(root / VM / "vm.json") in problem


def test_a_record_of_a_newer_version_is_not_taken_for_a_deleted_vm(root: Path) -> None:
    opened(root).put(record())
    path = root / VM / "vm.json"
    path.write_text(path.read_text().replace('"hostname"', '"later": 1, "hostname"', 1))
    assert opened(root).unreadable == {VM}


def test_a_record_in_another_vms_folder_is_nobodys(root: Path) -> None:
    opened(root).put(record())
    (root / VM).rename(root / OTHER)
    records = opened(root)
    assert list(records.all()) == []
    assert records.unreadable == {VM, OTHER}


def test_a_stray_file_is_left_alone(root: Path) -> None:
    opened(root).put(record())
    (root / "lost+found").mkdir(mode=0)
    (root / "README").write_text("hands off")
    assert [known.vm for known in opened(root).all()] == [VM]
    assert (root / "README").exists()


def test_a_write_that_was_cut_short_leaves_the_old_record(root: Path) -> None:
    opened(root).put(record(slot=1))
    (root / VM / ".vm.json.99.new").write_text('{"vm": ')
    known = opened(root).get(VM)
    assert known is not None
    assert known.slot == 1


def test_the_newest_outcomes_are_kept_and_the_intent_is_over() -> None:
    now = record(intent=Intent(op="op-000000000009", kind="stop"))
    ops = [f"op-{n:012}" for n in range(KEPT_OUTCOMES + 3)]
    for op in ops:
        now = now.with_outcome(op, outcome())
    assert list(now.done) == ops[-KEPT_OUTCOMES:]
    assert now.intent is None
