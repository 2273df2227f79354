"""The verb that gives a VM to somebody else: transfer."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry, Source, argument
from atoll.commands.reply import Reply
from atoll.domain.email import check_email

VERBS = Registry()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    vm: str = argument("vm", "VM to give away", source=Source.VM)
    email: str = argument(
        "e-mail", "whose it shall be: somebody of a team of yours", convert=check_email
    )


@VERBS.command(
    "transfer",
    help="Give a VM to somebody. It is theirs at once: its shares, and keys and tokens made for it, end;"
    " name, tags and all that is in it stay.",
    reach=Reach.ACCOUNT,
    mutates=True,
    aliases=("team transfer",),
    examples=("transfer web bob@example.com",),
    result={"status": "`transferred`", "vm_name": "the VM", "owner": "whose it is now"},
    sometimes={"problem": "what inside the VM does not follow yet"},
)
async def transfer(ctx: Context, args: Transfer) -> Reply:
    problem = await ctx.cloud.handover.transfer(ctx.caller, args.vm, args.email, act=ctx.act)
    data = {"status": "transferred", "vm_name": args.vm, "owner": args.email}
    text = f"{args.vm} is {args.email}'s now"
    if problem:
        data["problem"] = problem
        text += f"; {problem}"
    return Reply(data=data, text=text, changed=())  # what happened is noted with the handover
