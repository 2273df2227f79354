"""The journal at every crash point: control dies, the next control ends what was begun.

Each test kills a control at a generated point, starts another on the same store and the same engine,
and asserts the invariants: nothing unfinished, store and engine have the same VMs, no name twice.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.base.aio import poll
from atoll.base.errors import AtollError, Conflict, Exhausted, Unavailable
from atoll.domain.vm import Phase, Wanted
from atoll.rpc.messages import (
    Clone,
    Create,
    Delete,
    Event,
    GetVm,
    ListVms,
    Message,
    NodeInfo,
    Pause,
    Resume,
    VmState,
)
from atoll.services.facts import Engine, R
from atoll.store import operations, vms
from fakes.engine import FakeEngine
from framework.cloud import BOB, Clock, Control, control

ASKING = (GetVm, ListVms, NodeInfo)


class Died(BaseException):
    """Control was killed here; nothing catches it, no clean-up of ours runs after it matters."""


class Dying:
    """An engine client that kills control around its nth changing request.

    `after` False: killed before the request leaves. True: the engine has done it, nobody heard.
    """

    def __init__(self, client: Engine, *, at: int, after: bool) -> None:
        self._client = client
        self._count = itertools.count()
        self._at = at
        self._after = after

    async def call(self, request: Message, answer: type[R], *, seconds: float) -> R:
        is_fatal = not isinstance(request, ASKING) and next(self._count) == self._at
        if is_fatal and not self._after:
            raise Died
        result = await self._client.call(request, answer, seconds=seconds)
        if is_fatal:
            raise Died
        return result

    def events(self) -> AsyncIterator[Event]:
        return self._client.events()


async def check_invariants(cloud: Control) -> None:
    """What must hold whenever nothing is under way."""
    async with cloud.store.read() as tx:
        assert await operations.unfinished(tx) == ()
        records = await vms.everywhere(tx)
    assert {vm.id for vm in records} == set(cloud.engine.vms)
    assert all(vm.phase is not Phase.CREATING for vm in records)
    names = [vm.name for vm in records if vm.name is not None]
    assert len(names) == len(set(names))
    for vm in records:
        state, spec = cloud.engine.vms[vm.id].state, cloud.engine.vms[vm.id].spec
        wanted = cloud.engine.next_specs.get(vm.id, spec)
        assert (wanted.cpus, wanted.memory_bytes, spec.disk_bytes) == (
            vm.cpus, vm.memory_bytes, vm.disk_bytes,
        )  # fmt: skip
        if vm.phase is Phase.TRASHED:
            assert state in (VmState.PAUSED, VmState.STOPPED)
        else:
            expected = VmState.RUNNING if vm.wanted is Wanted.RUNNING else VmState.PAUSED
            assert state is expected
            assert cloud.engine.identities[vm.id].hostname == vm.name or vm.wanted is Wanted.PAUSED


async def run_or_refuse(cloud: Control, line: str) -> None:
    """Run a line; a refusal is fine, a failure of the cloud is not."""
    status = 200
    try:
        await cloud.run(line)
    except AtollError as error:
        status = error.http
    assert status < 500


async def recover(cloud: Control) -> None:
    """What a new control does when it starts, without waiting for its loops."""
    await cloud.cloud.reconciler.reconcile()
    await cloud.cloud.journal.resume()
    await cloud.cloud.reconciler.reconcile()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    made = FakeEngine(tmp_path / "engine.sock")
    async with made.serving():
        yield made


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("new --name next", {"web", "next"}),
        ("cp web next", {"web", "next"}),
        ("rm web", set()),
        ("pause web", {"web"}),
        ("restart web", {"web"}),
        ("rename web next", {"next"}),
        ("resize web --disk 30 --memory 2", {"web"}),
    ],
)
async def test_killed_around_the_engine_call(
    tmp_path: Path, engine: FakeEngine, line: str, names: set[str], after: bool
) -> None:
    async with control(tmp_path / "c", engine) as first:
        await first.run("new --name web")
    async with control(
        tmp_path / "c", engine, wrap=lambda client: Dying(client, at=0, after=after)
    ) as doomed:
        await doomed.cloud.reconciler.reconcile()
        with pytest.raises(Died):
            await doomed.run(line)
    async with control(tmp_path / "c", engine) as second:
        await recover(second)
        await check_invariants(second)
        assert {vm["vm_name"] for vm in (await second.data("ls"))["vms"]} == names


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_vm_given_away_has_one_owner_and_knows_their_keys(
    tmp_path: Path, engine: FakeEngine, after: bool
) -> None:
    def dying(client: Engine) -> Dying:
        return Dying(client, at=0, after=after)

    async with control(tmp_path / "c", engine) as first:
        await first.run("new --name web")
    async with control(tmp_path / "c", engine, wrap=dying) as doomed:
        await doomed.cloud.reconciler.reconcile()
        with pytest.raises(Died):
            await doomed.run("transfer web bob@example.com")
    async with control(tmp_path / "c", engine) as second:
        await recover(second)
        await check_invariants(second)
        assert (await second.data("ls"))["vms"] == []
        assert [vm["vm_name"] for vm in (await second.data("ls", second.bob))["vms"]] == ["web"]
    (identity,) = engine.identities.values()
    assert identity.authorized_keys == (f"{BOB} laptop",)


async def test_a_vm_whose_making_was_cut_short_knows_the_keys_that_came_since(
    tmp_path: Path, engine: FakeEngine
) -> None:
    def dying(client: Engine) -> Dying:
        return Dying(client, at=0, after=True)

    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh").decode()
    async with control(tmp_path / "c", engine, wrap=dying) as doomed:
        with pytest.raises(Died):
            await doomed.run("new --name web")
    async with control(tmp_path / "c", engine) as second:
        await second.cloud.reconciler.reconcile()
        second.clock.time += 1  # keys of one moment are told apart by what is drawn
        await second.run(f"ssh-key add '{key.strip()} tablet'")
        await second.cloud.journal.resume()
        await check_invariants(second)
    (identity,) = engine.identities.values()
    assert [line.split()[2] for line in identity.authorized_keys or ()] == ["laptop", "tablet"]


async def test_a_setup_script_survives_control_and_is_then_forgotten(
    tmp_path: Path, engine: FakeEngine
) -> None:
    def dying(client: Engine) -> Dying:
        return Dying(client, at=0, after=False)

    database = tmp_path / "c/atoll.db"
    async with control(tmp_path / "c", engine, wrap=dying) as doomed:
        with pytest.raises(Died):
            await doomed.run("new --name web --setup-script 'echo s3cret' --env KEY=s3cret")
    assert b"s3cret" in database.read_bytes()
    async with control(tmp_path / "c", engine) as second:
        await recover(second)
        await check_invariants(second)
    (asked,) = (request for request in engine.asked if isinstance(request, Create))
    assert asked.identity.setup_script == "echo s3cret"
    assert asked.identity.env == {"KEY": "s3cret"}
    assert b"s3cret" not in b"".join(
        path.read_bytes() for path in database.parent.glob("atoll.db*")
    )


LINES = st.sampled_from(
    [
        "new --name a", "new --name b", "new", "cp a b", "cp b a", "cp a", "rm a", "rm b", "rm a b",
        "undo", "pause a", "pause b", "resume a", "resume b", "restart a", "rename a b",
        "rename b c", "rename c a", "tag a t", "share port a 3000",
        "resize a --disk 30", "resize b --memory 2",
    ]
)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(
    lives=st.lists(
        st.tuples(st.lists(LINES, max_size=6), st.integers(0, 8), st.booleans()), max_size=4
    )
)
def test_any_lives_and_deaths_end_consistent(
    lives: list[tuple[list[str], int, bool]],
) -> None:
    async def run(folder: Path) -> None:
        engine, clock = FakeEngine(folder / "engine.sock"), Clock()
        async with engine.serving():
            for lines, at, after in lives:
                await live(folder, engine, clock, lines, at=at, after=after)
            async with control(folder / "c", engine, clock=clock) as last:
                await recover(last)
                await check_invariants(last)
                clock.time += 2 * 86400
                await last.cloud.trash.sweep()
                await check_invariants(last)
                assert len(engine.vms) == len((await last.data("ls"))["vms"])

    async def live(
        folder: Path, engine: FakeEngine, clock: Clock, lines: list[str], *, at: int, after: bool
    ) -> None:
        def dying(client: Engine) -> Dying:
            return Dying(client, at=at, after=after)

        async with control(folder / "c", engine, wrap=dying, clock=clock) as cloud:
            try:
                await recover(cloud)
                for line in lines:
                    clock.time += 1
                    await run_or_refuse(cloud, line)
            except Died:
                return

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


async def test_a_lost_answer_is_asked_again_with_the_same_op(
    tmp_path: Path, engine: FakeEngine
) -> None:
    """The engine restarts while it works: the command still succeeds, and it was done once."""

    class Deaf(Dying):
        async def call(self, request: Message, answer: type[R], *, seconds: float) -> R:
            result = await self._client.call(request, answer, seconds=seconds)
            if isinstance(request, Create) and next(self._count) == 0:
                raise Unavailable("the engine went away")
            return result

    async with control(
        tmp_path / "c", engine, wrap=lambda client: Deaf(client, at=0, after=True)
    ) as cloud:
        await cloud.run("new --name web")
        asked = [request for request in engine.asked if isinstance(request, Create)]
        assert len(asked) == 2
        assert asked[0] == asked[1]  # the same op, and the same host key
        await check_invariants(cloud)


class Away:
    """An engine client whose engine can be taken away; no waiting between tries."""

    def __init__(self, client: Engine) -> None:
        self._client = client
        self.kinds: set[type[Message]] = set()

    async def call(self, request: Message, answer: type[R], *, seconds: float) -> R:
        if type(request) in self.kinds:
            raise Unavailable("the engine does not answer")
        return await self._client.call(request, answer, seconds=seconds)

    def events(self) -> AsyncIterator[Event]:
        return self._client.events()


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.services.effects.RETRIES_S", (0.0,))


@pytest.mark.usefixtures("_no_pauses")
async def test_new_without_an_engine_leaves_no_trace(tmp_path: Path, engine: FakeEngine) -> None:
    async with control(tmp_path / "c", engine, wrap=Away) as cloud:
        away = cloud.cloud.journal._effects.engine
        assert isinstance(away, Away)
        away.kinds = {NodeInfo}
        with pytest.raises(Unavailable):
            await cloud.run("new --name web")
        assert (await cloud.data("ls"))["vms"] == []


@pytest.mark.usefixtures("_no_pauses")
async def test_an_unknown_outcome_goes_on_in_the_background(
    tmp_path: Path, engine: FakeEngine
) -> None:
    async with control(tmp_path / "c", engine, wrap=Away) as cloud:
        away = cloud.cloud.journal._effects.engine
        assert isinstance(away, Away)
        away.kinds = {Create}
        with pytest.raises(Unavailable):
            await cloud.run("new --name web")
        (entry,) = (await cloud.data("ls"))["vms"]
        assert entry["status"] == "starting"
        with pytest.raises(Conflict, match='VM "web": an earlier `create` is not finished'):
            await cloud.run("pause web")
        away.kinds = set()
        await cloud.cloud.journal.resume()
        (entry,) = (await cloud.data("ls"))["vms"]
        assert entry["status"] == "running"
        await check_invariants(cloud)


@pytest.mark.usefixtures("_no_pauses")
async def test_what_an_engine_never_manages_is_undone(tmp_path: Path, engine: FakeEngine) -> None:
    async with control(tmp_path / "c", engine, wrap=Away) as cloud:
        away = cloud.cloud.journal._effects.engine
        assert isinstance(away, Away)
        away.kinds = {Create}
        with pytest.raises(Unavailable):
            await cloud.run("new --name web")
        away.kinds = {Create, NodeInfo}
        for _ in range(10):  # away altogether: it waits
            with pytest.raises(Unavailable):
                await poll_resume(cloud)
        away.kinds = {Create}  # it answers, only not this
        await cloud.cloud.journal.resume()
        await check_invariants(cloud)
        await cloud.run("ls")
        away.kinds = set()
        await cloud.run("new --name web")


async def poll_resume(cloud: Control) -> None:
    """Resume until the journal asks whether the engine is there at all."""

    async def once() -> None:
        await cloud.cloud.journal.resume()

    await poll(once, seconds=5, what="the journal to give up", every=0.0)


@pytest.mark.usefixtures("_no_pauses")
async def test_an_undo_cut_short_is_gone_on_with(tmp_path: Path, engine: FakeEngine) -> None:
    async with control(tmp_path / "c", engine, wrap=Away) as cloud:
        away = cloud.cloud.journal._effects.engine
        assert isinstance(away, Away)
        engine.refuse[Create].append(Exhausted("the pool is full"))
        away.kinds = {Delete}
        with pytest.raises(Exhausted, match="the pool is full"):
            await cloud.run("new --name web")
        async with cloud.store.read() as tx:
            (op,) = await operations.unfinished(tx)
        assert op.state == "undoing"
        away.kinds = set()
        await cloud.cloud.journal.resume()
        assert [request for request in engine.asked if isinstance(request, Delete)] != []
        await check_invariants(cloud)
        await cloud.run("new --name web")


async def test_a_client_that_leaves_does_not_stop_its_command(
    tmp_path: Path, engine: FakeEngine
) -> None:
    async with control(tmp_path / "c", engine, loops=True) as cloud:
        engine.hold[Create] = asyncio.Event()
        task = asyncio.create_task(cloud.run("new --name web"))

        async def has_asked() -> bool | None:
            return any(isinstance(request, Create) for request in engine.asked) or None

        await poll(has_asked, seconds=10, what="create", every=0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        engine.hold.pop(Create).set()

        async def is_running() -> bool | None:
            listed = (await cloud.data("ls"))["vms"]
            return [vm["status"] for vm in listed] == ["running"] or None

        await poll(is_running, seconds=10, what="the VM to run", every=0.01)
        await check_invariants(cloud)


@pytest.mark.parametrize("request_type", [Pause, Resume, Clone])
async def test_refused_changes_leave_the_vm_as_it_was(
    tmp_path: Path, engine: FakeEngine, request_type: type[Message]
) -> None:
    async with control(tmp_path / "c", engine) as cloud:
        await cloud.run("new --name web")
        if request_type is Resume:
            await cloud.run("pause web")
        engine.refuse[request_type].append(Exhausted("no space"))
        line = {Pause: "pause web", Resume: "resume web", Clone: "cp web next"}[request_type]
        with pytest.raises(Exhausted, match="no space"):
            await cloud.run(line)
        await check_invariants(cloud)
        await cloud.run(line)
