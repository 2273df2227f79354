"""Write a pool as a release leaves it on the disk, by that release's own code; tests/past/README.md.

    git worktree add /tmp/old COMMIT
    PYTHONPATH=/tmp/old/src python -P tests/past/write_pool.py tests/past/pools/COMMIT.tar.xz

It uses only what every release so far has, or asks whether it has it. What only QEMU, an archive or a
kernel can make is a few bytes of stand-in: guest memory, device state, kernel, the content of the disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import sys
import tarfile
import tempfile
from pathlib import Path

from atoll.base import atomic, proc
from atoll.config import Config, Paths
from atoll.domain.layers import LayerId
from atoll.engine.boot import Host
from atoll.engine.disks import Disks
from atoll.engine.images import manifest
from atoll.engine.images.build import Progress
from atoll.engine.images.cache import BuiltImage, Images
from atoll.engine.images.installed import Installed
from atoll.engine.images.recipe import Recipe
from atoll.engine.qemu.argv import shape_key
from atoll.engine.qemu.machine import Saved
from atoll.engine.qemu.memory import PAGE, Pages, Run
from atoll.engine.qemu.probe import Accel
from atoll.engine.records import Intent, Record, Records
from atoll.engine.saved import SavedMemory
from atoll.engine.templates import Meta, Templates
from atoll.rpc.messages import Outcome, Spec, Vm, VmState

MIB, GIB = 1 << 20, 1 << 30
SPEC = Spec(image="debian", cpus=1, memory_bytes=512 * MIB, disk_bytes=10 * GIB)
HOST = Host(accel=Accel(name="tcg", cpu_model="max", reason="test data"), qemu_version="7.2")
TEMPLATE = "tmpl-000000000001"
PARENT, CHILD, PAUSED, STOPPED, HALF, COPY = (f"vm-{n:012}" for n in range(1, 7))


async def build(
    recipe: Recipe, *, architecture: str, folder: Path, mirror: str, progress: Progress
) -> manifest.Manifest:
    """An image of this release's recipe whose files are stand-ins; the disk is an empty qcow2."""
    disk = folder / manifest.DISK
    options = ["-q", "-f", "qcow2", "-o", "cluster_size=128k,extended_l2=on"]
    await proc.run(["qemu-img", "create", *options, str(disk), "1G"], seconds=60)
    for name in (manifest.KERNEL, manifest.INITRD):
        (folder / name).write_text(f"stand-in for {name}\n")
    names = (manifest.DISK, manifest.KERNEL, manifest.INITRD)
    facts = manifest.Manifest(
        name=recipe.name,
        digest=recipe.digest(architecture),
        suite=recipe.suite,
        architecture=architecture,
        kernel="6.12.57+deb13-cloud-amd64",
        cmdline="root=/dev/vda rw",
        cmdline_tcg="mitigations=off",
        default_port=recipe.default_port,
        login_user=recipe.login_user,
        virtual_bytes=recipe.virtual_bytes,
        built_at="2026-11-21T10:00:00+00:00",
        build_seconds=61.5,
        archive_date="2026-11-20T14:00:00+00:00",
        tree_sha256="0" * 64,
        tools={"mmdebstrap": "mmdebstrap 1.3.5", "qemu-img": "qemu-img version 7.2.22"},
        files={name: manifest.describe(folder / name) for name in names},
        packages={"systemd": "257.8-1~deb13u2"},
    )
    atomic.write_json(folder / manifest.NAME, facts.model_dump(mode="json"), mode=0o444)
    return facts


def memory(value: bytes) -> Saved:
    """A machine whose pages 2 and 5 are filled with `value`."""
    pages = Pages(SPEC.memory_bytes)
    pages.runs = [Run(2 * PAGE, PAGE), Run(5 * PAGE, PAGE)]
    for run in pages.runs:
        pages._view[run.offset : run.offset + PAGE] = value * PAGE
    return Saved(pages=pages, state=b"device state, " + value)


