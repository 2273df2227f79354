"""Verbs that make VMs: new, cp."""

from __future__ import annotations

import time
from dataclasses import dataclass

from atoll.base.units import show_size
from atoll.commands import first_boot
from atoll.commands.context import Context
from atoll.commands.label import split_tags
from atoll.commands.registry import (
    Reach,
    Registry,
    Source,
    argument,
    flag,
    whole_number,
)
from atoll.commands.render import instant
from atoll.commands.reply import Reply
from atoll.commands.view import REGION, VmView
from atoll.domain.vm import VmRecord
from atoll.services.vms import Copy, Made, NewVm

VERBS = Registry()
RESIZED = "cold boot: another size than the original's"
OF_SNAPSHOT = "cold boot: from the disk of the snapshot alone"
COLD = "cold boot: no warm template of this size yet"
WARMING = "one is being made"


@dataclass(frozen=True, slots=True, kw_only=True)
class New:
    name: str | None = flag("--name", "name; two random words if not given", value="NAME")
    image: str | None = flag(
        "--image", "image to start from", value="IMAGE", source=Source.IMAGE, shown="debian"
    )
    cpus: int | None = flag("--cpu", "vCPUs", value="N", convert=whole_number("--cpu"))
    memory: str | None = flag(
        "--memory", "memory, as 512M or 2G; a plain number is gigabytes", value="SIZE"
    )
    disk: str | None = flag(
        "--disk", "disk, as 10G or 10; blocks are taken when written", value="SIZE"
    )
    tags: tuple[str, ...] = flag(
        "--tag", "tag; several with commas", value="TAG", many=True, source=Source.TAG
    )
    comment: str = flag("--comment", "a note of at most 200 bytes", default="")
    setup_script: str | None = flag(
        "--setup-script",
        "script that runs once as root, at most 10 KiB; `\\n` ends a line; - reads stdin; '' none",
        value="TEXT|-",
        secret=True,
    )
    env: tuple[str, ...] = flag(
        "--env",
        "variable for logins and the setup script; repeat it for more",
        value="NAME=VALUE",
        many=True,
        secret=True,
    )
    no_email: bool = flag(
        "--no-email", "for scripts made elsewhere: this cloud sends no mail anyway", default=False
    )


@VERBS.command(
    "new",
    help="Make a VM and wait until it answers.",
    reach=Reach.NEW_VM,
    mutates=True,
    examples=(
        "new",
        "new --name web --memory 2G --tag prod",
        "new --name web --json",
        r"new --setup-script '#!/bin/sh\napt-get update' --env MODE=production",
        "new --setup-script - < setup.sh",
    ),
    result={
        "vm_name": "its name",
        "tags": "its tags",
        "ssh_command": "the line that opens a shell",
        "ssh_dest": "user@host of that line",
        "ssh_host": "its host",
        "ssh_user": "its user",
        "ssh_port": "its port",
        "https_url": "its web address",
        "proxy_port": "the port inside that answers there",
        "comment": "its comment",
        "created_at": "when, UTC",
        "egress_policy": "`all`: it may connect out",
        "region": "`local`",
        "region_display": "for people",
        "status": "`running`",
        "cold_booted": "`true` when it booted instead of starting from a warm template",
        "elapsed_s": "seconds from command to answer",
    },
    sometimes={"setup": "`running`: its setup script has been started"},
)
async def new(ctx: Context, args: New) -> Reply:
    started = time.monotonic()
    script = None if args.setup_script is None else first_boot.script_of(ctx, args.setup_script)
    request = NewVm(
        name=args.name,
        image=args.image,
        cpus=args.cpus,
        memory=args.memory,
        disk=args.disk,
        tags=split_tags(args.tags),
        comment=args.comment,
        setup_script=script,
        env=args.env,
    )
    made = await ctx.cloud.vms.create(ctx.caller, request, act=ctx.act, progress=ctx.progress)
    return _made(ctx, made, time.monotonic() - started)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cp:
    vm: str = argument("source", "VM to copy, or VM@SNAPSHOT", source=Source.VM)
    name: str | None = argument("new", "name of the copy; random if not given", default=None)
    cpus: int | None = flag(
        "--cpu", "vCPUs, if not as many", value="N", convert=whole_number("--cpu")
    )
    memory: str | None = flag("--memory", "memory, if not as much", value="SIZE")
    disk: str | None = flag("--disk", "a larger disk", value="SIZE")
    copy_tags: bool = flag("--copy-tags", "give the copy the same tags", default=True, shown="true")


