"""The counter of changes: who waits for what has changed to be in force at the edge."""

from __future__ import annotations

import asyncio

import pytest

from atoll.base.errors import Unavailable
from atoll.services.certificates import proofs
from atoll.services.certificates.proofs import HttpProofs
from atoll.services.changes import Changes


async def test_nobody_waits_for_an_edge_that_has_never_answered() -> None:
    changes = Changes()
    changes.bump()
    async with asyncio.timeout(0.5):
        await changes.in_force(seconds=60)


async def test_what_changed_later_is_not_waited_for() -> None:
    changes = Changes()
    changes.show(0)
    changes.bump()
    waiting = asyncio.ensure_future(changes.in_force(seconds=60))
    await asyncio.sleep(0)
    assert not waiting.done()
    changes.bump()
    changes.show(1)
    async with asyncio.timeout(0.5):
        await waiting


async def test_a_command_is_not_kept_from_its_answer() -> None:
    changes = Changes()
    changes.show(0)
    changes.bump()
    await changes.in_force(seconds=0.01)


async def test_a_proof_is_shown_when_the_edge_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = Changes()
    shown = HttpProofs(changes=changes)
    showing = asyncio.ensure_future(shown.show("shop.test", "/x", "y"))
    await asyncio.sleep(0)
    assert shown.answers == {"shop.test/x": "y"}
    assert not showing.done()
    changes.show(changes.version)
    await showing
    monkeypatch.setattr(proofs, "SHOWN_S", 0.01)
    with pytest.raises(Unavailable, match="the edge being told"):
        await shown.show("shop.test", "/z", "y")
