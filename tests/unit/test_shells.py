"""A shell in a VM begins in time, or its connection is given back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from atoll.base.errors import Unavailable
from atoll.domain.account import Route
from atoll.doors.ssh import shells
from fakes.engine import FakeEngine
from framework.cloud import control
from framework.gateway import ANNS

ROUTE = Route(vm_id="vm-1", vm_name="web", address="", login_user="", host_ca="", caller=ANNS)


class Deaf:
    """A VM whose sshd lets somebody in and opens no channel."""

    def __init__(self) -> None:
        self.is_aborted = False

    async def open_vm(self, route: Route) -> Any:
        return self

    async def create_session(self, *_given: object, **_named: object) -> None:
        await asyncio.Event().wait()

    def abort(self) -> None:
        self.is_aborted = True


async def test_a_vm_that_opens_no_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shells, "OPEN_S", 0.01)
    engine, vm = FakeEngine(tmp_path / "engine.sock"), Deaf()
    async with engine.serving(), control(tmp_path / "control", engine) as made:
        opening = shells.Shells(opener=vm, language=made.language, history=made.cloud.history)
        with pytest.raises(Unavailable, match=r"a shell in web took over 0\.01 s"):
            await opening.in_vm(ROUTE, (80, 24), lambda _data: None)
    assert vm.is_aborted
