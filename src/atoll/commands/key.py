"""Verbs for SSH keys, and what lists API tokens beside them: ssh-key list, add, rename, remove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoll.base.errors import Invalid, NotFound
from atoll.commands.context import Context
from atoll.commands.registry import Nothing, Reach, Registry, Source, argument, flag
from atoll.commands.render import instant, table
from atoll.commands.reply import Reply
from atoll.domain.name import check_tag, check_user
from atoll.store.accounts import SshKey

VERBS = Registry()
_STDIN = ("-", "/dev/stdin")


@VERBS.command(
    "ssh-key list",
    help="List the keys that log you in, and your API tokens.",
    reach=Reach.ACCOUNT,
    examples=("ssh-key list",),
    result={
        "ssh_keys": "one entry per key: `name`, `public_key`, `fingerprint`, `current`, `vm_name`,"
        " `tag`, `ssh_user`",
        "api_keys": "one entry per token: `label`, `fingerprint`, `cmds`, `vm_name`, `tag`, `expires_at`",
    },
)
async def listed(ctx: Context, args: Nothing) -> Reply:
    names = {vm.id: vm.label for vm in await ctx.cloud.access.visible(ctx.caller)}
    keys = await ctx.cloud.accounts.keys(ctx.caller)
    tokens = await ctx.cloud.tokens.of(ctx.caller.account)
    key_entries = [shown(ctx, key, names) for key in keys]
    token_entries = [
        {
            "label": token.label,
            "fingerprint": token.fingerprint,
            "cmds": None if token.cmds is None else list(token.cmds),
            "vm_name": names.get(token.vm or ""),
            "tag": token.tag,
            "expires_at": None if token.expires_at is None else instant(token.expires_at),
        }
        for token in tokens
    ]
    rows = [
        (
            str(entry["name"]),
            str(entry["fingerprint"]),
            _limit(entry),
            "this one" if entry["current"] else "",
        )
        for entry in key_entries
    ]
    rows += [
        (str(entry["label"]), str(entry["fingerprint"]), _limit(entry), "API token")
        for entry in token_entries
    ]
    return Reply(
        data={"ssh_keys": key_entries, "api_keys": token_entries},
        text=table(("NAME", "FINGERPRINT", "ONLY FOR", "NOTE"), rows) if rows else "No keys",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    key: tuple[str, ...] = argument(
        "key",
        "the content of a .pub file; - reads stdin",
        many=True,
        required=True,
        secret=True,  # some paste the private one
    )
    name: str = flag("--name", "what to call it; its comment if not given", default="")
    vm: str | None = flag("--vm", "good for this VM only", value="VM", source=Source.VM)
    tag: str | None = flag(
        "--tag", "good for VMs with this tag only", value="TAG", source=Source.TAG
    )
    user: str | None = flag(
        "--ssh-user", "with --vm: whom it logs in as there, if not as its usual user", value="USER"
    )


@VERBS.command(
    "ssh-key add",
    help="Let another SSH key log you in.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=(
        "ssh-key add 'ssh-ed25519 AAAAC3… ann@laptop'",
        "ssh-key add --name laptop - < ~/.ssh/id_ed25519.pub",
        "ssh-key add --tag ci 'ssh-ed25519 AAAAC3… runner'",
        "ssh-key add --vm web --ssh-user deploy 'ssh-ed25519 AAAAC3… deploy'",
    ),
    result={
        "status": "`added`",
        "name": "its name",
        "public_key": "type and base64",
        "fingerprint": "SHA-256",
    },
)
async def add(ctx: Context, args: Add) -> Reply:
    text = " ".join(args.key)
    if text in _STDIN:
        text = ctx.stdin.decode(errors="replace").strip()
        if len(text.splitlines()) > 1:
            raise Invalid("one key at a time", hint="Try: head -1 keys | ssh … ssh-key add -")
    vm, tag = await limits(ctx, args.vm, args.tag)
    user = None if args.user is None else check_user(args.user)
    if user is not None and vm is None:
        raise Invalid("--ssh-user is a user of one VM", hint="Try: --vm web --ssh-user deploy")
    key = await ctx.cloud.accounts.add_key(
        ctx.caller, text, name=args.name, vm=vm, tag=tag, user=user, act=ctx.act
    )
    return Reply(data={"status": "added", **_entry(key)}, text=f"added {key.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    key: tuple[str, ...] = argument(
        "key",
        "name, fingerprint or content of a key, or label of an API token",
        many=True,
        required=True,
        source=Source.KEY,
        secret=True,  # a token pasted in place of its label
    )


@VERBS.command(
    "ssh-key remove",
    help="Forget an SSH key or an API token; it opens nothing from then on.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("ssh-key remove laptop", "ssh-key remove SHA256:uNiVztksCsDhcc0u9e8BrrJXVG…"),
    result={"status": "`removed`", "name": "its name", "fingerprint": "of an SSH key"},
)
async def remove(ctx: Context, args: Remove) -> Reply:
    which = " ".join(args.key)
    try:
        key = await ctx.cloud.accounts.remove_key(ctx.caller, which, act=ctx.act)
    except NotFound:
        if not await ctx.cloud.tokens.remove(ctx.caller.account, which):
            raise
        return Reply(data={"status": "removed", "name": which}, text=f"removed {which}")
    return Reply(data={"status": "removed", **_entry(key)}, text=f"removed {key.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    old: str = argument(
        "old", "name or fingerprint of a key, or label of an API token", source=Source.KEY
    )
    new: str = argument("new", "what to call it")


@VERBS.command(
    "ssh-key rename",
    help="Call an SSH key or an API token something else.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("ssh-key rename laptop old-laptop",),
    result={"status": "`renamed`", "old_name": "its name before", "new_name": "its name now"},
)
async def rename(ctx: Context, args: Rename) -> Reply:
    old = args.old
    try:
        old = (await ctx.cloud.accounts.rename_key(ctx.caller, old, args.new)).name
    except NotFound:
        if not await ctx.cloud.tokens.rename(ctx.caller.account, old, args.new):
            raise
    return Reply(
        data={"status": "renamed", "old_name": old, "new_name": args.new},
        text=f"{old} is now {args.new}",
    )


def shown(ctx: Context, key: SshKey, names: dict[str, str]) -> dict[str, Any]:
    """A key as lists show it; `names` gives VM ids their names."""
    return {
        **_entry(key),
        "current": key.fingerprint == ctx.caller.key_fingerprint,
        "vm_name": names.get(key.vm or ""),
        "tag": key.tag,
        "ssh_user": key.user,
    }


async def limits(ctx: Context, vm: str | None, tag: str | None) -> tuple[str | None, str | None]:
    """A VM's id or a tag that a new key or token is limited to; it cannot be both."""
    if vm is not None and tag is not None:
        raise Invalid("--vm and --tag exclude one another", hint="Try: --tag alone")
    vm_id = None if vm is None else (await ctx.cloud.access.find(ctx.caller, vm)).id
    return vm_id, None if tag is None else check_tag(tag)


def _limit(entry: dict[str, Any]) -> str:
    """What a key or token is limited to, for the table."""
    if entry["tag"]:
        return f"tag {entry['tag']}"
    user = entry.get("ssh_user")
    return f"{user}@{entry['vm_name']}" if user else str(entry["vm_name"] or "")


def _entry(key: SshKey) -> dict[str, Any]:
    return {"name": key.name, "public_key": key.public_key, "fingerprint": key.fingerprint}
