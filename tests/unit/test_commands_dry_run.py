"""`--dry-run`: for every verb that changes something it says what, changes nothing, fails alike."""

from __future__ import annotations

import asyncio
import random
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import AtollError, Conflict, Denied, Internal, Invalid
from atoll.commands.dry_run import STEPS, told
from atoll.commands.topics import DRY_RUN
from atoll.commands.verbs import REGISTRY
from atoll.config import Config, Domains, Vms
from atoll.domain.account import Scope
from atoll.domain.operation import OpKind
from atoll.domain.team import INVITED_S, Invitation, Role, Team
from atoll.rpc.messages import GIB, Outcome, Pause, Restart, Stop, VmState
from atoll.services.rehearsal import QUESTIONS, RehearsalEngine, RehearsalStore, Rehearsed
from atoll.store import operations, passkeys, sessions, teams, vms
from atoll.store.passkeys import Passkey
from atoll.store.schema import accounts, metadata, ssh_keys
from atoll.store.schema import vms as vms_table
from fakes.engine import FakeEngine
from framework.cloud import ANN, START, Control, control
from framework.dns_server import dns_server
from framework.signing import SshKeyFile

CI_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHmJGHFXyGmpRGkQ4Lf3vUQnZ1a3kPv1rm0t8xrJmSDD ci"
NEW_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFVHoCz8iWzdRSjMvSv9mH8bX7cF0oLhWmPPVnTt9Abc two"

