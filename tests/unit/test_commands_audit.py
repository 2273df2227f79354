"""audit: what is recorded of every line, that no secret is, and who reads what of it."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.base.aio import deadline
from atoll.base.errors import AtollError, Conflict, Denied, Invalid, NotFound, Unavailable
from atoll.commands import recording
from atoll.commands.parse import parse
from atoll.commands.registry import Command, Parameter
from atoll.commands.verbs import REGISTRY
from atoll.domain.account import Caller, Door, Scope
from atoll.domain.audit import Record
from atoll.services import changes
from atoll.services.audit import ROOM
from atoll.store import audit as rows
from fakes.engine import FakeEngine
from framework.cloud import Control, control

CI = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHmJGHFXyGmpRGkQ4Lf3vUQnZ1a3kPv1rm0t8xrJmSDD ci"
SECRET = "hunter2-very-secret"
SECRETS = [
    (command, parameter)
    for command in REGISTRY
    for parameter in command.parameters
    if parameter.is_secret
]


@pytest.fixture(name="engine")
async def _engine(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving():
        yield engine


@pytest.fixture(name="cloud")
async def _cloud(tmp_path: Path, engine: FakeEngine) -> AsyncIterator[Control]:
    async with control(tmp_path / "control", engine, loops=True) as made:
        yield made


async def chain(cloud: Control) -> tuple[Record, ...]:
    await cloud.cloud.audit.flush()
    async with cloud.store.read() as tx:
        return await rows.chain(tx, 0, limit=10_000)


async def tried(cloud: Control, line: str, caller: Caller | None = None) -> str:
    """Run a line, whatever comes of it; the code of its error."""
    try:
        reply = await cloud.run(line, caller)
    except AtollError as error:
        return error.code
    return "failed" if reply.exit else "ok"


async def read(cloud: Control, line: str = "audit", caller: Caller | None = None) -> list[str]:
    """`what result` of what a line shows, but for those that read the audit themselves."""
    entries = (await cloud.data(line, caller))["records"]
    told = [f"{entry.get('what', entry['act'])} {entry['result']}" for entry in entries]
    return [each for each in told if not each.startswith("audit")]


# --- what is recorded


async def test_who_from_where_what_and_what_came_of_it(cloud: Control) -> None:
    await cloud.run("new --name web --tag p")
    await cloud.run("ls 'w*' -l --json")
    reply = await cloud.run("audit")
    assert reply.text.splitlines() == [
        "WHEN                  WHO              FROM       ACT      VM   RESULT  WHAT",
        "2027-01-15T08:00:00Z  ann@example.com  192.0.2.1  command  web  ok      new --name=web --tag=p",
        "2027-01-15T08:00:00Z  ann@example.com  192.0.2.1  command       ok      ls --long 'w*'",
    ]
    assert reply.data["records"][0] == {
        "seq": 1,
        "at": "2027-01-15T08:00:00Z",
        "act": "command",
        "who": "ann@example.com",
        "what": "new --name=web --tag=p",
        "vm_name": "web",
        "door": "ssh",
        "by": cloud.ann.credential,
        "result": "ok",
        "source": "192.0.2.1",
    }
    assert json.loads((await cloud.run("audit -n 2 --json")).text)["records"][-1]["what"] == "audit"


@pytest.mark.parametrize(
    ("line", "what", "result"),
    [
        ("pause zzz", "pause zzz", "not-found"),
        ("rm web zzz --dry-run", "rm --dry-run web zzz", "failed"),
        ("new --cpu 0", "new --cpu=0", "invalid"),
        (f"new --cpu {SECRET}", "new", "invalid"),
        (f"rename web {SECRET} {SECRET}", "rename", "invalid"),
        (f"{SECRET} web", "", "unknown-command"),
        (f"share {SECRET}", "", "unknown-command"),
        (f"ls '{SECRET}", "", "invalid"),
        (f"tag {SECRET} --{SECRET}", "tag", "invalid"),
        ("ls\0", "", "invalid"),
        ("share port --help web", "share port --help web", "ok"),
        ("comment web '\x1b[2J\u202e\nx'", "comment web '\\x1b[2J\\u202e\\nx'", "invalid"),
        ("tag -d web prod", "tag --delete web prod", "ok"),
        ("cp web --copy-tags=false copy", "cp --copy-tags=false web copy", "ok"),
        ("ssh web echo -l a", "ssh web ***", "ok"),
        ("ssh web", "ssh web", "ok"),
    ],
)
async def test_lines_in_one_form(cloud: Control, line: str, what: str, result: str) -> None:
    await cloud.run("new --name web --tag prod")
    assert await tried(cloud, line) in (result, "failed")
    records = [r for r in await chain(cloud) if not r.what.startswith("new --name")]
    assert {record.what for record in records} == {what}
    assert result in {record.result for record in records}
    assert SECRET not in str(records)


async def test_what_changes_is_on_the_disk_with_its_answer(cloud: Control) -> None:
    async def written() -> int:
        async with cloud.store.read() as tx:
            return (await rows.head(tx)).seq

    await cloud.run("new --name web")
    assert await written() == 1
    await cloud.run("ls")
    assert await written() == 1
    await cloud.run("ssh web")  # a way in
    assert await written() == 3


async def test_kinds_of_acts(cloud: Control) -> None:
    await cloud.run("new --name web")
    for line in (
        f"ssh-key add --name ci '{CI}'",
        "share port web 3000",
        "share show web",
        "ssh web",
    ):
        await cloud.run(line)
    await cloud.run("ssh-key generate-api-key --label bot")
    found = (await chain(cloud))[1:]
    assert [record.act for record in found] == ["grant", "grant", "command", "root", "grant"]
    key, token = json.loads(found[0].detail), json.loads(found[-1].detail)
    assert key["name"] == "ci"
    assert key["fingerprint"].startswith("SHA256:")
    assert token.keys() == {"act", "label", "fingerprint"}
    assert await read(cloud, "audit --act root") == ["ssh web ok"]


async def test_a_record_per_vm_of_what_takes_several(cloud: Control) -> None:
    for name in ("web-a", "web-b"):
        await cloud.run(f"new --name {name}")
    await tried(cloud, "pause web-a web-b zzz")
    await tried(cloud, "rm 'web-*'")
    found = [(r.vm, r.result, r.vm_id is not None) for r in (await chain(cloud))[2:]]
    assert found == [
        ("web-a", "ok", True), ("web-b", "ok", True), ("zzz", "not-found", False),
        ("web-a", "ok", True), ("web-b", "ok", True),
    ]  # fmt: skip


async def test_a_client_that_leaves_and_a_defect_are_recorded(
    cloud: Control, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cloud.run("new --name web")
    begun = asyncio.Event()

    async def hang(*_args: object, **_more: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(cloud.cloud.settings, "set_port", hang)
    task = asyncio.create_task(cloud.run("share port web 80"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def broken(*_args: object, **_more: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cloud.cloud.settings, "set_port", broken)
    with pytest.raises(ZeroDivisionError):
        await cloud.run("share port web 81")
    assert [record.result for record in await chain(cloud)] == ["ok", "cancelled", "internal"]


async def test_nothing_is_run_that_could_not_be_recorded(
    cloud: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cloud.run("new --name web")
    await chain(cloud)

    async def fail(*_args: object) -> None:
        raise Unavailable("the store failed")

    monkeypatch.setattr(rows, "add", fail)
    await cloud.run("comment web done")  # it is done, so it is answered
    assert "1 records of the audit are not written" in cloud.cloud.audit.problem
    cloud.cloud.audit.note(cloud.cloud.audit._queue * ROOM)
    with pytest.raises(Unavailable, match="cannot be written"):
        await cloud.run("comment web no")
    monkeypatch.undo()
    assert (await cloud.data("ls web"))["vms"][0]["comment"] == "done"
    assert cloud.cloud.audit.problem == ""


async def test_what_an_open_page_reads_again_and_again_is_recorded_once(cloud: Control) -> None:
    page = replace(cloud.ann, door=Door.WEB, key_fingerprint=None, token="web:1")
    for _ in range(3):
        await cloud.run("ls", page)
        await cloud.run("new --dry-run --name a-web", page)
    await cloud.run("ls", replace(page, token="web:2"))
    for _ in range(2):
        await cloud.run("new", page)
    assert [record.what for record in await chain(cloud)] == [
        "ls", "new --dry-run --name=a-web", "ls", "new", "new",
    ]  # fmt: skip


async def test_pages_are_forgotten_in_order(
    cloud: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_PAGES", 2)
    page = replace(cloud.ann, door=Door.WEB, token="web:1")
    for line in ("ls", "whoami", "undo --help", "ls"):
        await cloud.run(line, page)
    assert [record.what for record in await chain(cloud)].count("ls") == 2


# --- secrets


def test_what_may_be_secret() -> None:
    assert {f"{command.name} {parameter.name}" for command, parameter in SECRETS} == {
        "new setup_script", "new env", "ssh command", "ssh-key add key", "ssh-key remove key",
        "ssh-key shorten token", "defaults write value", "share accept link", "share remove-link link",
    }  # fmt: skip


def with_secret(command: Command, parameter: Parameter, secret: str) -> str:
    """A line that has it where it may be."""
    words = {"vm": "web", "domain": "atoll", "key": "new.setup-script"}
    places = [
        secret if place is parameter else words.get(place.name, "x")
        for place in command.places
        if place.is_required or place is parameter
    ]
    flags = [f"{parameter.flags[0]}={secret}"] if parameter.flags else []
    return shlex.join([*command.words, *flags, "--", *places])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    which=st.sampled_from(SECRETS),
    secret=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=60),
)
def test_no_form_of_a_line_shows_a_secret(which: tuple[Command, Parameter], secret: str) -> None:
    parsed = parse(REGISTRY, with_secret(*which, f"<{secret}>"))
    assert f"<{secret}>" in parsed.given[which[1].name]
    assert recording.written(parsed) == recording.written(parse(REGISTRY, with_secret(*which, "x")))


@pytest.mark.parametrize("which", SECRETS, ids=lambda which: f"{which[0].name} {which[1].name}")
async def test_no_record_or_export_has_a_planted_secret(
    cloud: Control, which: tuple[Command, Parameter]
) -> None:
    await cloud.run("new --name web")
    line = with_secret(*which, SECRET)
    for each in (line, f"--json {line}", f"--help {line}", f"{line} extra", f"bogus {line}"):
        await tried(cloud, each)
    assert SECRET not in str(await chain(cloud))
    assert SECRET not in await exported(cloud, "audit export --all")


@pytest.mark.parametrize(
    "value",
    [
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "atoll0.eyJhIjoxfQ.c2lnbmF0dXJl",
        "atoll1.abcdefghijklmnopqrstuvwxyz",
        "https://atoll.localhost/login/abcdefghijklmnopqrstuvwxyz",
    ],
)
async def test_what_is_a_secret_by_its_looks_is_kept_nowhere(cloud: Control, value: str) -> None:
    for line in (
        f"ls '{value}'",
        f"pause '{value}'",
        f"new --name '{value}'",
        f"comment '{value}' x",
    ):
        await tried(cloud, line)
    assert value not in str(await chain(cloud))


async def test_the_links_and_tokens_that_are_made_are_not_recorded(cloud: Control) -> None:
    url = (await cloud.data("browser"))["url"]
    token = (await cloud.data("ssh-key generate-api-key --label a"))["token"]
    found = str(await chain(cloud))
    assert url.rpartition("/")[2] not in found
    assert token not in found


# --- who reads what


async def give(cloud: Control, caller: Caller, name: str, result: str = "ok") -> None:
    """Somebody came into a VM."""
    async with cloud.store.read() as tx:
        meant = await rows.meant(tx, [name], [])
    await cloud.cloud.audit.record(
        who=caller.account.email, account=caller.account.id, act="root", door="ssh",
        source="198.51.100.7", what="ssh", vm=name, vm_id=meant[name].id, result=result,
    )  # fmt: skip


async def test_an_owner_sees_who_opened_a_vm_and_strangers_see_nothing(cloud: Control) -> None:
    await cloud.run("new --name web")
    await give(cloud, cloud.bob, "web")
    await give(cloud, cloud.bob, "web", result="unavailable")
    assert await read(cloud, "audit web") == ["new --name=web ok", "ssh ok"]
    assert await read(cloud, "audit --who BOB@example.com") == ["ssh ok"]
    assert await read(cloud, "audit 'w*' --who ann@example.com") == ["new --name=web ok"]
    await tried(cloud, "pause web", cloud.bob)  # which is not his
    assert await read(cloud, "audit", cloud.bob) == [
        "ssh ok",
        "ssh unavailable",
        "pause web not-found",
    ]
    assert await read(cloud, "audit web") == ["new --name=web ok", "ssh ok"]
    assert {r.vm_id for r in await chain(cloud) if r.result != "ok"} == {None}


async def test_an_owner_reads_of_its_own_vms_in_what_took_several(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("new --name hers", cloud.bob)
    parsed = parse(REGISTRY, "stat web hers")
    recorder = cloud.language._recorder
    run = recording.Run(parsed=parsed)
    await cloud.cloud.audit.add(recorder._entries(cloud.bob, "", run, "ok"))
    assert (await read(cloud, "audit web"))[-1] == "stat web ok"
    assert (await read(cloud, "audit hers", cloud.bob))[-1] == "stat web hers ok"


@pytest.mark.parametrize("limit", ["--vm web", "--tag ci"])
async def test_a_limited_key_reads_of_its_vms_alone(cloud: Control, limit: str) -> None:
    await cloud.run("new --name web")
    await cloud.run("rm web")  # another VM of the same name
    for line in ("new --name web --tag ci", "new --name db", f"ssh-key add {limit} '{CI}'"):
        await cloud.run(line)
    await cloud.run("tag web db", replace(cloud.ann, source="198.51.100.7"))
    await give(cloud, cloud.bob, "web")
    caller = await cloud.cloud.caller_for_key(CI, source="192.0.2.9")
    assert caller is not None
    for line in ("audit", "audit web", "audit '*'"):
        entries = (await cloud.data(line, caller))["records"]
        assert [entry["act"] for entry in entries][:2] == [
            "command",
            "grant" if "vm" in limit else "command",
        ]
        assert {*entries[0]} == {"at", "act", "vm_name", "door", "by", "result"}
        assert {entry["vm_name"] for entry in entries} == {"web"}
    for line in ("audit --who bob@example.com", "audit --all", "audit export", "audit verify"):
        with pytest.raises(Denied):
            await cloud.run(line, caller)
    with pytest.raises(NotFound):
        await cloud.run("audit db", caller)


async def test_everybodys_is_for_admins(cloud: Control) -> None:
    await cloud.run("new --name hers", cloud.bob)
    assert await read(cloud, "audit --all") == ["new --name=hers ok"]
    assert await read(cloud, "audit hers --all --who bob@example.com") == ["new --name=hers ok"]
    limited = replace(cloud.ann, scope=Scope(tag="ci"))
    for line, caller in (
        ("audit --all", cloud.bob),
        ("audit --all", limited),
        ("audit export --all", cloud.bob),
        ("audit verify", cloud.bob),
    ):
        with pytest.raises(Denied) as refused:
            await cloud.run(line, caller)
        assert ("--all" in (refused.value.hint or "")) is line.endswith("--all")


async def test_since_and_how_many(cloud: Control) -> None:
    for number in range(22):
        await cloud.run(f"new --name web-{number}x --dry-run")
        cloud.clock.time += 60
    assert len(await read(cloud)) == 20
    assert (await read(cloud, "audit --since 3m"))[0] == "new --dry-run --name=web-19x ok"
    assert len((await cloud.data("audit -n 2"))["records"]) == 2
    for bad in ("audit -n 1001", "audit --since 3y", "audit --since -3m", "audit --act dance"):
        with pytest.raises(Invalid):
            await cloud.run(bad)


async def test_it_goes_on(cloud: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "LOOK_S", 0.0)
    await cloud.run("new --name web")
    reply = await cloud.run("audit web -f -n 0")
    assert reply.more is not None
    async with aclosing(reply.more) as more, deadline(10, "the next piece"):
        await cloud.run("rename web shop")
        await cloud.run("new --name other")
        await give(cloud, cloud.bob, "shop")
        piece = await anext(more)
        assert [entry["what"] for entry in piece.data["records"]] == [
            "audit --last=0 --follow web", "rename web shop", "ssh",
        ]  # fmt: skip
        await give(cloud, cloud.bob, "shop")
        assert len((await anext(more)).data["records"]) == 1


# --- proof


async def exported(cloud: Control, line: str, caller: Caller | None = None) -> str:
    reply = await cloud.run(line, caller)
    assert reply.more is not None
    async with aclosing(reply.more) as more:
        return "\n".join([reply.text, *[piece.text async for piece in more]])


async def test_an_export_has_what_was_recorded(cloud: Control) -> None:
    await cloud.run("new --name web")
    await cloud.run("new --name hers", cloud.bob)
    head, *lines = map(json.loads, (await exported(cloud, "audit export")).splitlines())
    assert head == {"format": "atoll-audit-1", "of": "ann@example.com"}
    assert lines
    assert [line["what"] for line in lines] == ["new --name=web", "audit export"][: len(lines)]
    _, *lines = map(json.loads, (await exported(cloud, "audit export --all")).splitlines())
    assert {line["who"] for line in lines} == {"ann@example.com", "bob@example.com"}
    assert [Record(**line) for line in lines] == list((await chain(cloud))[: len(lines)])
    cloud.clock.time += 3600
    assert len((await exported(cloud, "audit export --since 5m")).splitlines()) <= 2


async def test_verify(cloud: Control) -> None:
    await cloud.run("new --name web")
    first = await cloud.data("audit verify")
    assert (first["verified"], first["first"], first["last"]) == (True, 1, 1)
    assert first["head"] == (await chain(cloud))[0].hash
    await cloud.run("rm web")
    again = await cloud.data(f"audit verify --head {first['head']}")
    assert (again["verified"], again["head_seq"], again["records"]) == (True, 1, 3)
    assert (await cloud.run("audit verify")).text.startswith("verified      yes\nrecords       ")
    wrong = await cloud.run(f"audit verify --head {'0f' * 32}")
    assert (wrong.data["verified"], wrong.exit) == (False, Conflict.exit)
    assert "cut" in wrong.data["problem"]
    with pytest.raises(Invalid):
        await cloud.run("audit verify --head xyz")


async def test_damage_is_named(cloud: Control) -> None:
    for name in ("web-a", "web-b", "web-c"):
        await cloud.run(f"new --name {name}")
    async with cloud.store.begin() as tx:
        await tx.exec_driver_sql("DROP TRIGGER audit_no_update")
        await tx.exec_driver_sql("UPDATE audit SET what = 'ls' WHERE seq = 2")
    found = await cloud.run("audit verify")
    assert (found.data["verified"], found.data["damaged"], found.exit) == (False, 2, Conflict.exit)
    assert "record 2: it is not what its hash was made of" in found.text


async def test_refused_keys_are_counted(cloud: Control) -> None:
    cloud.cloud.key_refused()
    assert (await cloud.data("audit verify"))["refused_keys"] == 1


async def test_asking_is_recorded_alike_whether_there_is_such_a_vm(cloud: Control) -> None:
    await cloud.run("new --name web")
    for name in ("web", "wob"):
        assert await tried(cloud, f"share ask {name}", cloud.bob) == "ok"
    known, unknown = (await chain(cloud))[-2:]
    assert (known.vm, known.owner) == (unknown.vm, unknown.owner)