def record(vm: str, state: VmState, image: BuiltImage, **more: object) -> Record:
    """A record with every field that says something, as far as this release has it."""
    outcome = Outcome(
        vm=Vm(vm=vm, owner="acct-ann", spec=SPEC, state=state, warm=True, address="10.213.0.6"),
        timings_ms={"disk": 1.5, "total": 900.0},
    )
    facts: dict[str, object] = {
        "vm": vm,
        "owner": "acct-ann",
        "spec": SPEC,
        "state": state,
        "hostname": "web",
        "created_at": 1763715600.5,
        "login_user": "atoll",
        "image": image.digest,
        "done": {"op-000000000001": outcome},
    }
    known = Record.model_fields
    return Record.model_validate(facts | {key: more[key] for key in more if key in known})


async def template(disks: Disks, templates: Templates, image: BuiltImage, key: str) -> LayerId:
    """A warm template, with its layer."""
    maker = "vm-000000000099"
    await disks.create(
        maker, "system", parent=disks.layer_of_image(image.digest), size_bytes=SPEC.disk_bytes
    )
    layer = await disks.keep_layer(maker, TEMPLATE)
    await disks.remove(maker)
    made = memory(b"t")
    meta = Meta(
        id=TEMPLATE,
        key=key,
        image="debian",
        digest=image.digest,
        cpus=SPEC.cpus,
        memory_bytes=SPEC.memory_bytes,
        disk_bytes=SPEC.disk_bytes,
        layer=layer,
        state_sha256=hashlib.sha256(made.state).hexdigest(),
        created_at=1763715000.25,
    )
    templates.write(meta, made)
    return layer


async def clone(disks: Disks, source: str, child: str) -> None:
    """The disk of `child`, of the instant."""
    new = "size_bytes" in inspect.signature(disks.fork).parameters
    size = {"size_bytes": SPEC.disk_bytes} if new else {}
    fork = await disks.fork(source, child, "acct-ann", None, **size)
    await fork.prepare()
    await fork.finish()


def save(records: Records, vm: str, key: str) -> None:
    """The memory of a VM that is paused."""
    saved = SavedMemory(records.folder(vm))
    meta = saved.write(memory(b"p"), key)
    if meta is not None:  # the first release did both in one
        saved.commit(meta)


async def fill(config: Config) -> None:
    """A VM that ran when the machine lost power, its clone, and one in each state at rest."""
    disks = await Disks.open(config)
    images = Images(config.paths.cache, builder=build)
    installed = Installed(config.pool / "images", images=images, disks=disks, progress=print)
    installed.open()
    image = await installed.ensure("debian")
    key = shape_key(HOST.shape(image, SPEC.cpus, SPEC.memory_bytes))
    templates, records = Templates(config.pool / "templates"), Records(config.pool / "vms")
    templates.open()
    records.load()
    layer = await template(disks, templates, image, key)
    for vm in (PARENT, PAUSED, STOPPED, HALF):
        await disks.create(vm, "acct-ann", parent=layer, size_bytes=SPEC.disk_bytes)
    await clone(disks, PARENT, CHILD)
    await clone(disks, STOPPED, COPY)
    running = {"base": TEMPLATE, "warm": True, "slot": 1, "pid": 4_000_000, "pid_started": 1}
    records.put(record(PARENT, VmState.RUNNING, image, **running))
    intent = Intent(op="op-000000000002", kind="pause")
    again = running | {"slot": 2, "pid": 4_000_001, "intent": intent}
    records.put(record(CHILD, VmState.RUNNING, image, **again))
    records.put(record(PAUSED, VmState.PAUSED, image, base=TEMPLATE, warm=True))
    save(records, PAUSED, key)
    records.put(record(STOPPED, VmState.STOPPED, image, problem="qemu ended with signal 9"))
    half = Intent(op="op-000000000003", kind="create", fresh=True)
    records.put(record(HALF, VmState.STARTING, image, intent=half))
    records.put(record(COPY, VmState.STOPPED, image, newborn=True))
    (config.pool / "prologues").mkdir()
    atomic.write(config.pool / "prologues" / key, b"stand-in for a prologue", mode=0o400)


def main(target: Path) -> None:
    """Write it to `target`, packed: its layers are megabytes of zeros."""
    with tempfile.TemporaryDirectory() as folder:
        paths = Paths(state=Path(folder), run=Path(folder) / "run", cache=Path(folder) / "cache")
        config = Config(paths=paths)
        config.pool.mkdir()
        asyncio.run(fill(config))
        with tarfile.open(target, "w:xz") as tar:
            tar.add(config.pool, arcname=".")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