# Verb -> lines that work in the cloud below, with what a dry run of them says.
WORKS: dict[str, dict[str, str]] = {
    "new": {
        "new --name n --tag a": "would make n: debian, 1 vCPU, 1G memory, 25G disk,"
        " with a setup script",
        "new --cpu 2 --disk 3G": "would make a VM with a name of two random words:"
        " debian, 2 vCPU, 1G memory, 3G disk, with a setup script\n"
        "no warm template of this size yet: this one boots, which takes longer",
        "new --name n --env A=1 --setup-script ''": "would make n: debian, 1 vCPU, 1G memory, 25G disk",
    },
    "cp": {
        "cp web n --memory 2G": "would copy web to n: debian, 1 vCPU, 2G memory, 25G disk\n"
        "another size: the copy is of the disk alone, and boots",
        "cp db": "would copy db to a VM with a name of two random words:"
        " debian, 1 vCPU, 1G memory, 25G disk",
        "cp web@old n": "would copy web@old to n: debian, 1 vCPU, 1G memory, 25G disk\n"
        "a snapshot without memory: the copy boots",
    },
    "rm": {"rm web db": "would remove web\nwould remove db"},
    "undo": {"undo": "would bring old back: running"},
    "rename": {
        "rename web n": "would rename web to n\nwould tell n its name and keys",
        "rename db n": "would rename db to n",
    },
    "tag": {
        "tag web a b": "would change web: tags a, b, prod",
        "tag -d web prod": "would change web: tags none",
        "tag web": "nothing would change",
        "tag web prod": "nothing would change",
    },
    "comment": {"comment web hi there": "would change web: comment hi there"},
    "pause": {
        "pause web": "would pause web: its memory goes to disk",
        "pause db": "nothing would change",
    },
    "resume": {"resume db": "would let db run", "resume web": "nothing would change"},
    "restart": {"restart web": "would restart web", "restart off": "would let off run"},
    "resize": {
        "resize web --disk 30 --cpu 1": "would resize web: 30G disk",
        "resize db --cpu 2 --memory 2G": "would resize db: 2 vCPU, 2G memory",
        "resize web --memory 1": "nothing would change",
    },
    "snap": {
        "snap web n": "would keep the disk of web as n",
        "snap db": "would keep the disk of db as 20270115-080000",
    },
    "snap rm": {"snap rm web old": "would remove snapshot old of web"},
    "snap history": {
        "snap history web off": "would change web: history off",
        "snap history web 1h:1d,30m:2h": "would change web: history 30m:2h,1h:1d",
        "snap history web default": "nothing would change",
        "snap history web": "nothing would change",
    },
    "rollback": {
        "rollback web": "would roll web back to old, and keep what it is now as"
        " before-20270115-080000",
        "rollback web old": "would roll web back to old, and keep what it is now as"
        " before-20270115-080000",
    },
    "share port": {
        "share port web 3000": "would change web: port 3000",
        "share port web 8000": "would change web: port 8000",  # it stays that from now on
        "share port web": "nothing would change",
    },
    "share set-public": {
        "share set-public web": "would let everybody open web",
        "share set-public web --port 3000 --path /a": "would let everybody open web, port 3000 below /a",
    },
    "share set-private": {
        "share set-private open": "would take open from everybody",
        "share set-private web": "nothing would change",
    },
    "share add": {
        "share add web bob@example.com": "would let bob@example.com open web",
        "share add web bob@example.com --root": "would let bob@example.com open web as root\n"
        "would tell web its name and keys",
        "share add web x@y.z --path /a": "would let x@y.z open web below /a",
    },
    "share remove": {"share remove open eve@example.com": "would take open from eve@example.com"},
    "share add-link": {
        "share add-link web --port 3000": "would make a share link to web, port 3000"
    },
    "share ask": {"share ask hers": "would ask for hers", "share ask nope": "would ask for nope"},
    "domain add": {
        "domain add web Shop.example.com": "would let shop.example.com lead to web",
    },
    "domain rm": {
        "domain rm db old.example.com": "would let old.example.com lead to db no more",
    },
    "ssh-key add": {
        f"ssh-key add --vm db {shlex.quote(NEW_KEY)}": "would add key two"
        " SHA256:jqTwFh61Y1MLJjLtv0lYtsGgPQzJn6bnHtEZuvyxlZs for db only\n"
        "would tell open its name and keys\nwould tell web its name and keys"
    },
    "ssh-key remove": {
        "ssh-key remove ci": "would remove key ci"
        " SHA256:dLfUS5I1Gf+JMJy8iK4iYt+ozVdpx6QCiEqSV1LWg2s\n"
        "would tell open its name and keys\nwould tell web its name and keys",
        "ssh-key remove robot": "would remove API token robot",
    },
    "ssh-key generate-api-key": {
        "ssh-key generate-api-key --label n --vm web --cmds ls,stat": "would make API token n"
        " for web only for: ls, stat"
    },
    "ssh-key rename": {
        "ssh-key rename ci cd": "would rename key ci to cd",
        "ssh-key rename robot r2": "would rename API token robot to r2",
    },
    "browser": {"browser": "would make a sign-in link"},
    "defaults write": {
        "defaults write atoll new.setup-script 'echo 1'": "would set the default new.setup-script",
        "defaults write dev.exe new.setup-script true": "nothing would change",
    },
    "defaults delete": {
        "defaults delete atoll new.setup-script": "would remove the default new.setup-script"
    },
    "transfer": {
        "transfer web bob@example.com": "would give web to bob@example.com\n"
        "would tell web its name and keys",
        "transfer db bob@example.com": "would give db to bob@example.com\n"
        "would let old.example.com lead to db no more",
    },
    "team new": {"team new x": "would make team x"},
    "team join": {"team join guild": "would join team guild: admin"},
    "team leave": {
        "team leave club": "would leave team club",
        "team leave guild": "would decline the invitation to team guild",
    },
    "team rename": {
        "team rename y --team crew": "would rename team crew to y",
        "team rename crew --team crew": "nothing would change",
    },
    "team disable": {"team disable crew --yes": "would end team crew"},
    "team add": {
        "team add x@y --role admin --team crew": "would invite x@y to team crew: admin",
        "team add cat@example.com --team crew": "nothing would change",
    },
    "team remove": {
        "team remove bob@example.com --team crew": "would remove bob@example.com from team crew",
        "team remove bob@example.com --team crew --transfer-vms-to ann@example.com": "would remove"
        " bob@example.com from team crew\nwould give hers to ann@example.com",
        "team remove cat@example.com --team crew": "would take back the invitation of"
        " cat@example.com to team crew",
    },
    "team role": {
        "team role bob@example.com admin --team crew": "would make bob@example.com in team crew:"
        " admin",
        "team role bob@example.com member --team crew": "nothing would change",
    },
    "passkey rm": {"passkey rm phone": "would remove passkey phone"},
    "session rm": {
        "session rm aaaa": "would sign browser aaaaaaaaaaaa out",
        "session rm --all": "would sign browser aaaaaaaaaaaa out\nwould sign browser bbbbbbbbbbbb out",
        "session rm --others": "would sign browser aaaaaaaaaaaa out\n"
        "would sign browser bbbbbbbbbbbb out",
    },
    "invite": {
        "invite Eve@example.com --message hi": "would invite eve@example.com by mail",
        "invite dan@example.com --message again": "would invite dan@example.com by mail",
    },
    "invite rm": {"invite rm dan@example.com": "would take the invitation of dan@example.com back"},
}

