"""No verb tells a caller that is limited to some VMs anything of the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.base.aio import deadline
from atoll.base.errors import AtollError
from atoll.commands.registry import Command
from atoll.commands.verbs import REGISTRY
from atoll.domain.account import Caller
from fakes.engine import FakeEngine
from framework.cloud import Control, control

CI = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHmJGHFXyGmpRGkQ4Lf3vUQnZ1a3kPv1rm0t8xrJmSDD ci"
OURS = "web"
OTHERS = ("hidden-db", "hidden-two", "hush")  # running, in the trash, a comment
ENDLESS = ("--follow", "--watch")


@pytest.fixture(name="cloud")
async def _cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine, loops=True) as made:
        for line in (
            "new --name web --tag ci",
            "new --name hidden-db --comment hush --tag hush",
            "new --name hidden-two",
            "rm hidden-two",
        ):
            await made.run(line)
        yield made


@pytest.fixture(name="limited", params=["--tag ci", "--vm web"])
async def _limited(cloud: Control, request: pytest.FixtureRequest) -> Caller:
    await cloud.run(f"ssh-key add {request.param} '{CI}'")
    caller = await cloud.cloud.caller_for_key(CI, source="192.0.2.9")
    assert caller is not None
    return caller


def lines(command: Command) -> set[str]:
    """What one could try: the verb alone, its examples, and these about others' VMs."""
    examples = {line for line in command.examples if " < " not in line}
    aimed = {
        line.replace(f" {OURS}", f" {other}")
        for line in examples
        for other in ("hidden-db", "'hid*'")
    }
    found = {command.name, f"{command.name} hidden-db", *examples, *aimed}
    found |= {f"{line} --dry-run" for line in found if command.mutates}
    return {line for line in found if not any(word in line for word in ENDLESS)}


async def said(cloud: Control, line: str, caller: Caller) -> str:
    """Everything a line tells, but for the line's own words."""
    try:
        async with deadline(20, line):
            reply = await cloud.run(line, caller)
    except AtollError as error:
        text = str(error)
    else:
        text = f"{reply.text}\n{reply.data}"
    for word in OTHERS:
        if word in line:  # "not found", or a name that is taken: names are one for all
            text = text.replace(word, "")
    return text


async def test_others_are_not_seen(cloud: Control, limited: Caller) -> None:
    for command in REGISTRY:
        if command.name in ("help", "doc", "exit"):
            continue
        for line in sorted(lines(command)):
            text = await said(cloud, line, limited)
            assert not [word for word in OTHERS if word in text], (line, text)


async def test_others_are_not_touched(cloud: Control, limited: Caller) -> None:
    before = [vm for vm in (await cloud.data("ls -l"))["vms"] if vm["vm_name"] == "hidden-db"]
    for command in REGISTRY:
        for line in sorted(lines(command)):
            await said(cloud, line, limited)
    after = [vm for vm in (await cloud.data("ls -l"))["vms"] if vm["vm_name"] == "hidden-db"]
    assert after == before
    assert len(before) == 1
    assert (await cloud.data("undo"))["restored"][0]["former_name"] == "hidden-two"
