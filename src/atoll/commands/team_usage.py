"""The verb that says what the members of a team use of the pool: team usage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atoll.base.units import show_size
from atoll.commands.context import Context
from atoll.commands.registry import Reach, Registry
from atoll.commands.render import table
from atoll.commands.reply import Reply
from atoll.commands.team import OneTeam
from atoll.commands.usage import held
from atoll.commands.view import VmView

VERBS = Registry()


@VERBS.command(
    "team usage",
    help="Show what each member's VMs have of the pool, to owners and admins; to others their own."
    " Names of VMs are not told.",
    reach=Reach.ACCOUNT,
    examples=("team usage", "team usage design"),
    result={
        "range": "`now`",
        "team_id": "its id",
        "team_name": "its name",
        "members": "one entry per member: `email`, `role`, `vms` (`count`, `running`), `cpus` and"
        " `memory_bytes` (`allotted`, `running`), `disk_bytes` (`allotted`, `used`)",
    },
)
async def usage(ctx: Context, args: OneTeam) -> Reply:
    team, owned = await ctx.cloud.teams.owned(ctx.caller, args.team)
    await ctx.cloud.facts.refresh()
    entries = [
        {
            "email": member.email,
            "role": member.role.value,
            **held([VmView.of(ctx.cloud, vm) for vm in vms]),
        }
        for member, vms in owned.items()
    ]
    data = {"range": "now", "team_id": team.id, "team_name": team.name, "members": entries}
    return Reply(data=data, text=_table(entries))


def _table(entries: Sequence[dict[str, Any]]) -> str:
    rows = [
        (
            entry["email"],
            f"{entry['vms']['count']}, {entry['vms']['running']} running",
            str(entry["cpus"]["allotted"]),
            show_size(entry["memory_bytes"]["allotted"]),
            show_size(entry["disk_bytes"]["allotted"]),
            show_size(entry["disk_bytes"]["used"]),
        )
        for entry in entries
    ]
    return table(("E-MAIL", "VMS", "CPU", "MEMORY", "DISK", "USED"), rows)
