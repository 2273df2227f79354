"""Lines that are kept for the next session, and those that must not be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.domain.account import Scope
from atoll.domain.history import LINE_CHARACTERS, LINES, may_be_kept
from fakes.engine import FakeEngine
from framework.cloud import Control, control


@pytest.mark.parametrize(
    "line",
    [
        "ls -l 'web*'",
        "new --name web --memory 2G --tag prod --comment 'the shop, since May'",
        "cp web web-next --copy-tags=false",
        "ssh-key remove laptop",
        "ssh-key generate-api-key --label ci --cmds ls,new --exp 30d",
        "ssh a-rather-long-name-of-a-vm-with-digits-2027 cat /var/log/apt/history.log",
        "comment web 日本語",
    ],
)
def test_kept(line: str) -> None:
    assert may_be_kept(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        " ls",
        "x" * (LINE_CHARACTERS + 1),
        "ssh-key add 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5RIoRwJ x'",
        "ssh web curl -H 'Authorization: Bearer x' localhost",
        "ssh web mysql -phunter2 shop",
        "ssh web 'export DB_PASS=x'",
        "new --env API_KEY=abc",
        "ssh web git clone https://ann:hunter2@example.com/x",
        "ssh web vault login --token s.x",
        "ssh web echo 5f4dcc3b5aa765d61d8327deb882cf99",
        "ssh web 'cat > key' -----BEGIN OPENSSH PRIVATE KEY-----",
        "ls \udcff",
        "ls a\0b",
    ],
)
def test_not_kept(line: str) -> None:
    assert not may_be_kept(line)


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine) as made:
        yield made


async def test_lines_belong_to_the_account_and_not_to_limited_keys(cloud: Control) -> None:
    history = cloud.cloud.history
    await history.add(cloud.ann, "ls")
    await history.add(cloud.ann, "ssh web echo 5f4dcc3b5aa765d61d8327deb882cf99")
    limited = [
        replace(cloud.ann, scope=Scope(vm="vm-1")),
        replace(cloud.ann, scope=Scope(cmds=frozenset({"ls"}))),
    ]
    for caller in limited:
        await history.add(caller, "whoami")
        assert await history.recent(caller) == ()
    assert await history.recent(cloud.ann) == ("ls",)
    assert await history.recent(cloud.bob) == ()


async def test_history_is_bounded(cloud: Control) -> None:
    history = cloud.cloud.history
    for number in range(LINES + 5):
        await history.add(cloud.ann, f"ls web{number}")
    recent = await history.recent(cloud.ann)
    assert (len(recent), recent[0], recent[-1]) == (LINES, "ls web5", f"ls web{LINES + 4}")
