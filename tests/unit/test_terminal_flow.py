"""One terminal: nothing is lost to a page, nothing is held without bound, whoever attaches and leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Exhausted, Unavailable
from atoll.base.timeout import timeout
from atoll.doors.web.terminal import terminal as module
from atoll.doors.web.terminal.client import Client
from atoll.doors.web.terminal.terminal import HELD, PAGES, PIECES, RING, Terminal
from atoll.doors.web.terminal.wire import TYPED
from framework.fountain import CHUNK, Fountain

SIZE = (80, 24)


class Bench:
    """A terminal on a source of bytes."""

    def __init__(self) -> None:
        self.terminal = Terminal(id_="t", account="a", session_id="s", title="ssh web", vm="vm")
        self.source = Fountain(self.terminal.show)

    async def start(self, size: tuple[int, int], show: object) -> Fountain:
        self.source.sizes.append(size)
        return self.source

    def attached(self, have: int | None = None, size: tuple[int, int] = SIZE) -> Client:
        client = Client("s")
        self.terminal.attach(client, have, size)
        return client

    async def until(self, what: str) -> None:
        async def check() -> bool | None:
            return True if eval(what, {"bench": self}) else None

        await poll(check, seconds=5, what=what, every=0.001)


@pytest.fixture(name="bench")
async def _bench() -> AsyncIterator[Bench]:
    bench = Bench()
    async with TaskGroup() as group:
        group.create_task(bench.terminal.run(bench.start))
        yield bench
        bench.terminal.finish("the test is over")


def notes(client: Client) -> list[dict[str, Any]]:
    return [json.loads(note) for note in client.notes()]


async def test_it_starts_with_the_first_page_in_its_size(bench: Bench) -> None:
    assert bench.source.sizes == []
    bench.attached(size=(120, 40))
    await bench.until("bench.terminal.ring.end == 2")
    assert set(bench.source.sizes) == {(120, 40)}


async def test_the_source_waits_for_the_slowest_page(bench: Bench) -> None:
    slow, quick = bench.attached(), bench.attached()
    await bench.until("bench.terminal.ring.end == 2")
    assert bench.terminal.type(quick, b"9000000\r")
    await bench.until("bench.source.pauses == 1")
    end = bench.terminal.ring.end
    assert HELD <= end <= HELD + CHUNK < RING
    for client in (slow, quick):
        client.sent = end
    assert bench.terminal.shown(quick, end)
    assert bench.source.pauses == 1
    assert not bench.source.is_flowing, "the other has shown nothing"
    assert bench.terminal.shown(slow, end - HELD // 2 + 1)
    await bench.until("bench.source.pauses == 2")
    assert HELD < bench.terminal.ring.end - slow.shown <= HELD + CHUNK


async def test_without_a_page_it_runs_on_and_keeps_the_end(bench: Bench) -> None:
    page = bench.attached()
    await bench.until("bench.terminal.ring.end == 2")
    bench.terminal.type(page, b"9000000\r")
    await bench.until("bench.source.pauses == 1")
    bench.terminal.detach(page, now=5.0)
    assert bench.terminal.left_at == 5.0
    await bench.until("b'done' in bench.terminal.ring.read(bench.terminal.ring.end - 20, 20)")
    ring = bench.terminal.ring
    assert ring.end - ring.start == RING

    again = bench.attached(have=page.sent)
    start = notes(again)[0]["from"]
    assert start == {"offset": again.sent, "live": ring.end, "reset": True, "modes": ""}
    assert again.sent > page.sent, "what it has is no longer joined to what is held"
    assert bench.source.sizes[-2:] == [(80, 23), SIZE], "whoever drew the screen draws it again"


async def test_a_page_that_comes_back_gets_the_rest(bench: Bench) -> None:
    page = bench.attached()
    await bench.until("bench.terminal.ring.end == 2")
    again = bench.attached(have=1)
    assert notes(again)[0]["from"] == {"offset": 1, "live": 2, "reset": False, "modes": ""}
    ahead = bench.attached(have=1 << 40)
    assert notes(ahead)[0]["from"]["reset"], "of another life of this id, or a lie"
    assert bench.terminal.clients == {page, again, ahead}


async def test_the_last_size_counts_and_the_others_are_told(bench: Bench) -> None:
    one, other = bench.attached(), bench.attached()
    await bench.until("bench.terminal.ring.end == 2")
    bench.terminal.resize(one, (100, 30))
    await bench.until("bench.source.sizes[-1] == (100, 30)")
    assert notes(other)[-1] == {"size": [100, 30]}
    assert {"size": [100, 30]} not in notes(one)


async def test_a_window_that_is_dragged_is_followed_not_chased(bench: Bench) -> None:
    one, other = bench.attached(), bench.attached()
    await bench.until("bench.terminal.ring.end == 2")
    for columns in range(100, 1000):
        bench.terminal.resize(one, (columns, 30))
    await bench.until("bench.source.sizes[-1] == (999, 30)")
    assert len(bench.source.sizes) < 10
    assert [note["size"] for note in notes(other) if "size" in note] == [[999, 30]]


async def test_many_small_pieces_are_few(bench: Bench) -> None:
    one, other = bench.attached(), bench.attached()
    for client in (one, one, one, other, one, one):
        assert bench.terminal.type(client, b"x")
    await bench.until("bench.source.writes == [b'xxx', b'x', b'xx']")


async def test_a_terminal_is_shown_by_so_many_pages(bench: Bench) -> None:
    for _ in range(PAGES):
        bench.attached()
    with pytest.raises(Exhausted, match=f"{PAGES} pages"):
        bench.attached()


async def test_typing_goes_no_further_ahead_than_agreed(bench: Bench) -> None:
    page = bench.attached()
    assert bench.terminal.type(page, b"x" * TYPED)
    assert not bench.terminal.type(page, b"x")
    await bench.until("list(bench.terminal.clients)[0].typed == 0")
    assert {"taken": TYPED} in notes(page)
    assert bench.terminal.type(page, b"x")


async def test_pages_that_come_and_go_pile_up_nothing(bench: Bench) -> None:
    """Each page has a window of its own, and what it typed stays when it leaves."""
    bench.source.takes.clear()
    taken = 0
    for _ in range(3 * PAGES):
        page = bench.attached()
        taken += bench.terminal.type(page, b"x" * TYPED)
        bench.terminal.detach(page, now=1.0)
    assert taken == PAGES, "as much as so many pages at once may type ahead"
    bench.source.takes.set()
    await bench.until(f"sum(map(len, bench.source.writes)) == {PAGES * TYPED}")
    assert bench.terminal.type(bench.attached(), b"x" * TYPED)


async def test_pages_that_take_turns_are_so_many_pieces(bench: Bench) -> None:
    bench.source.takes.clear()
    pages = [bench.attached(), bench.attached()]
    for number in range(4 * PIECES):
        assert bench.terminal.type(pages[number % 2], b"")
    for number in range(PIECES):
        assert bench.terminal.type(pages[number % 2], b"x")
    assert not bench.terminal.type(pages[0], b"x")


@pytest.mark.parametrize("is_started", [True, False])
async def test_a_shell_that_does_not_end_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, is_started: bool
) -> None:
    """A VM is its owner's: what answers there may neither begin nor end a session."""
    monkeypatch.setattr(module, "LEAVE_S", 0.01)
    terminal = Terminal(id_="t", account="a", session_id="s", title="ssh web", vm="vm")
    begun = asyncio.Event()

    class Deaf(Fountain):
        async def run(self) -> str:
            begun.set()
            await asyncio.Event().wait()
            return ""

    async def start(size: tuple[int, int], show: object) -> Fountain:
        if not is_started:
            begun.set()
            await asyncio.Event().wait()
        return Deaf(terminal.show)

    terminal.attach(Client("s"), None, SIZE)
    async with timeout(5), TaskGroup() as group:
        group.create_task(terminal.run(start))
        await begun.wait()
        terminal.finish("closed")
    assert terminal.over == "closed"


