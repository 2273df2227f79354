"""The reference product's Python client, unchanged, against a live cloud with real VMs.

Every public method is called, in both kinds of client: what works is used as its documentation says,
what Atoll has not got must be refused in words. `docs/sdk.md` is the table of both, and is checked.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import exedev
import pytest
import pytest_asyncio

from atoll.base.aio import poll
from atoll.base.proc import run
from framework.atoll import Atoll
from framework.friend import friend
from framework.sdk import Kind, Sdk, arguments_for, methods, options_for, sdk

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

PAGE = Path(__file__).parents[2] / "docs" / "sdk.md"
COMMANDS = (
    "ls,new,cp,rm,restart,rename,pause,resume,resize,tag,comment,stat,ssh,whoami,browser,doc,"
    "billing usage,share show,share port,share set-public,share set-private,share add,share remove,"
    "share add-link,share remove-link,domain ls,domain add,domain rm,invite,"
    "ssh-key list,ssh-key add,ssh-key remove,ssh-key rename,ssh-key generate-api-key,transfer,"
    "team ls,team members,team usage,team add,team remove,team role,team rename,team disable"
)
MB = 1_000_000


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["sync", "async"])
async def here(request: pytest.FixtureRequest, atoll: Atoll) -> AsyncIterator[Sdk]:
    kind: Kind = request.param
    made = await atoll.command(f"ssh-key generate-api-key --label sdk-{kind} --cmds '{COMMANDS}'")
    async with sdk(atoll, kind, made["token"]) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def vm(here: Sdk) -> AsyncIterator[Any]:
    """One VM for the whole module, as the client makes it."""
    made = await here.do(here.client, "new", name=f"sdk-{here.kind}", tags=["ci"], comment="of sdk")
    yield made
    await here.do(made, "delete")


async def refused(here: Sdk, error: type[Exception], thing: Any, method: str, *args: Any) -> str:
    """The message of the error that a call must end with."""
    with pytest.raises(error) as caught:
        await here.do(thing, method, *args)
    return str(caught.value)


async def test_a_new_vm_is_deleted_at_the_end_of_its_block(here: Sdk) -> None:
    made = await here.do(here.client, "new", wait_until="created")
    async with here.within(made) as vm:
        await here.do(vm, "wait_until_ready", timeout=60)
        assert vm.status == "running"
        assert (await here.do(vm, "run", "whoami", check=True)).stdout == "atoll\n"
        assert (await here.do(here.client, "vm", vm.name)).name == vm.name
    await refused(here, exedev.NotFoundError, here.client, "vm", made.name)
    await refused(here, exedev.NotFoundError, made, "run", "true")


async def test_what_is_known_of_a_vm(here: Sdk, vm: Any) -> None:
    await here.do(vm, "refresh")
    assert vm.name == f"sdk-{here.kind}"
    assert (vm.status, vm.tags, vm.comment, vm.egress) == ("running", ("ci",), "of sdk", "all")
    assert vm.created_at is not None
    assert vm.region
    assert vm.ssh_dest.startswith(f"{vm.name}@")
    assert re.fullmatch(rf"https://{vm.name}\.[a-z.]+:\d+/", await here.do(vm, "url"))
    listed = await here.do(here.client, "vms", "sdk-*")
    assert vm.name in [each.name for each in listed]
    assert await here.do(here.client, "vms", "nothing-*") == []


async def test_run(here: Sdk, vm: Any) -> None:
    done = await here.do(vm, "run", 'echo "$WHO in $PWD"; echo oops >&2; exit 3',
                         cwd="/var/tmp", env={"WHO": "it's me"})  # fmt: skip
    assert (done.exit_code, done.stdout, done.stderr) == (3, "it's me in /var/tmp\n", "oops\n")
    assert not done.ok
    words = ["printf", "%s|", "a b", "'", "$HOME", "*", ""]
    assert (await here.do(vm, "run", words)).stdout == "a b|'|$HOME|*||"
    with pytest.raises(exedev.CommandError):
        await here.do(vm, "run", "exit 7", check=True)
    lines: list[str] = []
    await here.do(vm, "run", "seq 3", on_stdout=lines.append)
    assert lines == ["1", "2", "3"]
    assert (await here.do(vm, "run", "kill -TERM $$")).exit_code == 128 + signal.SIGTERM
    long = "x" * 80_000  # more than one request holds
    assert (await here.do(vm, "run", f"printf {long} | wc -c")).stdout == "80000\n"


async def test_large_output(here: Sdk, vm: Any) -> None:
    done = await here.do(vm, "run", "head -c 6000000 /dev/zero | tr '\\0' a", check=True)
    assert hashlib.sha256(done.stdout_bytes).digest() == hashlib.sha256(b"a" * 6 * MB).digest()
    with pytest.raises(exedev.OutputLimitError):
        await here.do(vm, "run", "yes", max_output=MB)


async def test_a_command_that_is_given_up_ends(here: Sdk, vm: Any) -> None:
    with pytest.raises(exedev.CommandTimeoutError):
        await here.do(vm, "run", "sleep 4321", timeout=5)
    gone = "for i in $(seq 50); do pgrep -f 'sleep 432[1]' || exit 0; sleep 0.2; done; exit 1"
    assert (await here.do(vm, "run", gone)).exit_code == 0


async def test_spawned_processes(here: Sdk, vm: Any) -> None:
    script = "echo out; echo err >&2; trap 'echo hup; exit 5' HUP; while :; do sleep 0.1; done"
    made = await here.do(vm, "spawn", script, name="loop")
    assert made.pid > 1
    assert await here.do(made, "poll") is None
    with pytest.raises(exedev.ExeError, match="already running"):
        await here.do(vm, "spawn", "true", name="loop")
    with pytest.raises(TimeoutError):
        await here.do(made, "wait", timeout=3)
    again = await here.do(vm, "process", "loop")
    assert again.pid == made.pid
    await here.do(made, "send_signal", "HUP")
    done = await here.do(made, "wait", timeout=60)
    assert done.exit_code == 5
    logs = await here.do(again, "logs")
    assert logs.stdout.split() == ["out", "hup"]
    assert logs.stderr.startswith("err\n")  # then the shell tells of its child's end
    assert (await here.do(again, "logs", tail=1)).stdout == "hup\n"
    assert "loop" in [each.name for each in await here.do(vm, "processes")]
    for name, ending in (("terminate", signal.SIGTERM), ("kill", signal.SIGKILL)):
        started = await here.do(vm, "spawn", ["sleep", "600"])
        await here.do(started, name)
        assert (await here.do(started, "wait", timeout=60)).exit_code == 128 + ending
    async with here.within(await here.do(vm, "spawn", "sleep 600")) as started:
        pass
    assert (await here.do(started, "wait", timeout=60)).exit_code == 128 + signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        await here.do(vm, "process", "nobody")


async def test_files(here: Sdk, vm: Any, tmp_path: Path) -> None:
    every_byte = bytes(range(256)) * 40
    await here.do(vm, "write_file", "deep/er/data.bin", every_byte, mode=0o640)
    assert await here.do(vm, "read_file", "deep/er/data.bin") == every_byte
    assert (await here.do(vm, "run", "stat -c %a deep/er/data.bin")).stdout == "640\n"
    with pytest.raises(FileNotFoundError):
        await here.do(vm, "read_file", "/nowhere")
    with pytest.raises(IsADirectoryError):
        await here.do(vm, "read_file", "/etc")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "data").write_bytes(os.urandom(300_000))  # in several parts
    (tree / "skip.pyc").write_bytes(b"")
    await here.do(vm, "upload", tree, "copied", exclude=["*.pyc"])
    await here.do(vm, "download", "copied/sub/data", tmp_path / "data")
    assert (tmp_path / "data").read_bytes() == (tree / "sub/data").read_bytes()
    assert (await here.do(vm, "run", "ls copied")).stdout == "sub\n"
    if sys.version_info >= (3, 11, 4):
        await here.do(vm, "download", "copied", tmp_path / "back")
        assert (tmp_path / "back/sub/data").read_bytes() == (tree / "sub/data").read_bytes()
    else:  # the client itself does not unpack directories on a Python as old as Debian 12's
        with pytest.raises(exedev.ExeError, match=r"needs Python 3\.11\.4"):
            await here.do(vm, "download", "copied", tmp_path / "back")


async def test_200_mb_there_and_back(here: Sdk, vm: Any, tmp_path: Path) -> None:
    """Of data that packs well: parts of 63 kB of noise would be four thousand logins."""
    block = os.urandom(16_000)
    data = block * (200 * MB // len(block))
    source, back = tmp_path / "large", tmp_path / "back"
    source.write_bytes(data)
    await here.do(vm, "upload", source, "large")
    said = (await here.do(vm, "run", "sha256sum large", timeout=300)).stdout.split()[0]
    assert said == hashlib.sha256(data).hexdigest()
    await here.do(vm, "download", "large", back)
    assert back.read_bytes() == data


async def test_labels_and_names(here: Sdk, vm: Any) -> None:
    await here.do(vm, "tag", "a", "b")
    assert set(vm.tags) == {"ci", "a", "b"}
    await here.do(vm, "untag", "a", "b")
    assert vm.tags == ("ci",)
    await here.do(vm, "set_comment", "it's new")
    assert vm.comment == "it's new"
    name = vm.name
    await here.do(vm, "rename", f"{name}-other")
    assert vm.https_url.startswith(f"https://{name}-other.")
    await here.do(vm, "rename", name)
    assert (await here.do(vm, "stats"))["name"] == name
    assert (await here.do(vm, "stats", range="24h"))["range"] == "24h"


async def test_power_and_copies(here: Sdk, vm: Any) -> None:
    await here.do(vm, "run", "echo kept > kept")
    copied = await here.do(vm, "copy")
    async with here.within(copied) as copy:
        assert (await here.do(copy, "read_file", "kept")) == b"kept\n"
        assert copy.tags == ("ci",)
    before = (await here.do(vm, "run", "cat /proc/sys/kernel/random/boot_id")).stdout
    await here.do(vm, "pause")
    assert vm.status == "paused"
    await refused(here, exedev.VMNotRunningError, vm, "run", "true")
    await here.do(vm, "resume")
    after = (await here.do(vm, "run", "cat /proc/sys/kernel/random/boot_id")).stdout
    assert before == after
    done = await here.do(vm, "resize", disk=9)
    assert done["disk_new_bytes"] == 9 << 30
    assert int((await here.do(vm, "run", "df -B1 --output=size / | tail -1")).stdout) > 8 << 30
    await here.do(vm, "restart", timeout=200)
    assert (await here.do(vm, "run", "cat /proc/sys/kernel/random/boot_id")).stdout != before


async def test_sharing(here: Sdk, vm: Any) -> None:
    assert (await here.do(vm, "share.show"))["status"] == "private"
    assert (await here.do(vm, "share.port", 8123))["port"] == 8123
    await here.do(vm, "spawn", "python3 -m http.server 8123")
    await here.do(vm, "share.set_public")
    assert (await here.do(vm, "share.show"))["status"] == "public"
    url = await here.do(vm, "url")

    async def served() -> bool | None:
        done = await run(["curl", "-sko", "/dev/null", "-w", "%{http_code}", url], seconds=20)
        return done.out == b"200" or None

    await poll(served, seconds=60, what="the page, for anybody", every=0.5)
    await here.do(vm, "share.set_private")
    assert (await here.do(vm, "share.show"))["status"] == "private"


async def test_sharing_with_people(here: Sdk, vm: Any) -> None:
    added = await here.do(vm, "share.add", "bob@example.com", message="hi")
    assert (added["status"], added["url"]) == ("success", await here.do(vm, "url"))
    assert (await here.do(vm, "share.add", "bob@example.com", root=True))["share_level"] == "root"
    (user,) = (await here.do(vm, "share.show"))["users"]
    assert (user["email"], user["status"], user["share_level"]) == (
        "bob@example.com",
        "pending",
        "root",
    )
    lowered = await here.do(vm, "share.remove", "bob@example.com", root=True)
    assert lowered["share_level"] == "web"
    assert (await here.do(vm, "share.remove", "bob@example.com"))["status"] == "success"
    link = await here.do(vm, "share.add_link")
    assert link["url"].endswith(link["token"])
    assert (await here.do(vm, "share.remove_link", link["token"]))["status"] == "success"
    shown = await here.do(vm, "share.show")
    assert (shown["users"], shown["links"], shown["teams"]) == ([], [], [])


async def test_domains(here: Sdk, vm: Any) -> None:
    name = f"sdk-{here.kind}.localhost"
    added = await here.do(vm, "domain.add", name)
    assert (added["domain"], added["vm_name"], added["wildcard"]) == (name, vm.name, False)
    for listed in (
        await here.do(here.client, "domain.ls", vm.name),
        await here.do(here.client, "domain.ls", all=True),
    ):
        assert [one["domain"] for one in listed["domains"]] == [name]
    removed = await here.do(vm, "domain.remove", name)
    assert removed == {**removed, "vm_name": vm.name, "domain": name, "removed": True}


async def test_teams(here: Sdk, atoll: Atoll) -> None:
    client, name = here.client, f"crew-{here.kind}"
    await atoll.ssh("team", "new", name)
    assert (await here.do(client, "team"))["teams"][0]["team_name"] == name
    await here.do(client, "team.add", "nobody@example.com", "admin")
    assert (await here.do(client, "team.remove", "nobody@example.com"))["status"] == "withdrawn"
    robin = await friend(atoll, "robin")
    await here.do(client, "team.add", "robin@example.com")
    await robin.ssh("team", "join", name)
    assert (await here.do(client, "team.role", "robin@example.com", "user"))["role"] == "member"
    assert len((await here.do(client, "team.members"))["members"]) == 2
    assert len((await here.do(client, "team.usage"))["members"]) == 2
    one = await here.do(client, "new", wait_until="created")
    await here.do(client, "team.transfer", one.name, "robin@example.com")
    await refused(here, exedev.NotFoundError, client, "vm", one.name)
    await robin.ssh("rm", one.name)
    done = await here.do(
        client, "team.remove", "robin@example.com", transfer_vms_to="owner@example.com"
    )
    assert (done["status"], done["transferred"]) == ("removed", [])
    await here.do(client, "team.rename", f"{name}-new")
    assert (await here.do(client, "team.disable", yes=True))["team_name"] == f"{name}-new"


async def test_the_account(here: Sdk, atoll: Atoll, tmp_path: Path) -> None:
    assert (await here.do(here.client, "whoami"))["email"] == "owner@example.com"
    assert "login/" in (await here.do(here.client, "browser"))["url"]
    assert await here.do(here.client, "doc")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTl66QMFF3WOz5MO8fyCTvBPYfDG9/j"
    added = await here.do(here.client, "ssh_key.add", f"{key} {here.kind}")
    assert added["fingerprint"].startswith("SHA256:")
    keys = await here.do(here.client, "ssh_key.list")
    assert added["name"] in [each["name"] for each in keys["ssh_keys"]]
    await here.do(here.client, "ssh_key.rename", added["name"], f"new-{here.kind}")
    await here.do(here.client, "ssh_key.remove", f"new-{here.kind}")
    assert (await here.do(here.client, "billing.usage"))["vms"]["count"] >= 1
    made = await here.do(
        here.client, "ssh_key.generate_api_key", label="lesser", cmds=["ls"], exp="1d"
    )
    async with sdk(atoll, here.kind, made["token"]) as lesser:
        assert isinstance(await lesser.do(lesser.client, "vms"), list)
        await refused(lesser, exedev.PermissionDeniedError, lesser.client, "whoami")
    await here.do(here.client, "ssh_key.remove", "lesser")
    async with sdk(atoll, here.kind, made["token"]) as ended:
        await refused(ended, exedev.AuthenticationError, ended.client, "whoami")


async def test_deleting_several(here: Sdk) -> None:
    one = await here.do(here.client, "new", wait_until="created")
    done = await here.do(here.client, "delete", one, "no-such-vm")
    assert (done["deleted"], done["failed"]) == ([one.name], ["no-such-vm"])
    await refused(here, exedev.NotFoundError, one, "delete")


async def test_every_method_is_in_the_table_and_does_as_it_says(here: Sdk, vm: Any) -> None:
    """The last test of the module: what works was called above, the rest is refused here."""
    table = dict(re.findall(r"^\| `([\w.]+)` \| (works|not here)", PAGE.read_text(), re.MULTILINE))
    process = exedev.Process if here.kind == "sync" else exedev.AsyncProcess
    found = {f"{of}.{name}" for of, name in methods(here.client, vm, process)}
    ways_out = {f"{of}.close" for of in ("Client", "AsyncClient")}
    assert set(table) == found - ways_out - {"Client.aclose"}
    works = {name for name, says in table.items() if says == "works"}
    assert works == here.used & set(table)
    for name in sorted(set(table) - works):
        of, _, method = name.partition(".")
        thing = here.client if of == "Client" else vm
        call = thing
        for part in method.split("."):
            call = getattr(call, part)
        # `invite` here is another command: it wants an address, and invites nobody without.
        is_other = name.partition(".")[2].split(".")[0] == "invite"
        error = exedev.APIError if is_other else exedev.NotFoundError
        said = "needs <email>|does not take|not an e-mail" if is_other else "no command"
        with pytest.raises(error, match=said):
            await here.do(thing, method, *arguments_for(call), **options_for(call))
