"""`new --setup-script` and `--env`: from the line to what the engine is asked, and what is said of it."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from atoll.base.errors import AtollError, Exhausted, Invalid, NotFound
from atoll.rpc.messages import Create, Identity, Restart
from atoll.store.schema import events, operations
from fakes.engine import FakeEngine
from framework.cloud import Control, control

SCRIPT = "#!/bin/sh\necho 'a\\nb' \\\n  s3cret\n"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine) as made:
        yield made


def given(cloud: Control) -> Identity:
    """What the newest VM was first told."""
    return [request for request in cloud.engine.asked if isinstance(request, Create)][-1].identity


async def test_a_script_as_text(cloud: Control) -> None:
    reply = await cloud.run(r"new --name web --setup-script='#!/bin/sh\napt-get update'")
    assert given(cloud).setup_script == "#!/bin/sh\napt-get update"
    assert reply.data["setup"] == "running"
    assert reply.text.splitlines()[-1] == (
        "its setup script runs; what it prints: ssh -p 2222 web@localhost journalctl -fu exe-setup"
    )


async def test_a_script_as_the_sdk_sends_it(cloud: Control) -> None:
    await cloud.run("new --setup-script=" + shlex.quote(SCRIPT.replace("\\", "\\\\")))
    assert given(cloud).setup_script == SCRIPT


@pytest.mark.parametrize("where", ["-", "/dev/stdin"])
async def test_a_script_on_stdin_is_taken_as_it_is(cloud: Control, where: str) -> None:
    await cloud.run(f"new --setup-script {where}", stdin=SCRIPT.encode())
    assert given(cloud).setup_script == SCRIPT


async def test_without_one_nothing_is_said_of_it(cloud: Control) -> None:
    for line in ("new", "new --setup-script ''", "new --env A=1"):
        reply = await cloud.run(line)
        assert given(cloud).setup_script is None
        assert "setup" not in reply.data
        assert len(reply.text.splitlines()) == 3


async def test_variables(cloud: Control) -> None:
    await cloud.run("new --name web --env A=1 --env 'B=x y=z'")
    assert given(cloud).env == {"A": "1", "B": "x y=z"}
    await cloud.run("restart web")
    asked = [request for request in cloud.engine.asked if isinstance(request, Restart)]
    assert (asked[0].identity.env, asked[0].identity.setup_script) == ({}, None)


@pytest.mark.parametrize(
    ("line", "stdin"),
    [
        ("new --setup-script -", b""),
        ("new --setup-script -", b"\xff"),
        ("new --setup-script -", b"a\0b"),
        ("new --setup-script -", b"x" * 10_241),
        ("new --setup-script ' '", b""),
        ("new --setup-script a --setup-script b", b""),
        ("new --env A", b""),
        ("new --env A=1 --env A=2", b""),
    ],
)
async def test_what_cannot_be_makes_no_vm(cloud: Control, line: str, stdin: bytes) -> None:
    with pytest.raises(Invalid):
        await cloud.run(line, stdin=stdin)
    assert cloud.engine.vms == {}


async def test_neither_journal_nor_events_keep_a_secret(cloud: Control) -> None:
    line = "new --setup-script 'echo s3cret' --env KEY=s3cret"
    await cloud.run(line)
    cloud.engine.refuse[Create].append(Exhausted("the pool is full"))
    with pytest.raises(AtollError, match="the pool is full"):
        await cloud.run(line)
    async with cloud.store.read() as tx:
        rows = [*await tx.execute(select(operations)), *await tx.execute(select(events))]
    assert len(rows) == 3
    assert "s3cret" not in repr(rows)


# --- defaults


async def test_a_default_script_is_for_new_vms_that_have_none_of_their_own(cloud: Control) -> None:
    await cloud.run(r"defaults write dev.exe new.setup-script '#!/bin/sh\necho mine'")
    reply = await cloud.run("new --no-email")
    assert given(cloud).setup_script == "#!/bin/sh\necho mine"
    assert reply.data["setup"] == "running"
    await cloud.run("new --setup-script 'echo other'")
    assert given(cloud).setup_script == "echo other"
    for line, caller in (("new --setup-script ''", cloud.ann), ("new --setup-script=", cloud.ann),
                         ("new", cloud.bob)):  # fmt: skip
        assert "setup" not in (await cloud.run(line, caller)).data
        assert given(cloud).setup_script is None
    would = (await cloud.data("new --dry-run"))["would"]
    assert would[0]["setup_script"] is True


async def test_defaults_are_read_written_and_deleted(cloud: Control) -> None:
    assert (await cloud.run("defaults read atoll")).text == "No defaults are set"
    with pytest.raises(NotFound, match=r"the default new\.setup-script is not set"):
        await cloud.run("defaults read atoll new.setup-script")
    with pytest.raises(NotFound, match=r"the default new\.setup-script is not set"):
        await cloud.run("defaults delete atoll new.setup-script")
    written = await cloud.run("defaults write atoll new.setup-script -", stdin=SCRIPT.encode())
    assert written.data == {"domain": "atoll", "key": "new.setup-script", "status": "written"}
    read = await cloud.run("defaults read dev.exe new.setup-script")
    assert (read.text, read.data["value"]) == (SCRIPT, SCRIPT)
    assert await cloud.data("defaults read atoll") == {
        "domain": "atoll",
        "values": {"new.setup-script": SCRIPT},
    }
    assert (await cloud.run("defaults read atoll", cloud.bob)).data["values"] == {}
    assert (await cloud.data("defaults delete atoll new.setup-script"))["status"] == "deleted"
    assert (await cloud.data("defaults read atoll"))["values"] == {}


async def test_defaults_that_are_none(cloud: Control) -> None:
    for line, why in (
        ("defaults read nope", "Domains: atoll, dev.exe"),
        ("defaults read atoll nope", "Defaults: new.setup-script"),
        ("defaults write atoll nope x", "Defaults: new.setup-script"),
    ):
        with pytest.raises(NotFound, match=why):
            await cloud.run(line)