FAILS = {
    "new": (
        "new --name UP",
        "new --name web",
        "new --image x",
        "new --memory 99G",
        "new --cpu 0",
        "new --setup-script -",
        "new --env 1=2",
    ),
    "cp": (
        "cp nope",
        "cp web@nope",
        "cp web db",
        "cp web UP",
        "cp web n --disk 1G",
        "cp web n --memory 99G",
    ),
    "rm": ("rm nope", "rm hers", "rm nope hers"),
    "undo": (),  # of bob, below
    "rename": ("rename nope n", "rename web db", "rename web UP", "rename hers n"),
    "tag": ("tag nope a", "tag web BAD"),
    "comment": ("comment nope x", f"comment web {'x' * 201}"),
    "pause": ("pause nope", "pause off"),
    "resume": ("resume nope",),
    "restart": ("restart nope", "restart db"),
    "resize": (
        "resize nope --cpu 2",
        "resize web",
        "resize web --disk 1",
        "resize web --memory 99",
    ),
    "snap": ("snap nope", "snap web UP", "snap web old", "snap hers"),
    "snap rm": ("snap rm web nope", "snap rm nope old"),
    "snap history": ("snap history web on", "snap history nope", "snap history nope off"),
    "rollback": ("rollback web nope", "rollback db", "rollback nope"),
    "share port": ("share port nope 1", "share port web 0"),
    "share set-public": ("share set-public nope", "share set-public web --port 22"),
    "share add": ("share add nope x@y.z", "share add web ann@example.com", "share add web x"),
    "share remove": ("share remove web x@y.z", "share remove nope x@y.z"),
    "share add-link": ("share add-link nope", "share add-link web --for x"),
    "share ask": ("share ask UP",),
    "share set-private": ("share set-private hers",),
    "domain add": (
        "domain add nope a.example.com",
        "domain add web x.atoll.localhost",
        "domain add web old.example.com",
        "domain add web 192.0.2.1",
        "domain add web example.com --wildcard",
    ),
    "domain rm": ("domain rm web old.example.com", "domain rm nope old.example.com"),
    "ssh-key add": (f"ssh-key add '{ANN}'", "ssh-key add x", f"ssh-key add --vm nope '{NEW_KEY}'"),
    "ssh-key remove": ("ssh-key remove nope",),
    "ssh-key generate-api-key": (
        "ssh-key generate-api-key --label robot",
        "ssh-key generate-api-key --vm nope",
        "ssh-key generate-api-key --cmds nope",
    ),
    "ssh-key rename": ("ssh-key rename nope x", "ssh-key rename ci laptop"),
    "browser": (),
    "defaults write": (
        "defaults write nope new.setup-script x",
        "defaults write atoll nope x",
        "defaults write atoll new.setup-script ''",
        "defaults write atoll new.setup-script -",
    ),
    "defaults delete": ("defaults delete atoll nope", "defaults delete nope new.setup-script"),
    "transfer": (
        "transfer nope bob@example.com",
        "transfer web x@y",
        "transfer web ann@example.com",
    ),
    "team new": ("team new crew", "team new UP"),
    "team join": ("team join", "team join crew"),
    "team leave": ("team leave", "team leave crew"),
    "team rename": ("team rename x", "team rename guild --team crew", "team rename x --team club"),
    "team disable": ("team disable crew", "team disable club --yes"),
    "team add": ("team add x@y", "team add bob@example.com --team crew"),
    "team remove": (
        "team remove x@y --team crew",
        "team remove bob@example.com --team club",
        "team remove bob@example.com --team crew --transfer-vms-to x@y",
        "team remove bob@example.com --team crew --transfer-vms-to bob@example.com",
    ),
    "team role": (
        "team role x@y admin --team crew",
        "team role ann@example.com member --team crew",
        "team role ann@example.com owner --team club",
    ),
    "passkey rm": ("passkey rm nope",),
    "session rm": ("session rm nope", "session rm", "session rm aaaa --all", "session rm aaa"),
    "invite": ("invite bob@example.com", "invite nope", f"invite e@x --message {'x' * 2001}"),
    "invite rm": ("invite rm eve@example.com", "invite rm nope"),
}
# Their arguments have to be signed, or made; their tests are below.
OF_ITS_OWN = {"ssh-key shorten", "share accept", "share remove-link"}


