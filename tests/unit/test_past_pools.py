"""Pools that earlier releases left, opened by today's engine: no VM, disk or memory of theirs is lost.

No field of these can be edited: what is on users' disks cannot be either.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from atoll.engine.qemu.memory import PAGE
from atoll.engine.records import Record, Records
from atoll.engine.saved import SavedMemory
from atoll.rpc.messages import VmState
from framework.past import (
    CHILD,
    COPY,
    HALF,
    PARENT,
    PAUSED,
    POOLS,
    STOPPED,
    TEMPLATE,
    unpack,
)
from framework.templates import World, world

VMS = {PARENT, CHILD, PAUSED, STOPPED, COPY}


@pytest.fixture(params=POOLS)
async def node(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")  # the pools are from one
    async with world(tmp_path, kept=0, pool=partial(unpack, request.param)) as made:
        yield made


def record(node: World, vm: str) -> Record:
    found = node.records.get(vm)
    assert found is not None, f"{vm} is lost"
    return found


def digest(node: World) -> str:
    return record(node, PAUSED).image


def test_there_is_a_pool_of_the_first_release_and_of_later_ones() -> None:
    assert {"c99cd20", "f068a44", "c14c8b1"} <= set(POOLS)


async def test_all_that_is_in_it_is_found(node: World) -> None:
    assert {known.vm for known in node.records.all()} == VMS | {HALF}
    assert node.records.problems == ()
    assert not node.disks.is_damaged
    assert [meta.id for meta in node.templates.all()] == [TEMPLATE]
    assert node.disks.template_pins() == {TEMPLATE}
    assert digest(node) in node.images.digests()
    assert node.images.by_digest(digest(node)).kernel.exists()
    assert {vm: node.disks.depth(vm) > 0 for vm in VMS} == dict.fromkeys(VMS, True)


async def test_what_a_record_says_is_understood(node: World) -> None:
    parent, child = record(node, PARENT), record(node, CHILD)
    assert (parent.state, parent.slot, parent.base) == (VmState.RUNNING, 1, TEMPLATE)
    assert (parent.hostname, parent.login_user, parent.owner) == ("web", "atoll", "acct-ann")
    assert parent.done["op-000000000001"].vm.vm == PARENT
    assert child.intent is not None
    assert (child.intent.kind, child.intent.fresh) == ("pause", False)
    assert record(node, STOPPED).problem == "qemu ended with signal 9"
    assert record(node, HALF).state is VmState.STARTING


async def test_memory_of_a_paused_vm_still_fits_its_machine(node: World) -> None:
    """The shape's key is of today's command line: what changes it costs all saved memory there is."""
    paused = record(node, PAUSED)
    saved = SavedMemory(node.records.folder(PAUSED)).read(node.boot.key(paused))
    assert saved.state == b"device state, p"
    assert [bytes(saved.pages._view[run.offset : run.offset + 1]) for run in saved.pages.runs] == [
        b"p",
        b"p",
    ]
    saved.pages.close()
    assert paused.base == TEMPLATE
    loaded = await node.templates.load(TEMPLATE)
    assert loaded.meta.key == node.boot.key(paused)
    assert os.pread(loaded.ram, 1, 5 * PAGE) == b"t"
    assert loaded.saved().state == b"device state, t"


async def test_every_disk_opens_for_a_start(node: World) -> None:
    for vm in sorted(VMS):
        chain = await node.disks.drive(vm)
        with contextlib.closing(chain):
            assert len({number for _, number in chain.fds}) == node.disks.depth(vm)


async def test_a_start_of_the_engine_and_a_pruning_keep_all_that_is_needed(node: World) -> None:
    for known in node.records.all():
        await node.recovery._guarded(known)
    await node.disks.reconcile({known.vm for known in node.records.all()})
    assert {known.vm: known.state for known in node.records.all()} == {
        vm: VmState.PAUSED if vm == PAUSED else VmState.STOPPED for vm in VMS
    }
    await node.pruning.run(None)
    assert [meta.id for meta in node.templates.all()] == [TEMPLATE]
    assert digest(node) in node.images.digests()
    prologues = {path.name for path in (node.config.pool / "prologues").iterdir()}
    assert prologues == {node.boot.key(record(node, PAUSED))}
    assert all(node.disks.depth(vm) > 0 for vm in VMS)


async def test_what_it_is_rewritten_as_is_read_again(node: World) -> None:
    for known in node.records.all():
        node.records.put(known)
    again = Records(node.config.pool / "vms")
    again.load()
    assert list(again.all()) == list(node.records.all())