@VERBS.command(
    "cp",
    help="Clone a VM. A running one with its memory and processes, and it goes on running. A copy with"
    " other vCPUs or memory, or of a snapshot without memory, has the disk alone, and boots.",
    reach=Reach.NEW_VM,
    mutates=True,
    examples=(
        "cp web web-next",
        "cp web --copy-tags=false",
        "cp web big --memory 4G --disk 50G",
        "cp web@before-upgrade web-old",
    ),
    result={
        "name": "the copy's name",
        "vm_name": "the same",
        "state": "the copy's state",
        "source": "the VM it was made from",
        "ssh": "the line that opens a shell",
        "ssh_dest": "user@host of that line",
        "ssh_host": "its host",
        "ssh_user": "its user",
        "ssh_port": "its port",
        "https_url": "its web address",
        "tags": "its tags",
        "comment": "its comment",
        "created_at": "when, UTC",
        "egress_policy": "`all`: it may connect out",
        "cold_booted": "`true` when it has the disk alone and booted",
        "elapsed": "seconds from command to answer",
    },
    sometimes={"snapshot": "the snapshot it was made from"},
)
async def cp(ctx: Context, args: Cp) -> Reply:
    started = time.monotonic()
    source, at, snapshot = args.vm.partition("@")
    request = Copy(
        snapshot=snapshot if at else None,
        name=args.name,
        cpus=args.cpus,
        memory=args.memory,
        disk=args.disk,
        copy_tags=args.copy_tags,
    )
    made = await ctx.cloud.vms.clone(
        ctx.caller, source, request, act=ctx.act, progress=ctx.progress
    )
    elapsed_s = time.monotonic() - started
    view = VmView.of(ctx.cloud, made.vm)
    name = made.vm.label
    data = {
        "name": name,
        "vm_name": name,
        "state": view.status,
        "source": source,
        "ssh": ctx.addresses.ssh_command(name),
        **ctx.addresses.ssh_fields(name),
        "https_url": ctx.addresses.https_url(name),
        "tags": list(made.vm.tags),
        "comment": made.vm.comment,
        "created_at": instant(made.vm.created_at),
        "egress_policy": "all",
        "cold_booted": made.outcome is not None and made.outcome.cold_booted,
        "elapsed": round(elapsed_s, 3),
    }
    if at:
        data["snapshot"] = snapshot
    why_cold = OF_SNAPSHOT if at else RESIZED
    text = _summary(ctx, made, elapsed_s, f", a copy of {args.vm}", why_cold=why_cold)
    return Reply(data=data, text=text)


def _made(ctx: Context, made: Made, elapsed_s: float) -> Reply:
    vm, name = made.vm, made.vm.label
    data = {
        "vm_name": name,
        "tags": list(vm.tags),
        "ssh_command": ctx.addresses.ssh_command(name),
        **ctx.addresses.ssh_fields(name),
        "https_url": ctx.addresses.https_url(name),
        "proxy_port": vm.port,
        "comment": vm.comment,
        "created_at": instant(vm.created_at),
        "egress_policy": "all",
        **REGION,
        "status": VmView.of(ctx.cloud, vm).status,
        "cold_booted": made.outcome is not None and made.outcome.cold_booted,
        "elapsed_s": round(elapsed_s, 3),
    }
    text = _summary(ctx, made, elapsed_s, f": {_shape(vm)}", why_cold=COLD)
    if made.has_setup:
        data["setup"] = "running"
        text += f"\n{first_boot.note(ctx, name)}"
    return Reply(data=data, text=text)


def _summary(ctx: Context, made: Made, elapsed_s: float, more: str, *, why_cold: str) -> str:
    name = made.vm.label
    cold = ""
    if made.outcome is not None and made.outcome.cold_booted:
        cold = f", {why_cold}" + (f", {WARMING}" if made.outcome.warming else "")
    return "\n".join(
        (
            f"{name} is {VmView.of(ctx.cloud, made.vm).status} ({elapsed_s:.2f} s{cold}){more}",
            ctx.addresses.ssh_command(name),
            ctx.addresses.https_url(name),
        )
    )


def _shape(vm: VmRecord) -> str:
    memory, disk = show_size(vm.memory_bytes), show_size(vm.disk_bytes)
    return f"{vm.image}, {vm.cpus} vCPU, {memory} memory, {disk} disk"