@asynccontextmanager
async def _control(folder: Path, engine: FakeEngine) -> AsyncIterator[Control]:
    """With a DNS server that knows no name."""
    async with dns_server() as zone:
        config = Config(domains=Domains(resolvers=(zone.address,)))
        async with control(folder, engine, config=config) as made:
            yield made


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), _control(tmp_path / "control", engine) as made:
        for name in ("web --tag prod", "db", "off", "open", "old"):
            await made.run(f"new --name {name}")
        for line in (
            "pause db",
            "share set-public open",
            "share add open eve@example.com",
            "rm old",
            f"ssh-key add '{CI_KEY}'",
            "snap web old",
        ):
            await made.run(line)
        await made.run("ssh-key generate-api-key --label robot")
        await made.run("domain add db old.example.com")
        await made.run("defaults write atoll new.setup-script true")
        await made.run("new --name hers", made.bob)
        await _teams(made)
        await made.run("invite dan@example.com")
        await _signed_in(made, "a" * 64, "b" * 64)
        async with made.store.begin() as tx:
            phone = Passkey(
                id="x", account=made.ann.account.id, name="phone", public_key=b"",
                sign_count=0, created_at=0.0,
            )  # fmt: skip
            await passkeys.add(tx, phone)
        engine._put(_id(made, "off"), state=VmState.STOPPED, address=None, pid=None)
        await made.cloud.journal.resume()  # VMs are told of the key
        engine.asked.clear()
        yield made


async def _teams(cloud: Control) -> None:
    """Ann's crew, with bob and an invitation; his club, with her; his guild and order, which invite."""
    ann, bob = cloud.ann.account, cloud.bob.account
    async with cloud.store.begin() as tx:
        for name, founder, member in (
            ("crew", ann, bob), ("club", bob, ann), ("guild", bob, None), ("order", bob, None),
        ):  # fmt: skip
            await teams.add(tx, Team(id=f"team-{name}", name=name, created_at=START))
            await teams.put(tx, f"team-{name}", founder.id, Role.OWNER, now=START)
            if member is not None:
                await teams.put(tx, f"team-{name}", member.id, Role.MEMBER, now=START)
        for name, by, email, role in (
            ("crew", ann, "cat@example.com", Role.MEMBER),
            ("guild", bob, ann.email, Role.ADMIN),
            ("order", bob, ann.email, Role.MEMBER),
        ):
            invitation = Invitation(
                team=f"team-{name}", email=email, role=role, invited_by=by.id, created_at=START,
                expires_at=START + INVITED_S,
            )  # fmt: skip
            await teams.invite(tx, invitation)


async def _signed_in(cloud: Control, *hashes: str) -> None:
    end, account = cloud.clock() + 3600, cloud.ann.account.id
    async with cloud.store.begin() as tx:
        for hash_ in hashes:
            await sessions.add_session(
                tx, hash_=hash_, account=account, now=0.0, expires_at=end, user_agent=""
            )


def _id(cloud: Control, name: str) -> str:
    return next(vm for vm, it in cloud.engine.identities.items() if it.hostname == name)


async def everything(cloud: Control) -> Any:
    """All that lasts: every row of every table, the engine's VMs, what the edge is told.

    The audit is no part of it: that somebody looked is written down as well.
    """
    async with cloud.store.read() as tx:
        rows = {
            table.name: [tuple(row) for row in await tx.execute(select(table))]
            for table in metadata.sorted_tables
            if table.name != "audit"
        }
    engine = cloud.engine
    return rows, dict(engine.vms), dict(engine.identities), cloud.cloud.changes.version


async def outcome(cloud: Control, line: str, **who: Any) -> Any:
    """What is said of a line, without what differs between two runs."""
    try:
        reply = await cloud.run(line, **who)
    except AtollError as error:
        return type(error), str(error), error.fields
    return (reply.exit, reply.data, reply.text) if reply.exit else "it works"


def test_every_verb_that_changes_something_is_tried() -> None:
    changing = {command.name for command in REGISTRY if command.mutates}
    assert WORKS.keys() == FAILS.keys() == changing - OF_ITS_OWN


