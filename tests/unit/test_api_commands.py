"""`POST /exec` with the whole language behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from atoll.base.aio import TaskGroup, poll, together
from atoll.base.errors import Conflict, Exhausted
from atoll.commands.verbs import REGISTRY
from atoll.rpc.messages import Create, Message
from atoll.services import answers as services_answers
from atoll.services.answers import KEPT_S, Answer, Answers, Claim
from atoll.store import accounts, answers
from fakes.engine import FakeEngine
from framework.api import Door, door
from framework.cloud import Control, control, store_in


@pytest.fixture(name="cloud")
async def _cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine, loops=True) as made:
        yield made


@pytest.fixture(name="api")
async def _api(cloud: Control, tmp_path: Path) -> AsyncIterator[Door]:
    async with door(cloud, tmp_path) as made:
        yield made


async def test_help_is_json_and_runs_nothing(cloud: Control, api: Door) -> None:
    asked = len(cloud.engine.asked)
    for command in REGISTRY:
        page = await api.data(f"{command.name} --help")
        assert page["command"] == command.name
        names = [name for flag in page["flags"] for name in flag["names"]]
        assert {name for option in command.options for name in option.flags} <= set(names)
        assert page["examples"] == list(command.examples)
    assert len(cloud.engine.asked) == asked
    assert (await api.data("ls"))["vms"] == []


async def test_statuses(cloud: Control, api: Door, tmp_path: Path) -> None:
    for line, status in (
        ("new --name web", 200),
        ("", 400),
        ("ls 'open", 400),
        ("nope", 404),
        ("share", 404),
        ("new --name web", 422),
        ("new --nope", 422),
        ("stat nope", 422),
        ("ssh nope id", 422),
        ("rm nope", 200),
        ("x" * 65_537, 413),
    ):
        answer = await api.exec(line)
        assert (line, answer.status_code) == (line, status)
        assert answer.headers["content-type"] == "application/json"
    assert (await api.exec("ssh nope id")).json()["error"] == 'VM "nope" not found'
    await cloud.run("pause web")
    said = (await api.exec("ssh web id")).json()["error"]
    assert said.startswith('VM "web" is not running')


class TestIdempotency:
    async def test_acts_once_and_answers_again(self, cloud: Control, api: Door) -> None:
        first = await api.exec("new", idempotency_key="k1")
        again = await api.exec("new", idempotency_key="k1")
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.content == first.content
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert len(cloud.engine.vms) == 1
        assert (await api.exec("new", idempotency_key="k2")).json() != first.json()
        assert len(cloud.engine.vms) == 2

    async def test_failures_are_answers_too(self, cloud: Control, api: Door) -> None:
        cloud.engine.refuse[Create].append(Exhausted("out of memory"))
        first = await api.exec("new --name web", idempotency_key="k")
        again = await api.exec("new --name web", idempotency_key="k")
        assert (first.status_code, again.status_code) == (422, 422)
        assert again.json() == first.json()
        assert cloud.engine.vms == {}

    async def test_another_line_is_refused(self, cloud: Control, api: Door) -> None:
        await api.exec("new --name web", idempotency_key="k")
        answer = await api.exec("rm web", idempotency_key="k")
        assert answer.status_code == 422
        assert "used for another line" in answer.json()["error"]
        assert len(cloud.engine.vms) == 1

    async def test_two_at_once_act_once(self, cloud: Control, api: Door) -> None:
        gate = cloud.engine.hold[Create] = asyncio.Event()
        async with TaskGroup() as group:
            first = group.create_task(api.exec("new", idempotency_key="k"))
            await poll(_asked(cloud, Create), seconds=10, what="the engine to be asked")
            second = await api.exec("new", idempotency_key="k")
            assert (second.status_code, second.headers["retry-after"]) == (409, "1")
            assert "still running" in second.json()["error"]
            gate.set()
        assert first.result().status_code == 200
        assert (await api.exec("new", idempotency_key="k")).json() == first.result().json()
        assert len(cloud.engine.vms) == 1

    async def test_twenty_at_once_act_once(self, cloud: Control, api: Door) -> None:
        answers = await together(*(api.exec("new", idempotency_key="k") for _ in range(20)))
        assert {answer.status_code for answer in answers} <= {200, 409}
        assert len(cloud.engine.vms) == 1

    async def test_a_crash_between_leaves_the_outcome_unknown(
        self, cloud: Control, api: Door
    ) -> None:
        cloud.engine.hold[Create] = asyncio.Event()
        async with TaskGroup() as group:
            task = group.create_task(api.exec("new --name web", idempotency_key="k"))
            await poll(_asked(cloud, Create), seconds=10, what="the engine to be asked")
            task.cancel()
        cloud.engine.hold.pop(Create).set()
        answer = await api.exec("new --name web", idempotency_key="k")
        assert answer.status_code == 409
        assert "its outcome is unknown" in answer.json()["error"]
        assert len(cloud.engine.vms) == 1

    async def test_keys_are_each_credentials_own(
        self, cloud: Control, api: Door, tmp_path: Path
    ) -> None:
        _, other = await cloud.cloud.tokens.new(cloud.ann.account, "other")
        await api.exec("new --name web", idempotency_key="k")
        api.token = other
        answer = await api.exec("new --name web", idempotency_key="k")
        assert "taken" in answer.json()["error"]

    async def test_what_was_never_run_may_be_sent_again(
        self, cloud: Control, tmp_path: Path
    ) -> None:
        async with door(cloud, tmp_path, cmds=("ls",)) as api:
            assert (await api.exec("new", idempotency_key="k")).status_code == 403
            assert (await api.exec("rm x", idempotency_key="k")).status_code == 403
        async with cloud.store.read() as tx:
            assert await answers.count(tx, cloud.ann.account.id) == 0

    async def test_reading_needs_no_key(self, cloud: Control, api: Door) -> None:
        assert await api.data("ls", idempotency_key="k") == {"vms": []}
        await cloud.run("new")
        assert len((await api.data("ls", idempotency_key="k"))["vms"]) == 1
        assert (await api.exec("new --help", idempotency_key="k")).status_code == 200
        assert (await api.exec("nope", idempotency_key="k")).status_code == 404

    @pytest.mark.parametrize("key", ["", " ", "a b", "x" * 201, "k\t"])
    async def test_odd_keys(self, cloud: Control, api: Door, key: str) -> None:
        assert (await api.exec("new", idempotency_key=key)).status_code == 400
        assert cloud.engine.vms == {}

    async def test_ends_after_a_day(self, cloud: Control, api: Door) -> None:
        first = await api.data("new", idempotency_key="k")
        cloud.clock.time += KEPT_S + 1
        assert await api.data("new", idempotency_key="k") != first

    async def test_secrets_are_not_in_the_store(
        self, cloud: Control, api: Door, tmp_path: Path
    ) -> None:
        line = "ssh-key generate-api-key"
        token = (await api.data(line, idempotency_key="k"))["token"]
        assert (await api.data(line, idempotency_key="k"))["token"] == token
        files = [path.read_bytes() for path in (tmp_path / "control").glob("atoll.db*")]
        assert files
        assert not [content for content in files if token.encode() in content]

    async def test_an_answer_that_cannot_be_opened_is_said(self, cloud: Control, api: Door) -> None:
        await api.data("new", idempotency_key="k")
        caller = await cloud.cloud.tokens.caller_for_token(api.token, "")
        assert caller is not None
        other = Answers(store=cloud.store, key=bytes(range(32)), now=cloud.clock)
        with pytest.raises(Conflict, match="cannot be read"):
            await other.claim(caller, "k", "new")

    async def test_the_number_of_keys_has_a_limit(
        self, cloud: Control, api: Door, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(services_answers, "MAX_KEYS", 1)
        assert (await api.exec("new", idempotency_key="k1")).status_code == 200
        assert (await api.exec("new", idempotency_key="k2")).status_code == 422
        assert len(cloud.engine.vms) == 1

    async def test_an_answer_that_cannot_be_kept_leaves_the_outcome_unknown(
        self, cloud: Control, tmp_path: Path
    ) -> None:
        store = await store_in(tmp_path / "small")
        kept = Answers(store=store, key=bytes(32), now=cloud.clock)
        async with store.begin() as tx:
            await accounts.add(tx, cloud.ann.account, now=0.0)
        claim = await kept.claim(cloud.ann, "k", "new")
        assert isinstance(claim, Claim)
        with pytest.raises(Conflict, match="still running"):
            await kept.claim(cloud.ann, "k", "new")
        async with store.begin() as tx:
            pages = (await tx.execute(text("PRAGMA page_count"))).scalar_one()
            await tx.execute(text(f"PRAGMA max_page_count = {pages}"))
        with pytest.raises(Exhausted, match="disk is full"):
            await kept.keep(claim, Answer(200, bytes(1_000_000)))
        with pytest.raises(Conflict, match="outcome is unknown"):
            await kept.claim(cloud.ann, "k", "new")
        await store.close()

    async def test_after_a_kill_the_outcome_is_unknown(self, cloud: Control) -> None:
        """The first life wrote its claim down and never came back."""
        first, second = (
            Answers(store=cloud.store, key=bytes(32), now=cloud.clock) for _ in range(2)
        )
        assert isinstance(await first.claim(cloud.ann, "k", "new"), Claim)
        with pytest.raises(Conflict, match="outcome is unknown"):
            await second.claim(cloud.ann, "k", "new")


def _asked(cloud: Control, kind: type[Message]) -> Callable[[], Awaitable[bool | None]]:
    async def check() -> bool | None:
        return any(isinstance(request, kind) for request in cloud.engine.asked) or None

    return check


async def test_scope(cloud: Control, tmp_path: Path) -> None:
    await cloud.run("new --name web")
    async with door(cloud, tmp_path, cmds=("ls", "ssh web")) as api:
        assert (await api.exec("ls")).status_code == 200
        assert (await api.exec("rm web")).status_code == 403
        assert (await api.exec("ssh db id")).status_code == 403
        assert (await api.exec("rm --help")).status_code == 200
