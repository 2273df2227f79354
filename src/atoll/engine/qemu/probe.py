"""Which accelerator this host can really use, found by booting a tiny guest on it.

A /dev/kvm that opens proves nothing: paravirtual KVMs interpret guest kernels or stop at the first
instruction they do not know. The probe is 238 bytes of firmware (probe.S beside this file) that
enters long mode, does a cmpxchg16b and an fwait, counts to three million in ring 0 and leaves
through the debug-exit device. Real virtualisation and TCG take under 0.1 s; anything else fails or
passes the deadline. The verdict is kept per host kernel, CPU and QEMU.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import platform
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from atoll.base import atomic, proc
from atoll.base.errors import AtollError, Unavailable

DEADLINE_S = 4.0
PASSED = 33  # the guest writes 0x10; isa-debug-exit ends QEMU with 2 * value + 1
_FIRMWARE = base64.b64decode(
    "+ozIjtguZg8BFugADyDADAEPIsBm6hwADwAIAGa4EACO2I7AjtC8AIAAADHAvwAQAAC5AAwAAPOrxwUAEAAAAyAAAMcFACA"
    "AAAMwAADHBQAwAACDAAAAuAAQAAAPItgPIOANIAYAAA8i4LmAAADADzINAQEAAA8wDyDADQAAAIAPIsDqigAPABgAvwBgAA"
    "AxwDHSuwEAAAAxyUiJB0iJRwjwSA/HD3URm7nAxi0A/8l1/Ga6AQWwEO5mugEFsBHu9Ov9Dx9EAAAAAAAAAAAAAP//AAAAm"
    "88A//8AAACTzwD//wAAAJuvAB8AyAAPAA=="
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accel:
    """`name` is kvm or tcg; `cpu_model` what `-cpu` gets; `reason` says why, for `doctor`."""

    name: str
    cpu_model: str
    reason: str


TCG_MODEL = "max"
# Some hosts abort on setting MSR 0x10a (arch-capabilities); the second model leaves it out.
KVM_MODELS = ("host", "host,-arch-capabilities")


async def choose(wanted: str, *, cache: Path, qemu_version: str) -> Accel:
    """The accelerator for this host; `wanted` is auto, kvm or tcg.

    Raises Unavailable when kvm is demanded and the probe fails on it.
    """
    if wanted == "tcg":
        return Accel(name="tcg", cpu_model=TCG_MODEL, reason="set in the configuration")
    verdict = _cached(cache, qemu_version)
    if verdict is None:
        verdict = await _probe_kvm()
        atomic.write_json(cache, {"host": _host(qemu_version), "accel": asdict(verdict)})
    if wanted == "kvm" and verdict.name != "kvm":
        raise Unavailable(f"KVM does not work here: {verdict.reason}", hint='Try: accel = "auto"')
    return verdict


async def boots(accel: str, cpu_model: str) -> str:
    """Run the probe guest; "" when it passed, else why not."""
    with tempfile.NamedTemporaryFile(prefix="atoll-probe-") as firmware:
        firmware.write(image())
        firmware.flush()
        argv = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-M", f"pc,accel={accel}", "-cpu", cpu_model, "-m", "16",
            "-bios", firmware.name, "-device", "isa-debug-exit,iobase=0x501,iosize=1",
        ]  # fmt: skip
        try:
            done = await proc.run(argv, seconds=DEADLINE_S, check=False)
        except AtollError:
            return f"a probe guest did not finish within {DEADLINE_S:g} s"
    if done.code == PASSED:
        return ""
    said = done.err.decode(errors="replace").strip().splitlines()
    return f"a probe guest ended with {done.code}" + (f": {said[0][:120]}" if said else "")


def image() -> bytes:
    """A 64 KiB flat firmware: the code at its start, a far jump to it at the reset vector."""
    firmware = bytearray(1 << 16)
    firmware[: len(_FIRMWARE)] = _FIRMWARE
    firmware[0xFFF0:0xFFF5] = b"\xea\x00\x00\x00\xf0"  # ljmp 0xf000:0
    return bytes(firmware)


async def _probe_kvm() -> Accel:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Accel(name="tcg", cpu_model=TCG_MODEL, reason="/dev/kvm cannot be opened")
    if platform.machine() != "x86_64":
        # Untested: no probe firmware for this architecture yet.
        return Accel(name="kvm", cpu_model="host", reason="/dev/kvm opens (not probed)")
    why = ""
    for model in KVM_MODELS:
        why = await boots("kvm", model)
        if not why:
            return Accel(name="kvm", cpu_model=model, reason="a probe guest ran on it")
    return Accel(name="tcg", cpu_model=TCG_MODEL, reason=f"/dev/kvm opens, but {why}")


def _cached(path: Path, qemu_version: str) -> Accel | None:
    try:
        kept = json.loads(path.read_text())
        if kept["host"] != _host(qemu_version):
            return None
        return Accel(**kept["accel"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _host(qemu_version: str) -> dict[str, str]:
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "qemu": qemu_version,
        "kvm": str(os.path.exists("/dev/kvm")),
    }


def cpu_name() -> str:
    """Model name and flags of the first CPU: what `-cpu host` state depends on."""
    facts = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
        if line.startswith(("model name", "flags", "Features"))
    ]
    return " | ".join(facts)


async def qemu_version() -> str:
    """The installed QEMU's version with the package's own suffix."""
    binary = "qemu-system-aarch64" if platform.machine() == "aarch64" else "qemu-system-x86_64"
    done = await proc.run([binary, "--version"], seconds=10)
    return done.out.decode(errors="replace").splitlines()[0].removeprefix("QEMU emulator version ")


async def _main() -> None:
    for accel, model in (("tcg", TCG_MODEL), ("kvm", KVM_MODELS[0]), ("kvm", KVM_MODELS[1])):
        print(accel, model, await boots(accel, model) or "passed")  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_main())