async def test_a_share_link(cloud: Control) -> None:
    link = (await cloud.data("share add-link web --path /a"))["token"]
    before = await everything(cloud)
    for line, who, said in (
        (f"share accept {link}", cloud.bob, "would let you open web below /a"),
        (f"share accept {link}", cloud.ann, "nothing would change"),  # it is hers
        (f"share remove-link web {link}", cloud.ann, "would end a share link to web below /a"),
    ):
        assert (await cloud.run(f"{line} --dry-run", who)).text == said
    assert await everything(cloud) == before
    for line in ("share accept x", "share remove-link web link-0", "share remove-link nope x"):
        assert await outcome(cloud, f"{line} --dry-run") == await outcome(cloud, line)


async def test_a_signed_token(cloud: Control, tmp_path: Path) -> None:
    signer = SshKeyFile.new(tmp_path, "signer")
    await cloud.run(f"ssh-key add --tag prod '{signer.line}'")
    line = f"ssh-key shorten --label s {signer.token()} --dry-run"
    before = await everything(cloud)
    said = (await cloud.run(line)).text
    assert said.startswith("would make API token s for VMs tagged prod only for: ")
    assert await everything(cloud) == before
    with pytest.raises(Denied):
        await cloud.run(line, cloud.bob)
    assert await everything(cloud) == before


@pytest.mark.parametrize("line", [line for lines in WORKS.values() for line in lines])
async def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    cloud: Control, line: str
) -> None:
    before = await everything(cloud)
    said = {line: text for lines in WORKS.values() for line, text in lines.items()}[line]
    reply = await cloud.run(f"{line} --dry-run")
    assert (reply.text, reply.exit) == (said, 0)
    assert reply.data["dry_run"] is True
    assert bool(reply.data["would"]) == (said != "nothing would change")
    assert await everything(cloud) == before
    assert all(isinstance(request, QUESTIONS) for request in cloud.engine.asked)
    # The act itself works, and is what was foretold: it changes something or it does not.
    assert await outcome(cloud, line) == "it works"
    changed = _without_bookkeeping(await everything(cloud)) != _without_bookkeeping(before)
    assert changed == bool(reply.data["would"])


def _without_bookkeeping(state: Any) -> Any:
    rows, *rest = state
    kept = {
        name: sorted(table, key=repr)  # tags that are set again come in another order
        for name, table in rows.items()
        if name not in ("events", "vms")
    }
    # the last column of `vms` counts writes, whatever they wrote
    return kept, [row[:-1] for row in rows["vms"]], rest[:2]


@pytest.mark.parametrize("line", [line for lines in FAILS.values() for line in lines])
async def test_a_dry_run_of_the_impossible_fails_as_the_act_does(cloud: Control, line: str) -> None:
    before = await everything(cloud)
    dry = await outcome(cloud, f"--dry-run {line}")
    assert dry != "it works"
    assert await everything(cloud) == before
    assert await outcome(cloud, line) == dry


async def test_nothing_to_undo_and_a_last_key_fail_alike(cloud: Control) -> None:
    for line in ("undo", "ssh-key remove laptop"):
        dry = await outcome(cloud, f"{line} --dry-run", caller=cloud.bob)
        assert dry != "it works"
        assert await outcome(cloud, line, caller=cloud.bob) == dry


async def test_limits_and_scopes_count_in_a_dry_run(tmp_path: Path, cloud: Control) -> None:
    scoped = replace(cloud.ann, scope=Scope(cmds=frozenset(["rm web", "pause"])))
    await cloud.run("rm web --dry-run", scoped)
    for line in ("rm db --dry-run", "rm web db --dry-run", "new --dry-run"):
        with pytest.raises(Denied):
            await cloud.run(line, scoped)
    engine = FakeEngine(tmp_path / "other.sock")
    config = Config(vms=Vms(max_vms=1))
    async with engine.serving(), control(tmp_path / "c", engine, config=config) as small:
        await small.run("new --dry-run")
        await small.run("new")
        assert await outcome(small, "new --dry-run") == await outcome(small, "new") != "it works"