async def test_a_page_cannot_have_shown_what_it_was_not_sent(bench: Bench) -> None:
    page = bench.attached()
    await bench.until("bench.terminal.ring.end == 2")
    assert not bench.terminal.shown(page, 1)
    page.sent = 2
    assert bench.terminal.shown(page, 2)
    assert bench.terminal.shown(page, 1), "one that was late"
    assert page.shown == 2


async def test_it_ends_once_and_for_all(bench: Bench) -> None:
    page = bench.attached()
    await bench.until("bench.terminal.ring.end == 2")
    bench.source.hang_up()
    await bench.until("bench.terminal.is_over")
    bench.terminal.finish("again")
    assert bench.terminal.over == "The source is dry."
    assert bench.terminal.type(page, b"into the void")
    assert page.typed == 0


async def test_a_shell_that_does_not_start_says_why() -> None:
    terminal = Terminal(id_="t", account="a", session_id="s", title="ssh web", vm="vm")

    async def start(size: tuple[int, int], show: object) -> Fountain:
        raise Unavailable("VM 'web' does not let us in", hint="Try: restart web")

    terminal.attach(Client("s"), None, SIZE)
    await terminal.run(start)
    assert terminal.over == "VM 'web' does not let us in. Try: restart web"


async def test_one_that_is_closed_before_a_page_came_starts_nothing() -> None:
    terminal = Terminal(id_="t", account="a", session_id="s", title="atoll", vm="")
    terminal.finish("closed")

    async def start(size: tuple[int, int], show: object) -> Fountain:
        raise AssertionError("started")

    await terminal.run(start)
    assert terminal.over == "closed"
