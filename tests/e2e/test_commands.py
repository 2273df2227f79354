"""Every verb of `help` on real VMs, as people and as programs ask; and what must not work.

Each JSON answer holds the keys its help promises and no others, each text no control character.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from atoll.base.aio import poll, together
from atoll.base.proc import Finished, run
from atoll.commands.verbs import REGISTRY
from atoll.rpc.messages import ListVms, Vms
from framework.atoll import Atoll
from framework.clients import client, exists
from framework.friend import friend
from framework.signing import SshKeyFile

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

VM = "shop"
NDJSON = "application/x-ndjson"
_used: set[str] = set()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def vm(atoll: Atoll) -> AsyncIterator[str]:
    """One VM for the whole module."""
    made = await asked(atoll, f"new --name {VM} --tag prod,front --comment 'since May'")
    assert made["tags"] == ["front", "prod"]
    assert made["comment"] == "since May"
    assert made["status"] == "running"
    yield VM
    await atoll.ssh("rm", VM)


async def asked(atoll: Atoll, line: str) -> dict[str, Any]:
    """The JSON of a command over ssh, with exactly the keys that its help names."""
    words = shlex.split(line)
    matched = REGISTRY.match(words)
    assert matched is not None, line
    command = matched[0]
    _used.add(command.name)
    done = await atoll.ssh(line, "--json")
    data = json.loads(done.out)
    assert isinstance(data, dict)
    if command.name not in ("help", "doc"):
        optional = {"problem", "expires_at", *command.sometimes}
        assert set(data) - optional <= set(command.result), line
        is_list = "vms" in command.sometimes and "vms" in data
        assert is_list or set(command.result) - optional <= set(data), line
    return data


async def told(atoll: Atoll, line: str) -> str:
    """The text of a command over ssh, fit for a terminal."""
    text = (await atoll.ssh(line)).out.decode()
    assert text.endswith("\n")
    assert not [char for char in text if char != "\n" and unicodedata.category(char) == "Cc"]
    return text.rstrip("\n")


async def inside(atoll: Atoll, command: str, vm: str = VM) -> str:
    """What a command prints in the VM."""
    return (await atoll.ssh(command, user=vm)).out.decode().strip()


# --- VMs


async def test_new_ls_and_stat(atoll: Atoll, vm: str) -> None:
    listed = await asked(atoll, f"ls {vm}")
    assert [entry["vm_name"] for entry in listed["vms"]] == [vm]
    long = (await asked(atoll, "ls -l 'sh*'"))["vms"][0]
    assert (long["cpus"], long["memory_bytes"], long["disk_bytes"]) == (1, 512 << 20, 8 << 30)
    text = await told(atoll, "ls -l")
    assert re.search(rf"^{vm} .*running.*512M.*8G.*private.*front,prod", text, re.MULTILINE), text

    point = (await asked(atoll, f"stat {vm}"))["points"][0]
    assert point["cpu_nominal"] == 1
    assert 0 < point["mem_used_bytes"] < point["mem_total_bytes"]
    assert 0 < point["fs_used_gb"] < point["fs_total_gb"] <= 8.0
    assert point["uptime_seconds"] > 0
    await inside(atoll, "systemd-run --user --unit site python3 -m http.server 8000")

    async def seen() -> bool | None:
        ports = (await asked(atoll, f"stat {vm}"))["points"][0]["ports"]
        return True if 8000 in ports else None

    await poll(seen, seconds=20, what="port 8000 in stat")
    assert "8000" in await told(atoll, f"stat {vm}")

    assert (await asked(atoll, "ls --group=tag"))["groups"] == [
        {"group": "front", "vms": [vm]},
        {"group": "prod", "vms": [vm]},
    ]
    assert [one["name"] for one in (await asked(atoll, "stat 'sh*'"))["vms"]] == [vm]
    used = await asked(atoll, "billing usage --group=vm")
    assert used["vms"]["count"] == used["vms"]["running"] == 1
    assert used["memory_bytes"]["allotted"] == 512 << 20
    assert 0 < used["disk_bytes"]["free"] < used["disk_bytes"]["total"]
    assert [entry["vm_name"] for entry in used["by_vm"]] == [vm]
    assert "machine" in await told(atoll, "billing usage")
    assert [event["event"] for event in (await asked(atoll, f"events {vm}"))["events"]][:1] == [
        "new"
    ]


async def test_the_audit(atoll: Atoll, vm: str) -> None:
    await inside(atoll, "true")
    acts = [entry["act"] for entry in (await asked(atoll, f"audit {vm}"))["records"]]
    assert acts[0] == "command"
    assert "root" in acts
    proof = await asked(atoll, "audit verify")
    assert proof["verified"]
    lines = [json.loads(line) for line in (await atoll.ssh("audit export --all")).out.splitlines()]
    assert lines[0]["of"] == "everybody"
    assert [line["seq"] for line in lines[1:]][: proof["last"]] == list(range(1, proof["last"] + 1))
    _used.add("audit export")


async def test_a_dry_run_changes_nothing(atoll: Atoll, vm: str) -> None:
    before = await asked(atoll, "ls -l")
    lines = {
        f"rm {vm} --dry-run": f"would remove {vm}",
        "rm 'sh*' --dry-run": f"would remove {vm}",
        f"restart {vm} --dry-run": f"would restart {vm}",
        f"tag {vm} night --dry-run": f"would change {vm}: tags front, night, prod",
        "browser --dry-run": "would make a sign-in link",
    }
    for line, said in lines.items():
        assert await told(atoll, line) == said
    assert (await told(atoll, "new --name x --dry-run")).startswith("would make x: debian, ")
    assert await asked(atoll, "ls -l") == before


async def test_labels(atoll: Atoll, vm: str) -> None:
    assert (await asked(atoll, f"tag {vm} night"))["tags"] == ["front", "night", "prod"]
    assert await told(atoll, f"tag -d {vm} night prod") == f"{vm}: front"
    assert (await asked(atoll, f"tag {vm}"))["tags"] == ["front"]
    note = "the shop, since März 🐚"
    assert (await asked(atoll, f"comment {vm} '{note}'"))["comment"] == note
    assert note in await told(atoll, "ls")
    assert await told(atoll, f"comment {vm} ''") == f"{vm}: no comment"


async def test_rename_is_seen_from_everywhere(atoll: Atoll, vm: str) -> None:
    renamed = await asked(atoll, f"rename {vm} store")
    assert (renamed["old_name"], renamed["vm_name"]) == (vm, "store")
    assert "problem" not in renamed
    assert await inside(atoll, "hostname; grep -c store /etc/hosts", "store") == "store\n1"
    names = await inside(atoll, "ssh-keygen -L -f /etc/ssh/ssh_host_ed25519_key-cert.pub", "store")
    assert f"store.{atoll.config.https.domain}" in names
    assert vm not in names
    gone = await atoll.ssh("stat", vm, check=False)
    assert gone.code == 66
    assert await told(atoll, f"rename store {vm}") == f"store is now {vm}"
    assert await inside(atoll, "hostname") == vm


async def test_share(atoll: Atoll, vm: str) -> None:
    shown = await asked(atoll, f"share show {vm}")
    assert (shown["status"], shown["port"]) == ("private", 8000)
    assert shown["url"] in await told(atoll, f"share show {vm}")
    assert (await asked(atoll, f"share port {vm} 3000"))["port"] == 3000
    assert await told(atoll, f"share port {vm}") == "3000"
    assert (await asked(atoll, f"share set-public {vm}"))["share"] == "public"
    assert "is private, port 3000" in await told(atoll, f"share set-private {vm}")
    assert "is public" in await told(atoll, f"share set-public {vm}")
    assert (await asked(atoll, f"share set-private {vm}"))["share"] == "private"
    assert "port 8000" in await told(atoll, f"share port {vm} 8000")
    log = await asked(atoll, f"share log {vm} -n 5 --who anonymous")
    assert log["vm_name"] == vm


async def test_share_with_people(atoll: Atoll, vm: str) -> None:
    added = await asked(atoll, f"share add {vm} nobody@example.com --for 2h --path /docs")
    assert added["url"].endswith("/docs")
    said = await told(atoll, f"share show {vm} --who nobody@example.com --url {added['url']}")
    assert "there is no account with this address yet" in said
    assert "nobody@example.com" in await told(atoll, f"share show {vm}")
    assert "nobody@example.com lost" in await told(atoll, f"share remove {vm} nobody@example.com")
    await asked(atoll, f"share add {vm} nobody@example.com")
    assert (await asked(atoll, f"share remove {vm} nobody@example.com"))["status"] == "success"
    link = await asked(atoll, f"share add-link {vm} --for 1h")
    assert (await asked(atoll, f"share accept {link['url']}"))["vm_name"] == vm  # one's own
    assert "is over" in await told(atoll, f"share remove-link {vm} {link['token']}")
    link = await asked(atoll, f"share add-link {vm}")
    assert (await asked(atoll, f"share remove-link {vm} {link['token']}"))["status"] == "success"
    assert "has been asked" in await told(atoll, "share ask no-such-vm")
    assert (await asked(atoll, "share ask no-such-vm"))["status"] == "asked"
    assert await told(atoll, "share ls") == "Nothing is shared with you"
    assert (await asked(atoll, "share ls"))["shared"] == []


async def test_a_team_and_a_vm_that_changes_hands(atoll: Atoll, vm: str) -> None:
    robin = await friend(atoll, "robin")
    made = await asked(atoll, "team new crew")
    assert (made["team_name"], made["role"]) == ("crew", "owner")
    assert (await asked(atoll, "team add robin@example.com"))["status"] == "invited"
    assert "team join crew" in await told(robin, "team ls")
    assert (await asked(robin, "team join"))["team_id"] == made["team_id"]
    assert (await asked(atoll, "team role robin@example.com admin"))["was"] == "member"
    members = (await asked(robin, "team members crew"))["members"]
    assert [entry["email"] for entry in members] == ["owner@example.com", "robin@example.com"]
    assert (await asked(robin, "team rename gang"))["new_name"] == "gang"
    await asked(atoll, "new --name gift --tag kept")
    await inside(atoll, "echo pearl > kept", "gift")
    used = {entry["email"]: entry for entry in (await asked(robin, "team usage"))["members"]}
    assert used["owner@example.com"]["vms"]["running"] >= 2
    assert used["robin@example.com"]["vms"]["count"] == 0

    given = await asked(atoll, "transfer gift robin@example.com")
    assert given == {"status": "transferred", "vm_name": "gift", "owner": "robin@example.com"}
    assert await inside(robin, "cat kept", "gift") == "pearl"
    keys = await inside(robin, "cat /etc/ssh/authorized_keys.d/atoll", "gift")
    assert robin.key.with_suffix(".pub").read_text().split()[1] in keys
    assert atoll.key.with_suffix(".pub").read_text().split()[1] not in keys
    assert (await atoll.ssh("stat", "gift", check=False)).code == 66
    assert (await asked(robin, "ls gift"))["vms"][0]["tags"] == ["kept"]
    assert await told(robin, "transfer gift owner@example.com") == "gift is owner@example.com's now"
    await atoll.ssh("rm", "gift")

    assert (await asked(robin, "team leave"))["status"] == "left"
    assert (await asked(atoll, "team add cat@example.com --role admin"))["role"] == "admin"
    assert (await asked(atoll, "team remove cat@example.com"))["status"] == "withdrawn"
    assert (await asked(atoll, "team ls"))["teams"][0]["members"] == 1
    assert (await asked(atoll, "team disable --yes"))["team_name"] == "gang"


async def test_domains(atoll: Atoll, vm: str) -> None:
    added = await asked(atoll, f"domain add {vm} Shop.localhost")
    assert (added["domain"], added["vm_name"]) == ("shop.localhost", vm)
    assert ("error" in added) == ("expected" in added)  # as the machine's DNS says
    (entry,) = (await asked(atoll, f"domain ls {vm}"))["domains"]
    assert entry["certificate"].startswith("none: acme.directory is not set")
    assert "shop.localhost" in await told(atoll, "domain ls")
    assert "any more" in await told(atoll, f"domain rm {vm} shop.localhost")
    await asked(atoll, f"domain add {vm} shop.localhost")
    assert (await asked(atoll, f"domain rm {vm} shop.localhost"))["removed"] is True


async def test_copy_pause_resume_remove_undo(atoll: Atoll, vm: str) -> None:
    await inside(atoll, "echo pearl > /dev/shm/kept")
    copied = await asked(atoll, f"cp {vm} shop-next --copy-tags=false")
    assert (copied["source"], copied["state"], copied["tags"]) == (vm, "running", [])
    assert re.match(
        r"shop-two is running .*a copy of shop\n", await told(atoll, "cp shop shop-two")
    )
    assert (await asked(atoll, "pause shop-next"))["status"] == "paused"
    assert await told(atoll, "pause shop-two") == "shop-two is paused"
    refused = await atoll.ssh("true", user="shop-two", check=False)
    assert b"resume shop-two" in refused.err
    assert (await asked(atoll, "resume shop-next"))["cold_booted"] == "false"
    assert await told(atoll, "resume shop-two") == "shop-two is running"
    removed = await asked(atoll, "rm shop-next")
    assert (removed["deleted"], removed["failed"]) == (["shop-next"], [])
    assert (await asked(atoll, "undo"))["restored"] == [
        {"vm_name": "shop-next", "former_name": "shop-next", "status": "running"}
    ]
    assert (await told(atoll, "rm shop-next shop-two")).startswith("removed shop-next, shop-two")
    assert "shop-two is back: running" in await told(atoll, "undo")
    for name in ("shop-next", "shop-two"):
        assert await inside(atoll, "cat /dev/shm/kept", name) == "pearl"
    assert (await asked(atoll, "restart shop-two"))["status"] == "restarted"
    assert await inside(atoll, "cat /dev/shm/kept || echo booted", "shop-two") == "booted"
    assert (await asked(atoll, "vm-logs shop-two"))["log"], "a boot says something"
    await atoll.ssh("rm", "shop-next", "shop-two")


async def test_a_random_name_and_words_for_people(atoll: Atoll, vm: str) -> None:
    said = await told(atoll, "new")
    name = said.split()[0]
    assert re.fullmatch(r"[a-z]+-[a-z]+", name)
    assert re.search(r" is running \([0-9.]+ s\): debian, 1 vCPU, 512M memory, 8G disk\n", said)
    assert f"{name}@" in said
    assert f"https://{name}." in said
    await atoll.ssh("rm", name)


async def test_ssh_inside_the_lobby(atoll: Atoll, vm: str) -> None:
    _used.add("ssh")
    done = await atoll.ssh(f"ssh {vm} 'echo $HOSTNAME; exit 6'", check=False)
    assert (done.code, done.out) == (6, b"shop\n")


# --- who


async def test_whoami_browser_and_help(atoll: Atoll, vm: str) -> None:
    _used.add("exit")
    who = await asked(atoll, "whoami")
    assert who["email"] == "owner@example.com"
    assert [key["current"] for key in who["ssh_keys"]] == [True]
    assert "this one" in await told(atoll, "whoami")
    link = (await asked(atoll, "browser"))["url"]
    assert link != await told(atoll, "browser"), "each link is a new one"
    assert link.startswith(f"https://{atoll.config.https.domain}:{atoll.config.https.port}/login/")

    commands = (await asked(atoll, "help"))["commands"]
    overview = await told(atoll, "help")
    for command in commands:
        assert command["command"].split()[0] in overview
    whole = await told(atoll, "doc all")
    assert all(command["usage"] in whole for command in commands)
    assert (await asked(atoll, "doc new"))["markdown"] == await told(atoll, "doc new")
    assert "`share-port`" in await told(atoll, "doc")
    left = await atoll.ssh(stdin=b"whoami --json\nexit\nwhoami\n")
    assert left.out.count(b'"email"') == 1, "nothing runs after exit"


async def test_resize(atoll: Atoll, vm: str) -> None:
    done = await asked(atoll, f"resize {vm} --disk 9")
    assert done == {"vm_name": vm, "disk_old_bytes": 8 << 30, "disk_new_bytes": 9 << 30}
    assert await told(atoll, f"resize {vm} --disk 9G") == f"{vm} has that size already"


async def test_snapshots(atoll: Atoll, vm: str) -> None:
    await asked(atoll, "new --name past")
    assert (await asked(atoll, "snap past first"))["consistency"] == "clean"
    back = await asked(atoll, "rollback past")
    assert (back["snapshot"], back["status"]) == ("first", "running")
    rows = [row.split()[:2] for row in (await told(atoll, "snap ls")).splitlines()[1:]]
    assert [["past", "first"], ["past", back["kept"]]] == [row for row in rows if row[0] == "past"]
    await asked(atoll, f"snap rm past {back['kept']}")
    assert (await asked(atoll, "snap history past 1h:1d"))["policy"] == "1h:1d"
    assert (await told(atoll, "snap history past")).startswith("past: 1h:1d\n0 snapshots; next at ")
    assert [one["snapshot"] for one in (await asked(atoll, "snap ls past"))["snapshots"]] == [
        "first"
    ]
    await atoll.ssh("rm", "past")


async def test_a_script_for_every_new_vm(atoll: Atoll) -> None:
    which = "atoll new.setup-script"
    assert (await asked(atoll, f"defaults write {which} 'echo a'"))["status"] == "written"
    assert await told(atoll, f"defaults read {which}") == "echo a"
    assert (await asked(atoll, "defaults read dev.exe"))["values"] == {"new.setup-script": "echo a"}
    assert (await asked(atoll, f"defaults delete {which}"))["status"] == "deleted"
    assert (await asked(atoll, "defaults read atoll"))["values"] == {}


async def test_a_second_key_and_its_end(atoll: Atoll, vm: str, tmp_path: Path) -> None:
    key = tmp_path / "laptop"
    await run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "x", "-f", str(key)], seconds=20
    )
    public = Path(f"{key}.pub").read_bytes()
    fingerprint = (await run(["ssh-keygen", "-lf", str(key)], seconds=10)).out.decode().split()[1]
    _used.add("ssh-key add")
    added = json.loads((await atoll.ssh("ssh-key add --name laptop --json -", stdin=public)).out)
    assert (added["status"], added["name"], added["fingerprint"]) == (
        "added",
        "laptop",
        fingerprint,
    )
    listed = await asked(atoll, "ssh-key list")
    assert [entry["name"] for entry in listed["ssh_keys"] if not entry["current"]] == ["laptop"]
    assert fingerprint in await told(atoll, "ssh-key list")
    again = await atoll.ssh(f"ssh-key add '{public.decode().strip()}'", check=False)
    assert again.code == 75
    for old, new in (("laptop", "other"), ("other", "laptop")):
        assert (await asked(atoll, f"ssh-key rename {old} {new}"))["new_name"] == new
    signed = SshKeyFile(key).token('{"cmds":["whoami"]}')
    short = (await asked(atoll, f"ssh-key shorten --label short {signed}"))["token"]
    for token in (signed, short):
        assert (await post(atoll, b"whoami", token=token))[0] == 200
        assert (await post(atoll, b"ls", token=token))[0] == 403

    words = [str(key) if word == str(atoll.key) else word for word in atoll.ssh_options()]
    laptop = _with_options(words, "BatchMode=yes")
    # Straight to the VM's sshd with this key, whatever the gateway thinks of it.
    proxy = shlex.join(["ssh", *atoll.ssh_options(), "-W", f"{vm}:22", "127.0.0.1"])
    straight = [*laptop, "-o", f"ProxyCommand={proxy}", "-o", "HostKeyAlias=straight",
                "-o", "BatchMode=yes", "atoll@straight", "echo straight"]  # fmt: skip

    async def let_in() -> bool | None:
        return True if (await run(straight, seconds=30, check=False)).code == 0 else None

    await poll(let_in, seconds=20, what="the key inside the VM", every=0.3)
    assert (await run([*laptop, "127.0.0.1", "whoami"], seconds=30)).code == 0
    async with client([*laptop, f"{vm}@127.0.0.1", "echo in; sleep 600"]) as session:
        assert session.stdout is not None
        assert await session.stdout.readline() == b"in\n"
        assert await told(atoll, "ssh-key remove laptop") == "removed laptop"
        async with asyncio.timeout(15):
            assert await session.wait() == 255, "an open session ends with its key"

    async def kept_out() -> bool | None:
        done = await run(straight, seconds=30, check=False)
        return True if done.code == 255 and b"Permission denied" in done.err else None

    await poll(kept_out, seconds=20, what="the key's end inside the VM", every=0.3)
    for target in ("127.0.0.1", f"{vm}@127.0.0.1"):
        refused = await run([*laptop, target, "whoami"], seconds=30, check=False)
        assert (refused.code, refused.out) == (1, b"")
        assert b"is not known here" in refused.err
    for token in (signed, short):
        assert (await post(atoll, b"whoami", token=token))[0] == 401
    last = await atoll.ssh("ssh-key remove test", check=False)
    assert last.code == 75
    assert b"last key" in last.err


def _with_options(words: list[str], dropped: str) -> list[str]:
    """The ssh line of `words` without the option `dropped`; the sentence for strangers needs dialogue."""
    index = words.index(dropped)
    return ["ssh", *words[: index - 1], *words[index + 1 :]]


async def test_removing_the_key_in_use_is_still_answered(
    atoll: Atoll, vm: str, tmp_path: Path
) -> None:
    key = tmp_path / "spare"
    await run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], seconds=20)
    await atoll.ssh("ssh-key add --name spare -", stdin=Path(f"{key}.pub").read_bytes())
    words = [str(key) if word == str(atoll.key) else word for word in atoll.ssh_options()]
    done = await run(["ssh", *words, "127.0.0.1", "ssh-key remove spare --json"], seconds=30)
    _used.add("ssh-key remove")
    assert json.loads(done.out)["status"] == "removed"


# --- POST /exec


async def post(
    atoll: Atoll, body: bytes, *, token: str = "", accept: str = "application/json"
) -> tuple[int, bytes, bytes]:
    """Status, head and body of one call by curl."""
    done = await run(exec_line(atoll, token, accept), seconds=60, stdin=body)
    head, _, rest = done.out.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.lower(), rest


def exec_line(atoll: Atoll, token: str, accept: str) -> list[str]:
    https = atoll.config.https
    ca = atoll.config.control_state / "keys" / "ca.pem"
    headers = ["-H", f"accept: {accept}", "-H", "expect:", "-H", "content-type: text/plain"]
    if token:
        headers += ["-H", f"authorization: Bearer {token}"]
    return ["curl", "-sSiN", "--http1.1", "--cacert", str(ca), *headers, "--data-binary", "@-",
            f"https://{https.domain}:{https.port}/exec"]  # fmt: skip


async def test_exec_by_curl(atoll: Atoll, vm: str) -> None:
    cmds = f"ls,whoami,stat,ssh {vm}"
    made = await asked(atoll, f"ssh-key generate-api-key --label ci --cmds '{cmds}' --exp 30d")
    token = made["token"]
    assert sorted(made["cmds"]) == sorted(cmds.split(","))

    status, _, body = await post(atoll, b"ls", token=token)
    assert (status, [entry["vm_name"] for entry in json.loads(body)["vms"]]) == (200, [vm])
    status, head, body = await post(atoll, b"ssh shop 'echo out; exit 3'", token=token)
    assert (status, body) == (200, b"out\n")
    assert b"x-atoll-exit: 3" in head
    for expected, line, code in (
        (400, b"", "invalid"),
        (400, b"ls 'open", "invalid"),
        (400, b"ls \xff", "invalid"),
        (403, b"rm shop", "denied"),
        (403, b"ssh other ls", "denied"),
        (403, b"ssh-key generate-api-key", "denied"),
        (404, b"frobnicate", "unknown-command"),
        (413, b"comment shop " + b"x" * 70_000, "invalid"),
        (422, b"stat nowhere", "not-found"),
    ):
        status, _, body = await post(atoll, line, token=token)
        assert (status, json.loads(body)["code"]) == (expected, code), line[:40]
    for wrong in ("", "x", token[:-1], token + "x"):
        status, head, body = await post(atoll, b"ls", token=wrong)
        assert (status, json.loads(body)["code"]) == (401, "denied")
        assert b"www-authenticate: bearer" in head

    assert token not in await told(atoll, "ssh-key list")
    assert await told(atoll, "ssh-key remove ci") == "removed ci"
    assert (await post(atoll, b"ls", token=token))[0] == 401


async def test_exec_streams_while_the_command_runs(atoll: Atoll, vm: str) -> None:
    token = await told(atoll, "ssh-key generate-api-key --label stream --vm shop --cmds ssh")
    waits = "echo one; until [ -e go ]; do sleep 0.1; done; echo two >&2; exit 5"
    argv = exec_line(atoll, token, NDJSON)
    async with client(argv) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"ssh {vm} {shlex.quote(waits)}".encode())
        process.stdin.write_eof()
        async with asyncio.timeout(60):
            head = await process.stdout.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert NDJSON.encode() in head
            assert json.loads(await process.stdout.readline()) == {"stdout": "b25lCg=="}
            assert process.returncode is None
            await atoll.ssh("touch go", user=vm)
            rest = [json.loads(line) for line in (await process.stdout.read()).splitlines() if line]
    assert rest == [{"stderr": "dHdvCg=="}, {"exit_code": 5}]
    account = await post(atoll, b"whoami", token=token)
    assert account[0] == 403, "a token for one VM says nothing of the account"
    await atoll.ssh("ssh-key", "remove", "stream")


# --- what must not work

SIZES = ["-1", "0", "-5G", "1e9G", "inf", "nan", "0x10G", "1G1G", "1K", "999999999999T",
         "999999999999999999999G", "١G", " ", "1,5G", "G"]  # fmt: skip
NAMES = ["''", "-web", "../etc", "WEB", "web.x", "a" * 53, "web-1", "8000-web", "root", "lobby",
         "wéb", "ＷＥＢ", "'\u202egnp'", "'web;reboot'", "'$(reboot)'", "'a b'", "'a\nls'",
         "'\x1b[2J'"]  # fmt: skip
HOSTILE = [
    *(f"new --memory '{size}'" for size in SIZES),
    *(f"new --disk '{size}'" for size in SIZES),
    "new --memory 900G",
    *(f"new --cpu '{number}'" for number in ("-1", "0", "1e9", "1000000000000", "two", "1.5", "٣")),
    *(f"new --name={name}" for name in NAMES),
    *(f"cp shop -- {name}" for name in NAMES),
    *(f"rename shop -- {name}" for name in NAMES),
    "new --image nowhere", "new --image ../../etc/passwd", "new --tag 'BAD TAG'",
    f"new --comment '{'x' * 201}'", "new --comment 'two\nlines'", "new --nmae web", "new web",
    "new --name a --name b", "new --memory", "new --json=yes", "cp shop shop", "cp nowhere x",
    "cp shop a b", "cp", "rm", "rm nowhere", "rm '*'", "rename shop",
    "tag shop BAD", "comment shop '\x1b[2J'", "share port shop 0", "share port shop 70000",
    "share port shop -1", "share port shop 1e3", "share", "share show", "share frobnicate shop",
    "pause nowhere", "resume nowhere", "stat", "pause 'nowhere*'", "restart '?'", "stat 'x*'",
    "tag 'nowhere*' a", "rm 'nowhere*'", "ls --dry-run", "rm nowhere --dry-run", "new --dry-run --cpu 0",
    "ssh", "ssh nowhere ls",
    "ssh-key add garbage", "ssh-key add ssh-ed25519 AAAA", "ssh-key remove nowhere",
    "ssh-key generate-api-key --exp 0d", "ssh-key generate-api-key --exp 99999d",
    "ssh-key generate-api-key --cmds nowhere", "ssh-key generate-api-key --vm nowhere",
    "team new", "team new -- -x", "team new A", "team members nowhere", "team add x", "team join",
    "team leave nowhere", "team disable", "team remove x@y", "team role x@y king", "team frobnicate",
    "transfer shop", "transfer shop x@y", "transfer shop owner@example.com", "transfer nowhere x@y",
    "frobnicate", "'open", "help nowhere", "doc nowhere", "ls nowhere", " --json", "x" * 70_000,
]  # fmt: skip


async def test_nonsense_is_answered_in_a_line_and_leaves_nothing(atoll: Atoll, vm: str) -> None:
    async def on_engine() -> list[str]:
        return sorted(one.vm for one in (await atoll.engine.call(ListVms(), Vms, seconds=20)).vms)

    before = await asked(atoll, "ls -l"), await on_engine(), await asked(atoll, "ssh-key list")
    control = atoll.folder / "ctl"
    via = ["ssh", *atoll.ssh_options(), "-S", str(control)]
    master = [*via, "-N", "-M", "-o", "ControlPersist=no", "127.0.0.1"]

    async def said(line: str) -> tuple[str, Finished]:
        return line, await run([*via, "127.0.0.1", line], seconds=60, check=False)

    bad: list[str] = []
    async with client(master):
        await exists(control)
        for start in range(0, len(HOSTILE), 8):
            answers = await together(*(said(line) for line in HOSTILE[start : start + 8]))
            bad += [f"{line[:80]!r}: {wrong}" for line, done in answers for wrong in _wrong(done)]
    assert not bad, "\n".join(bad)
    after = await asked(atoll, "ls -l"), await on_engine(), await asked(atoll, "ssh-key list")
    assert after == before


def _wrong(done: Finished) -> list[str]:
    """What is not as it should be: a failure said in one line, perhaps with one of advice."""
    text = (done.out + done.err).decode()
    found = []
    if done.code not in (2, 66, 69, 75):
        found.append(f"exit code {done.code}")
    if not 1 <= len(text.splitlines()) <= 2:
        found.append(f"{len(text.splitlines())} lines")
    if len(text) > 400:
        found.append(f"{len(text)} characters")
    if [char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf")]:
        found.append("control characters")
    if "defect" in text or "Traceback" in text:
        found.append("a defect")
    return [f"{what}: {text[:300]!r}" for what in found]


async def test_people_invitations_mail_and_sessions(atoll: Atoll) -> None:
    invited = await asked(atoll, "invite eve@example.com --message 'come and see'")
    assert invited["email"] == "eve@example.com"
    listed = await asked(atoll, "invite ls")
    assert [one["email"] for one in listed["invitations"]] == ["eve@example.com"]
    await asked(atoll, "invite rm eve@example.com")
    assert (await asked(atoll, "people"))["people"][0]["admin"] is True

    async def mailed() -> bool | None:
        return bool((await asked(atoll, "mail"))["letters"]) or None

    await poll(mailed, seconds=20, what="the invitation, in the Maildir")
    assert "come and see" in await told(atoll, "mail")
    assert (await asked(atoll, "passkey ls"))["passkeys"] == []
    _used.add("passkey rm")  # one is made by a browser only: tests/engine/test_web_sign_in.py
    none = await atoll.ssh("passkey rm phone", check=False)
    assert (none.code, b"not found" in none.err) == (66, True)
    await asked(atoll, "session rm --all")
    assert (await asked(atoll, "session ls"))["sessions"] == []


async def test_every_verb_was_run(atoll: Atoll, vm: str) -> None:
    """The last of the module: help and this file name the same verbs."""
    commands = json.loads((await atoll.ssh("help", "--json")).out)["commands"]
    assert {command["command"] for command in commands} == _used