async def test_the_json_names_every_value(cloud: Control) -> None:
    assert await cloud.data("new --memory 2G --comment hi --tag b,a --dry-run") == {
        "dry_run": True,
        "would": [
            {
                "do": "create",
                "vm_name": None,
                "image": "debian",
                "cpus": 1,
                "memory_bytes": 2 * GIB,
                "disk_bytes": 25 * GIB,
                "tags": ["a", "b"],
                "comment": "hi",
                "setup_script": True,
            }
        ],
        "notes": ["no warm template of this size yet: this one boots, which takes longer"],
    }
    step = (await cloud.data("new --setup-script secret --env B=secret --env A= --dry-run"))[
        "would"
    ][0]
    assert (step["setup_script"], step["env"]) == (True, ["A", "B"])
    assert await cloud.data("cp web n --dry-run --copy-tags=false --json") == {
        "dry_run": True,
        "would": [
            {
                "do": "copy",
                "vm_name": "n",
                "image": "debian",
                "cpus": 1,
                "memory_bytes": GIB,
                "disk_bytes": 25 * GIB,
                "tags": [],
                "comment": "",
                "source": "web",
            }
        ],
    }
    assert await cloud.data("tag web a --dry-run") == {
        "dry_run": True,
        "would": [
            {"do": "set", "vm_name": "web", "tags": ["a", "prod"], "was": {"tags": ["prod"]}}
        ],
    }
    assert cloud.progress == [] or "template" not in cloud.progress[-1]  # said in the reply instead


async def test_rm_of_some_that_are_there_and_some_that_are_not(cloud: Control) -> None:
    before = await everything(cloud)
    reply = await cloud.run("rm web zzz --dry-run")
    assert reply.text == 'would remove web\nVM "zzz" not found. Try: ls'
    assert reply.data == {
        "dry_run": True,
        "would": [{"do": "remove", "vm_name": "web"}],
        "errors": {"zzz": 'VM "zzz" not found'},
    }
    assert await everything(cloud) == before
    assert reply.exit == (await cloud.run("rm web zzz")).exit != 0


async def test_undo_under_another_name(cloud: Control) -> None:
    await cloud.run("new --name old", cloud.bob)
    reply = await cloud.run("undo --dry-run")
    assert reply.text == ("would bring old back under another name, as that one is taken: running")
    assert reply.data["would"][0]["vm_name"] is None


async def test_a_dry_run_ends_no_session_and_shows_no_secret(cloud: Control) -> None:
    ended: list[object] = []
    cloud.cloud.accounts.when_key_ends(ended.append)
    await cloud.run("ssh-key remove ci --dry-run")
    assert ended == []
    for line in ("ssh-key generate-api-key", "browser"):
        reply = await cloud.run(f"{line} --dry-run")
        assert "token" not in reply.data["would"][0]
        assert "login" not in reply.text


def test_every_step_is_on_the_page_about_dry_runs() -> None:
    assert [do for do in STEPS if f"`{do}`" not in DRY_RUN.body] == []


async def test_verbs_that_change_nothing_have_no_dry_run(cloud: Control) -> None:
    for command in REGISTRY:
        if not command.mutates:
            with pytest.raises(Invalid, match="changes nothing, so it has no dry run"):
                await cloud.run(f"--dry-run {command.examples[0]}")
    assert (await cloud.run("ls --dry-run --help")).text.startswith("List your VMs")
    route = await cloud.run("ssh web ls --dry-run")  # that flag is the command's in the VM
    assert route.command == "ls --dry-run"


async def test_a_dry_run_waits_for_a_change_under_way_like_the_act(cloud: Control) -> None:
    gate = cloud.engine.hold[Restart] = asyncio.Event()
    async with TaskGroup() as group:
        group.create_task(cloud.run("restart web"))

        async def is_asked() -> bool | None:
            return any(isinstance(request, Restart) for request in cloud.engine.asked) or None

        await poll(is_asked, seconds=10, what="the restart", every=0.005)
        waiting = group.create_task(cloud.run("pause web --dry-run"))
        gate.set()
        assert (await waiting).text == "would pause web: its memory goes to disk"
    assert not any(isinstance(request, Pause) for request in cloud.engine.asked)


async def test_a_dry_run_leaves_what_is_unfinished(cloud: Control) -> None:
    async with cloud.store.begin() as tx:
        web, off = [await vms.get(tx, _id(cloud, name)) for name in ("web", "off")]
        assert web is not None
        assert off is not None
        await cloud.cloud.journal.intend(tx, OpKind.PAUSE, web, act="act-x")
        await cloud.cloud.journal.intend(tx, OpKind.IDENTIFY, off, act="act-x")
    before = await everything(cloud)
    with pytest.raises(Conflict, match="an earlier `pause` is not finished"):
        await cloud.run("restart web --dry-run")
    assert (await cloud.run("resume off --dry-run")).text == "would let off run"
    assert await everything(cloud) == before
    async with cloud.store.read() as tx:
        assert len(await operations.unfinished(tx)) == 2


