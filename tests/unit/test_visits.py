"""Who opened a VM: from HAProxy's lines to what its owner reads."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.aio import poll
from atoll.base.errors import Invalid, NotFound
from atoll.domain.visit import MANY, Visit
from atoll.doors.edge.access_log import AccessLog, parse
from atoll.services.visits import ROWS, ROWS_EACH, TRIM_EVERY, Visits
from atoll.store import accounts, vms
from atoll.store import visits as rows
from atoll.store.engine import Store
from contracts.store import ANN, vm
from fakes.engine import FakeEngine
from framework.cloud import Control, control, store_in

WEB = vm(1, name="web")
LINE = (
    b'web.atoll.test acct-ann cookie 1 GET 200 1234 56 192.0.2.7 8000 vm_page -- "/a\\"b\\u000a"\n'
)
VISIT = Visit(
    at=1000.0, account="acct-ann", by="cookie", method="GET", port=8000, path="/", status=200,
    bytes=10, ms=5, source="192.0.2.7", is_let_in=True,
)  # fmt: skip


@pytest.fixture(name="store")
async def _store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await store_in(tmp_path)
    async with store.begin() as tx:
        await accounts.add(tx, ANN, now=0.0)
        await vms.add(tx, WEB)
    yield store
    await store.close()


@pytest.fixture(name="visits")
def _visits(store: Store) -> Visits:
    return Visits(store=store)


async def read(visits: Visits, who: str | None = None) -> list[Visit]:
    await visits.write()
    seen, _ = await visits.latest(WEB.id, limit=10_000, who=who)
    return [one.visit for one in seen]


class TestLines:
    def test_all_of_it(self) -> None:
        assert parse(LINE, now=1000.0) == (
            "web",
            replace(VISIT, at=1000.0 - 0.056, path='/a"b\n', bytes=1234, ms=56),
            False,
        )

    def test_nobody_and_a_sample(self) -> None:
        line = b'web.x - - 100 POST 401 0 0 ::ffff:192.0.2.7 - edge PR "-"'
        read = parse(line, now=1.0)
        assert read is not None
        visit = read.visit
        assert (visit.account, visit.by, visit.count, visit.is_let_in) == ("", "", 100, False)
        assert (visit.source, visit.port) == ("192.0.2.7", 0)

    def test_aborted_before_an_answer(self) -> None:
        read = parse(LINE.replace(b" 200 1234 56 ", b" -1 0 -1 "), now=1.0)
        assert read is not None
        assert (read.visit.status, read.visit.ms, read.visit.at) == (0, 0, 1.0)

    @pytest.mark.parametrize(
        ("status", "backend", "end", "is_missed"),
        [
            (503, "vm_page", "SC", True),
            (503, "vm", "SC", True),
            (503, "vm", "--", False),  # the VM's own server says so
            (503, "vm", "sC", False),  # it did not refuse, it said nothing
            (503, "edge", "PR", False),  # the VM does not run
            (503, "edge", "SC", False),
            (502, "vm", "SH", False),
            (200, "vm", "--", False),
        ],
    )
    def test_nothing_listened(self, status: int, backend: str, end: str, is_missed: bool) -> None:
        line = LINE.replace(b" 200 ", b" %d " % status)
        line = line.replace(b" vm_page -- ", f" {backend} {end} ".encode())
        read = parse(line, now=1.0)
        assert read is not None
        assert read.is_missed is is_missed

    @pytest.mark.parametrize(
        "line",
        [
            b"", b"\n", b"- - - - <BADREQ> 400 0 -1 192.0.2.7 - edge PR \"-\"",
            b"192.0.2.7:1 [26/Nov/2026:08:00:00.000] edge/1: SSL handshake failure",
            LINE[:-3], LINE.replace(b"192.0.2.7", b"1.2.3"), LINE.replace(b"web.", b"WEB."),
            LINE.replace(b"acct-ann", b"a b"), LINE.replace(b"\\u000a", b"\\uzzzz"), LINE * 2,
            LINE.replace(b" --", b""), LINE.replace(b" --", b" ----"), LINE.replace(b" --", b" 1."),
        ],
    )  # fmt: skip
    def test_what_is_no_visit(self, line: bytes) -> None:
        assert parse(line, now=1.0) is None

    @given(st.binary(max_size=200))
    def test_no_line_breaks_it(self, data: bytes) -> None:
        parse(data, now=1.0)
        parse(LINE.replace(b"/a", data), now=1.0)


class TestRing:
    async def test_alike_ones_are_one_row(self, visits: Visits) -> None:
        for number in range(3):
            visits.note("web", replace(VISIT, at=1000.0 + number, ms=number))
        visits.note("web", replace(VISIT, path="/other"))
        visits.note("nosuch", VISIT)
        together = replace(VISIT, at=1002.0, bytes=30, ms=2, count=3)
        assert await read(visits) == [together, replace(VISIT, path="/other")]

    async def test_a_flood_costs_few_rows_and_every_request_is_counted(
        self, visits: Visits
    ) -> None:
        for number in range(5000):
            visits.note("web", replace(VISIT, path=f"/{number}"))
        found = await read(visits)
        assert len(found) == ROWS_EACH + 1
        assert sum(visit.count for visit in found) == 5000
        assert (found[-1].account, found[-1].path) == (VISIT.account, MANY)

    async def test_many_vms_cost_few_rows_too(self, visits: Visits) -> None:
        for number in range(2 * ROWS):
            visits.note(f"vm{number}", VISIT)
        assert len(visits._new) == ROWS

    async def test_rows_are_kept_for_people_and_strangers_apart(
        self, visits: Visits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rows, "KEPT", 5)
        visits.note("web", VISIT)
        for number in range(TRIM_EVERY):
            visits.note("web", replace(VISIT, account="", path=f"/{number}"))
            await visits.write()
        found = await read(visits)
        assert [visit.path for visit in found if visit.account] == ["/"]
        strangers = [visit.path for visit in found if not visit.account]
        assert len(strangers) < 10
        assert strangers[-1] == f"/{TRIM_EVERY - 1}"

    async def test_last_opened(self, visits: Visits) -> None:
        assert await visits.last_opened(WEB.id) == {}
        for at, account, is_let_in in (
            (1.0, ANN.id, True), (3.0, ANN.id, True), (2.0, ANN.id, True), (9.0, ANN.id, False),
            (4.0, "", True),
        ):  # fmt: skip
            visits.note(
                "web", replace(VISIT, at=at, path=f"/{at}", account=account, is_let_in=is_let_in)
            )
        await visits.write()
        assert await visits.last_opened(WEB.id) == {ANN.id: 3.0, "": 4.0}
        visits.note("web", replace(VISIT, at=5.0, account=ANN.id))
        await visits.write()
        assert (await visits.last_opened(WEB.id))[ANN.id] == 5.0

    async def test_goes_with_its_vm(self, visits: Visits, store: Store) -> None:
        visits.note("web", VISIT)
        assert len(await read(visits)) == 1
        async with store.begin() as tx:
            await vms.remove(tx, WEB.id)
        visits.note("web", VISIT)
        assert await read(visits) == []
        assert await visits.last_opened(WEB.id) == {}


class TestSocket:
    async def test_reads_and_spends_no_more_than_its_budget(self, tmp_path: Path) -> None:
        noted: list[str] = []
        missed: list[tuple[str, int]] = []

        class Kept:
            def note(self, vm_name: str, visit: Visit) -> None:
                noted.append(vm_name)

            def missed(self, vm_name: str, port: int) -> None:
                missed.append((vm_name, port))

        log = AccessLog(path=tmp_path / "s", visits=Kept(), ports=Kept(), lines_per_s=3)
        async with log.serving():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                refused = LINE.replace(b" 200 ", b" 503 ").replace(b" -- ", b" SC ")
                for line in (LINE,) * 5 + (refused,):  # as many as the kernel holds everywhere
                    sender.sendto(line, str(tmp_path / "s"))

                async def are(count: int) -> bool | None:
                    return len(noted) >= count or None

                await poll(lambda: are(3), seconds=5, what="three lines", every=0.005)
                assert len(noted) == 3
                await poll(lambda: are(6), seconds=5, what="the others", every=0.005)
                assert missed == [("web", 8000)]
        assert not (tmp_path / "s").exists()


class TestVerb:
    @pytest.fixture(name="cloud")
    async def _cloud(self, tmp_path: Path) -> AsyncIterator[Control]:
        engine = FakeEngine(tmp_path / "engine.sock")
        async with engine.serving(), control(tmp_path / "control", engine, loops=True) as made:
            await made.run("new --name web")
            yield made

    async def note(self, cloud: Control, **values: object) -> None:
        visit = replace(VISIT, **values)  # type: ignore[arg-type]
        cloud.cloud.visits.note("web", visit)
        await cloud.cloud.visits.write()

    async def test_owner_reads_who_and_when(self, cloud: Control) -> None:
        assert (await cloud.run("share log web")).text == "Nobody opened web yet"
        await self.note(cloud, account=cloud.ann.account.id)
        await self.note(cloud, account="", by="", status=401, is_let_in=False, path="/\x1b[2J")
        data = await cloud.data("share log web")
        assert data["vm_name"] == "web"
        assert [visit["who"] for visit in data["visits"]] == [
            cloud.ann.account.email, "anonymous",
        ]  # fmt: skip
        assert data["visits"][0] == {
            "at": "1970-01-01T00:16:40Z", "who": cloud.ann.account.email, "source": "192.0.2.7",
            "method": "GET", "path": "/", "bytes": 10, "ms": 5, "count": 1, "let_in": True,
            "by": "cookie", "port": 8000, "status": 200,
        }  # fmt: skip
        assert "\x1b" not in (await cloud.run("share log web")).text

    async def test_one_of_them_and_how_many(self, cloud: Control) -> None:
        email = cloud.ann.account.email
        for number in range(3):
            await self.note(cloud, account=cloud.ann.account.id, path=f"/{number}")
            await self.note(cloud, account="", path=f"/{number}")
        for who, expected in (
            (f"--who {email.upper()}", ["/0", "/1", "/2"]),
            ("--who anonymous -n 2", ["/1", "/2"]),
            ("--who nobody@example.com", []),
        ):
            visits = (await cloud.data(f"share log web {who}"))["visits"]
            assert [visit["path"] for visit in visits] == expected
        with pytest.raises(Invalid, match="1001"):
            await cloud.run("share log web -n 1001")

    async def test_nobody_else_reads_it(self, cloud: Control) -> None:
        with pytest.raises(NotFound):
            await cloud.run("share log web", cloud.bob)

    async def test_a_new_owner_does_not_read_it(self, cloud: Control) -> None:
        await self.note(cloud, account=cloud.ann.account.id)
        await cloud.run("transfer web bob@example.com")
        reply = await cloud.run("share log web", cloud.bob)
        assert reply.text == "Nobody opened web yet"
        assert (await cloud.data("share show web", cloud.bob))["users"] == []
        async with cloud.store.read() as tx:
            (web,) = await vms.everywhere(tx)
            assert await rows.last_opened(tx, web.id) == {}

    async def test_goes_on_until_the_vm_is_gone(self, cloud: Control) -> None:
        await self.note(cloud, path="/before")
        reply = await cloud.run("share log web --follow")
        assert "/before" in reply.text
        assert reply.more is not None
        async with aclosing(reply.more) as more, asyncio.timeout(10):
            await self.note(cloud, path="/first")
            assert (await anext(more)).data["visits"][0]["path"] == "/first"
            await cloud.run("rm web")
            async with cloud.store.begin() as tx:
                (trashed,) = await vms.trashed(tx, cloud.ann.account.id)
                await rows.add(tx, [(trashed.id, VISIT)])
            cloud.cloud.visits.changes.bump()
            with pytest.raises(NotFound):
                await anext(more)
