"""A VM as commands show it: the row, the last facts, and how to reach it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoll.base.units import show_size
from atoll.commands.addresses import Addresses
from atoll.commands.render import instant
from atoll.domain.vm import Phase, VmRecord
from atoll.rpc.messages import Vm
from atoll.services.cloud import Cloud

REGION = {"region": "local", "region_display": "This machine"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VmView:
    """One VM at one moment."""

    record: VmRecord
    facts: Vm | None
    is_connected: bool
    addresses: Addresses

    @classmethod
    def of(cls, cloud: Cloud, record: VmRecord) -> VmView:
        """With what is known now, asking nobody."""
        return cls(
            record=record,
            facts=cloud.facts.get(record.id),
            is_connected=cloud.facts.connected,
            addresses=Addresses(cloud.config),
        )

    @property
    def status(self) -> str:
        """starting, running, paused, stopped; failed: lost; unknown while the engine is away."""
        if self.record.phase is Phase.CREATING:
            return "starting"
        if self.facts is not None:
            return self.facts.state.value
        return "failed" if self.is_connected else "unknown"

    @property
    def problem(self) -> str:
        """Why it stopped by itself or is lost, or what is degraded."""
        if self.facts is not None:
            return self.facts.problem
        is_lost = self.is_connected and self.record.phase is Phase.LIVE
        return "the engine does not have it" if is_lost else ""

    def listed(self, *, long: bool) -> dict[str, Any]:
        """One entry of `ls --json`."""
        vm = self.record
        entry: dict[str, Any] = {
            "vm_name": vm.label,
            **self.addresses.ssh_fields(vm.label),
            "https_url": self.addresses.https_url(vm.label),
            "status": self.status,
            **REGION,
            "tags": list(vm.tags),
            "comment": vm.comment,
            "created_at": instant(vm.created_at),
            "egress_policy": "all",
        }
        if self.problem:
            entry["problem"] = self.problem
        if long:
            entry |= {
                "image": vm.image,
                "cpus": vm.cpus,
                "memory_bytes": vm.memory_bytes,
                "disk_bytes": vm.disk_bytes,
                "proxy_port": vm.port,
                "share": share_word(vm),
            }
        return entry

    def row(self, *, long: bool) -> tuple[str, ...]:
        """One line of `ls`; the columns are those of `head`."""
        vm = self.record
        size = (
            (
                vm.image,
                str(vm.cpus),
                show_size(vm.memory_bytes),
                show_size(vm.disk_bytes),
                instant(vm.created_at),
                share_word(vm),
            )
            if long
            else ()
        )
        state = f"{self.status}: {self.problem}" if self.problem else self.status
        link = self.addresses.https_url(vm.label)
        return (vm.label, state, *size, link, ",".join(vm.tags), vm.comment)


def head(*, long: bool) -> tuple[str, ...]:
    """Titles of the columns of `ls`."""
    size = ("IMAGE", "CPU", "MEMORY", "DISK", "CREATED", "WEB") if long else ()
    return ("NAME", "STATUS", *size, "URL", "TAGS", "COMMENT")


def share_word(vm: VmRecord) -> str:
    """`public` or `private`."""
    return "public" if vm.is_public else "private"