async def test_a_key_that_is_called_otherwise(cloud: Control) -> None:
    store = RehearsalStore(cloud.store, account=cloud.ann.account.id)
    is_ci = ssh_keys.c.name == "ci"
    with pytest.raises(Rehearsed) as ended:
        async with store.begin() as tx:
            await tx.execute(update(ssh_keys).where(is_ci).values(name="bot"))
    assert [told(step) for step in ended.value.steps] == ["rename key ci to bot"]


async def test_a_verb_that_forgets_everything_is_stopped_all_the_same(cloud: Control) -> None:
    engine = RehearsalEngine(cloud.cloud._engine)
    change = Stop(op="op-000000000000", vm=_id(cloud, "web"))
    with pytest.raises(Internal, match="asked the engine for Stop"):
        await engine.call(change, Outcome, seconds=1)
    store = RehearsalStore(cloud.store, account=cloud.ann.account.id)
    before = await everything(cloud)
    row = {"id": "acct-x", "email": "x@y", "is_admin": True, "created_at": 0, "generation": 0}
    with pytest.raises(Internal, match="does not know the table accounts"):
        async with store.begin() as tx:
            await tx.execute(insert(accounts).values(row))
    with pytest.raises(Internal, match="no word for what this changes"):
        async with store.begin() as tx:
            await tx.execute(update(vms_table).values(cpus=64, generation=9))
    with pytest.raises(Internal):
        await store.migrate()
    await store.close()
    assert await everything(cloud) == before
    assert (await cloud.run("ls")).text  # the real store is still open


NAMES = ("web", "db", "off", "open", "old", "n1", "n2", "hers", "UP", "web*", "o*", "*", "z*")
SHAPES = (
    "new --name {a}",
    "new --name {a} --memory {size} --disk {size} --cpu {number} --tag t{number}",
    "cp {a} {b}",
    "cp {a} {b} --disk {size} --memory {size}",
    "rm {a}",
    "rm {a} {b}",
    "rm {a} --all",
    "undo",
    "rename {a} {b}",
    "tag {a} t{number} prod",
    "tag -d {a} prod t{number}",
    "comment {a} note {number}",
    "pause {a} {b}",
    "pause {a}",
    "resume {a}",
    "resume {b} {a}",
    "restart {a}",
    "share port {a} {number}",
    "share set-public {a}",
    "share set-private {a}",
    "share set-public {a} --port {number} --path /{b}",
    "share add {a} eve@example.com",
    "share add {a} eve@example.com --root --for 2h",
    "share remove {a} eve@example.com",
    "share remove {a} eve@example.com --root",
    "share add-link {a}",
    "share ask {b}",
    "ssh-key add --name k{number} --vm {a} {key}",
    "ssh-key remove k{number}",
    "ssh-key generate-api-key --label k{number} --vm {a}",
)


@pytest.mark.parametrize("seed", range(6))
async def test_any_line_at_any_time_does_what_its_dry_run_said(cloud: Control, seed: int) -> None:
    chance = random.Random(seed)
    foretold = 0
    for _ in range(60):
        line = chance.choice(SHAPES).format(
            a=shlex.quote(chance.choice(NAMES)),
            b=shlex.quote(chance.choice(NAMES)),
            size=chance.choice(("512M", "1G", "2G", "26G", "99G", "0", "x")),
            number=chance.choice((0, 1, 3, 65, 3000)),
            key=shlex.quote(NEW_KEY),
        )
        before = await everything(cloud)
        dry = await outcome(cloud, f"{line} --dry-run")
        assert await everything(cloud) == before, line
        would = []
        if dry == "it works":
            would = (await cloud.data(f"{line} --dry-run"))["would"]
        act = await outcome(cloud, line)
        await cloud.cloud.journal.resume()  # what it left to be told in the background
        changed = _without_bookkeeping(await everything(cloud)) != _without_bookkeeping(before)
        assert (dry == "it works") == (act == "it works"), line
        if dry == "it works":
            assert changed == bool(would), line
        elif isinstance(dry[0], type):  # one error, and nothing done
            assert (act, changed) == (dry, False), line
        else:  # some VMs could not be changed: both say the same of them
            assert (act[0], act[1]["errors"]) == (dry[0], dry[1]["errors"]), line
        foretold += bool(would)
    assert foretold
