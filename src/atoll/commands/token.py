"""Verbs that make API tokens: ssh-key generate-api-key, ssh-key shorten."""

from __future__ import annotations

import re
from dataclasses import dataclass

from atoll.base.errors import Denied, Invalid
from atoll.commands.context import Context
from atoll.commands.key import limits
from atoll.commands.registry import Reach, Registry, Source, argument, flag
from atoll.commands.render import instant
from atoll.commands.reply import Reply
from atoll.domain.permission import DEFAULT_CMDS
from atoll.services.tokens import ApiToken

VERBS = Registry()
_DAYS = {"d": 1, "w": 7, "y": 365}
_MOST_DAYS = 36_500
_RESULT = {
    "label": "its name",
    "token": "the token, for `Authorization: Bearer`",
    "namespace": "where it is good",
    "fingerprint": "how lists show it",
    "cmds": "commands it may run",
    "expires_at": "when it ends, UTC",
}


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
    vm: str | None = flag(
        "--vm", "good for this VM only, and at its web address", value="VM", source=Source.VM
    )
    tag: str | None = flag(
        "--tag", "good for VMs with this tag only", value="TAG", source=Source.TAG
    )


@VERBS.command(
    "ssh-key generate-api-key",
    help="Make a token for POST /exec, and for a VM's web address with --vm. It is shown once.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=(
        "ssh-key generate-api-key --label ci --cmds ls,new,rm --exp 30d",
        "ssh-key generate-api-key --vm web --cmds 'ssh web,stat'",
        "ssh-key generate-api-key --tag ci --cmds new,ls,ssh,rm",
    ),
    result=_RESULT,
)
async def generate(ctx: Context, args: Generate) -> Reply:
    cmds = _checked_cmds(ctx, args.cmds)
    seconds = _lifetime(args.expires)
    expires_at = None if seconds is None else ctx.cloud.now() + seconds
    vm, tag = await limits(ctx, args.vm, args.tag)
    made, token = await ctx.cloud.tokens.new(
        ctx.caller.account, args.label, cmds, vm=vm, tag=tag, expires_at=expires_at
    )
    return _reply(ctx, made, token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shorten:
    token: str = argument("token", "a token you signed: atoll0.… or exe0.…", secret=True)
    label: str = flag("--label", "what to call it", default="", value="NAME")


@VERBS.command(
    "ssh-key shorten",
    help="Swap a token you signed for a short one that means the same and ends with it or its key.",
    reach=Reach.NOTHING,
    mutates=True,
    aliases=("exe0-to-exe1",),
    examples=("ssh-key shorten atoll0.e30.U1NIU0lHAAAAAQ…",),
    result=_RESULT,
)
async def shorten(ctx: Context, args: Shorten) -> Reply:
    return _reply(ctx, *await ctx.cloud.tokens.shorten(ctx.caller, args.token, args.label))


def _reply(ctx: Context, made: ApiToken, token: str) -> Reply:
    data = {
        "label": made.label,
        "token": token,
        "namespace": ctx.cloud.tokens.namespace,
        "fingerprint": made.fingerprint,
        "cmds": list(made.cmds or ()),
    } | ({} if made.expires_at is None else {"expires_at": instant(made.expires_at)})
    return Reply(data=data, text=token)


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
    days = int(match[1]) * _DAYS[match[2]]
    if days > _MOST_DAYS:
        raise Invalid(f"--exp {text} is more than 100 years", hint="Try: --exp never")
    return days * 86400.0
