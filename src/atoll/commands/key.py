"""Verbs for SSH keys and API tokens: ssh-key list, add, remove, generate-api-key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from atoll.base.errors import Denied, Invalid, NotFound
from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, Source, argument, flag
from atoll.commands.render import instant, table
from atoll.commands.reply import Reply
from atoll.domain.permission import DEFAULT_CMDS
from atoll.store.accounts import SshKey

VERBS = Registry()
_DAYS = {"d": 1, "w": 7, "y": 365}
_STDIN = ("-", "/dev/stdin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    pass


@VERBS.command(
    "ssh-key list",
    help="List the keys that log you in, and your API tokens.",
    reach=Reach.ACCOUNT,
    examples=("ssh-key list",),
    result={
        "ssh_keys": "one entry per key: `name`, `public_key`, `fingerprint`, `current`, `vm_name`",
        "api_keys": "one entry per token: `label`, `fingerprint`, `cmds`, `vm_name`, `expires_at`",
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
            "expires_at": None if token.expires_at is None else instant(token.expires_at),
        }
        for token in tokens
    ]
    rows = [
        (
            str(entry["name"]),
            str(entry["fingerprint"]),
            str(entry["vm_name"] or ""),
            "this one" if entry["current"] else "",
        )
        for entry in key_entries
    ]
    rows += [
        (token.label, token.fingerprint, names.get(token.vm or "", ""), "API token")
        for token in tokens
    ]
    return Reply(
        data={"ssh_keys": key_entries, "api_keys": token_entries},
        text=table(("NAME", "FINGERPRINT", "VM", "NOTE"), rows) if rows else "No keys",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    key: tuple[str, ...] = argument(
        "key", "the content of a .pub file; - reads stdin", many=True, required=True
    )
    name: str = flag("--name", "what to call it; its comment if not given", default="")
    vm: str | None = flag("--vm", "good for this VM only", value="VM", source=Source.VM)


@VERBS.command(
    "ssh-key add",
    help="Let another SSH key log you in.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=(
        "ssh-key add 'ssh-ed25519 AAAAC3… ann@laptop'",
        "ssh-key add --name laptop - < ~/.ssh/id_ed25519.pub",
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
    vm = None if args.vm is None else (await ctx.cloud.access.find(ctx.caller, args.vm)).id
    key = await ctx.cloud.accounts.add_key(ctx.caller, text, name=args.name, vm=vm, act=ctx.act)
    return Reply(data={"status": "added", **_entry(key)}, text=f"added {key.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    key: tuple[str, ...] = argument(
        "key",
        "name, fingerprint or content of a key, or label of an API token",
        many=True,
        required=True,
        source=Source.KEY,
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
class Generate:
    label: str = flag("--label", "what to call it", default="", value="NAME")
    cmds: tuple[str, ...] = flag(
        "--cmds",
        "commands it may run, with commas; `ssh web` means ssh into web only; all",
        many=True,
        value="A,B",
        shown=",".join(DEFAULT_CMDS),
        source=Source.VERB,
    )
    expires: str = flag(
        "--exp", "how long it is good: 30d, 8w, 1y or never", default="1y", shown="1y"
    )
    vm: str | None = flag("--vm", "good for this VM only", value="VM", source=Source.VM)


@VERBS.command(
    "ssh-key generate-api-key",
    help="Make a token for POST /exec. It is shown once.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=(
        "ssh-key generate-api-key --label ci --cmds ls,new,rm --exp 30d",
        "ssh-key generate-api-key --vm web --cmds 'ssh web,stat'",
    ),
    result={
        "label": "its name",
        "token": "the token, for `Authorization: Bearer`",
        "namespace": "where it is good",
        "fingerprint": "how lists show it",
        "cmds": "commands it may run",
        "expires_at": "when it ends, UTC",
    },
)
async def generate(ctx: Context, args: Generate) -> Reply:
    cmds = _checked_cmds(ctx, args.cmds)
    seconds = _lifetime(args.expires)
    expires_at = None if seconds is None else ctx.cloud.now() + seconds
    vm = None if args.vm is None else (await ctx.cloud.access.find(ctx.caller, args.vm)).id
    made, token = await ctx.cloud.tokens.new(ctx.caller.account, args.label, cmds, vm, expires_at)
    data = {
        "label": made.label,
        "token": token,
        "namespace": ctx.cloud.tokens.namespace,
        "fingerprint": made.fingerprint,
        "cmds": list(cmds),
    } | ({} if expires_at is None else {"expires_at": instant(expires_at)})
    return Reply(data=data, text=token)


def shown(ctx: Context, key: SshKey, names: dict[str, str]) -> dict[str, Any]:
    """A key as lists show it; `names` gives VM ids their names."""
    return {
        **_entry(key),
        "current": key.fingerprint == ctx.caller.key_fingerprint,
        "vm_name": names.get(key.vm or ""),
    }


def _entry(key: SshKey) -> dict[str, Any]:
    return {"name": key.name, "public_key": key.public_key, "fingerprint": key.fingerprint}


def _checked_cmds(ctx: Context, given: tuple[str, ...]) -> tuple[str, ...]:
    """The commands of a new token, none of which the caller itself may not run."""
    wanted = [" ".join(cmd.split()) for text in given for cmd in text.split(",") if cmd.strip()]
    known = {command.name for command in ctx.registry}
    if wanted == ["all"]:
        wanted = sorted(known)
    cmds = tuple(dict.fromkeys(wanted or DEFAULT_CMDS))
    for cmd in cmds:
        if cmd not in known and not re.fullmatch(r"ssh [a-z0-9-]{1,52}", cmd):
            raise Invalid(f"no command {cmd[:60]!r}", hint="Try: --cmds ls,new,rm; see: help")
    own = ctx.caller.scope.cmds
    more = [cmd for cmd in cmds if own is not None and cmd not in own]
    if more:
        raise Denied(
            f"a token cannot give more than it has: {', '.join(more)}", hint="Try fewer --cmds"
        )
    return cmds


def _lifetime(text: str) -> float | None:
    if text == "never":
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,3})([dwy])", text)
    if not match:
        raise Invalid(f"--exp {text[:20]!r} is not a time", hint="Try: 30d, 8w, 1y or never")
    return int(match[1]) * _DAYS[match[2]] * 86400.0
