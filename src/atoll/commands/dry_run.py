"""`--dry-run`: a verb that changes something, run as a rehearsal, and what it says of that.

Not up to the verb: the language gives it services that cannot change anything.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from atoll.base.units import show_size
from atoll.commands.context import Context
from atoll.commands.registry import Command
from atoll.commands.reply import Reply
from atoll.domain.operation import Json
from atoll.services.rehearsal import Rehearsed
from atoll.services.step import Step

_TEXT = {
    "create": "make {vm_name}: {shape}",
    "copy": "copy {source} to {vm_name}: {shape}",
    "restore": "bring {former_name} back{other}: {status}",
    "rename": "rename {vm_name} to {new_name}",
    "inform": "tell {vm_name} its name and keys",
    "pause": "pause {vm_name}: its memory goes to disk",
    "resume": "let {vm_name} run",
    "restart": "restart {vm_name}",
    "resize": "resize {vm_name}: {sizes}",
    "snapshot": "keep the disk of {vm_name} as {name}",
    "rollback": "roll {vm_name} back to {to}, and keep what it is now as {name}",
    "drop-snapshot": "remove snapshot {name} of {vm_name}",
    "remove": "remove {vm_name}",
    "transfer": "give {vm_name} to {owner}",
    "create-team": "make team {team_name}",
    "rename-team": "rename team {team_name} to {new_name}",
    "remove-team": "end team {team_name}",
    "join-team": "join team {team_name}: {role}",
    "leave-team": "leave team {team_name}",
    "decline": "decline the invitation to team {team_name}",
    "invite": "invite {email} to team {team_name}: {role}",
    "uninvite": "take back the invitation of {email} to team {team_name}",
    "remove-member": "remove {email} from team {team_name}",
    "set-role": "make {email} in team {team_name}: {role}",
    "add-key": "add key {name} {fingerprint}{only}",
    "remove-key": "remove key {name} {fingerprint}{only}",
    "rename-key": "rename key {name} to {new_name}",
    "add-token": "make API token {label}{only} for: {cmds}",
    "remove-token": "remove API token {label}{only}",
    "rename-token": "rename API token {label} to {new_label}",
    "sign-in-link": "make a sign-in link",
    "set-default": "set the default {key}",
    "add-domain": "let {domain} lead to {vm_name}",
    "remove-domain": "let {domain} lead to {vm_name} no more",
    "remove-default": "remove the default {key}",
    "grant": "let {to} open {what}",
    "withdraw": "take {what} from {to}",
    "add-link": "make a share link to {what}",
    "remove-link": "end a share link to {what}",
    "receive": "let you open {what}",
    "ask": "ask for {vm_name}",
    "end-session": "sign browser {id} out",
    "remove-passkey": "remove passkey {name}",
    "invite-person": "invite {email} by mail",
    "uninvite-person": "take the invitation of {email} back",
}
STEPS = (*_TEXT, "set")  # all that `do` of a step can be


async def rehearse(ctx: Context, command: Command, arguments: Any) -> Reply:
    """Check everything that the command checks, and say what it would do.

    Raises what the command would raise.
    """
    notes: list[str] = []
    cloud = ctx.cloud.rehearsal(ctx.caller.account)
    sessions = ctx.sessions.upon(cloud.store)
    rehearsal = replace(ctx, cloud=cloud, sessions=sessions, progress=notes.append)
    try:
        reply = await command.run(rehearsal, arguments)
    except Rehearsed as ended:
        return _foretold(_without_chance(ended, arguments), notes)
    if reply.exit:
        return reply  # the command itself would end so, and have changed nothing
    return _foretold(Rehearsed(()), notes)


def _without_chance(ended: Rehearsed, arguments: Any) -> Rehearsed:
    """Names that would be drawn anew are left out."""
    steps = []
    for step in ended.steps:
        drawn = step.do in ("create", "copy") and arguments.name is None
        moved = step.do == "restore" and step.about["vm_name"] != step.about["former_name"]
        about = {**step.about, "vm_name": None} if drawn or moved else step.about
        steps.append(Step(step.do, about))
    return Rehearsed(steps, ended.errors)


def _foretold(ended: Rehearsed, notes: list[str]) -> Reply:
    data: dict[str, Any] = {"dry_run": True, "would": [step.to_json() for step in ended.steps]}
    if notes:
        data["notes"] = notes
    if ended.errors:
        data["errors"] = {name: error.message for name, error in ended.errors.items()}
    lines = [f"would {told(step)}" for step in ended.steps] or ["nothing would change"]
    return Reply(
        data=data,
        text="\n".join([*lines, *notes, *map(str, ended.errors.values())]),
        exit=next((error.exit for error in ended.errors.values()), 0),
    )


def told(step: Step) -> str:
    """A step in words, after `would`."""
    about = step.about
    if step.do == "set":
        now = ", ".join(
            f"{key} {_value(value)}"
            for key, value in about.items()
            if key not in ("vm_name", "was")
        )
        return f"change {about['vm_name']}: {now}"
    name = about.get("vm_name")
    words = {key: _value(value) for key, value in about.items()} | {
        "vm_name": name or "a VM with a name of two random words",
        "other": "" if name else " under another name, as that one is taken",
        "only": f" for {name} only" if name else _tagged(about),
        "what": _what(about),
    }
    if "image" in about:
        words["shape"] = _shape(about)
    words["sizes"] = ", ".join(_sizes(about))
    return _TEXT[step.do].format(**words)


def _tagged(about: Any) -> str:
    return f" for VMs tagged {about['tag']} only" if "tag" in about else ""


def _what(about: Any) -> str:
    """What of a VM a grant is for."""
    port = f", port {about['port']}" if "port" in about else ""
    path = f" below {about['path']}" if "path" in about else ""
    return f"{about.get('vm_name')}{port}{path}" + (" as root" if "level" in about else "")


def _sizes(about: Any) -> list[str]:
    said = [f"{about['cpus']} vCPU"] if "cpus" in about else []
    for key, what in (("memory_bytes", "memory"), ("disk_bytes", "disk")):
        if key in about:
            said.append(f"{show_size(about[key])} {what}")
    return said


def _shape(about: Any) -> str:
    memory, disk = show_size(about["memory_bytes"]), show_size(about["disk_bytes"])
    script = ", with a setup script" if about.get("setup_script") else ""
    return f"{about['image']}, {about['cpus']} vCPU, {memory} memory, {disk} disk{script}"


def _value(value: Json) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "all" if value is None else str(value) or "none"
