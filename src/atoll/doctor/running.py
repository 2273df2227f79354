"""What the running parts say of themselves: processes, and the engine's own verdicts."""

from __future__ import annotations

from collections.abc import Mapping

from atoll.base.errors import AtollError
from atoll.base.units import show_size
from atoll.config import Config
from atoll.doctor.finding import Finding, degraded, missing, ok
from atoll.rpc.client import EngineClient
from atoll.rpc.messages import Node, NodeInfo

ASK_S = 10.0


async def examine(config: Config, processes: Mapping[str, str]) -> list[Finding]:
    """`processes`: name -> `running …` or what is wrong (from whoever supervises them)."""
    findings = [
        ok(name, fact) if fact.startswith("running") else missing(name, fact, "make up")
        for name, fact in processes.items()
    ]
    engine = EngineClient(socket=config.engine_socket)
    try:
        node = await engine.call(NodeInfo(), Node, seconds=ASK_S)
    except AtollError as error:
        return [*findings, missing("engine RPC", error.message, "make up")]
    finally:
        await engine.close()
    return [*findings, *_node(node)]


def _node(node: Node) -> list[Finding]:
    accel = f"{node.accel}: {node.accel_reason}; QEMU {node.qemu_version}"
    findings = [
        ok("acceleration", accel)
        if node.accel == "kvm"
        else degraded("acceleration", accel, "a host with working KVM runs VMs at full speed")
    ]
    images = ", ".join(image.name for image in node.images)
    findings.append(
        ok("images", images) if images else missing("images", "none is built yet", "make up")
    )
    pool = f"pool {show_size(node.pool_free_bytes)} of {show_size(node.pool_bytes)} free"
    findings.append(ok("VMs", f"{node.vms}; {pool}"))
    return findings + [degraded("engine", problem, "atoll status") for problem in node.problems]
