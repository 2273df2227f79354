"""Make an image from its recipe: packages into a folder, the folder into a disk.

Everything happens in one temporary folder; what is left of an interrupted build has no manifest
and never bears a finished image's name. The package tools run in a mount and a process namespace
of their own, so a killed build leaves neither mounts nor processes.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from atoll.base import atomic, proc
from atoll.base.aio import TaskGroup
from atoll.engine.images import manifest, rootfs
from atoll.engine.images.disk import make_disk
from atoll.engine.images.recipe import CUSTOMISE, Recipe, cmdline, cmdline_tcg

Progress = Callable[[str], None]


class Builder(Protocol):
    """Fills an empty folder with a finished image; `build` is the one that is used."""

    async def __call__(
        self, recipe: Recipe, *, architecture: str, folder: Path, mirror: str, progress: Progress
    ) -> manifest.Manifest: ...


_REMOVE_SECONDS = 600.0
_TICK_SECONDS = 3.0


async def build(
    recipe: Recipe, *, architecture: str, folder: Path, mirror: str, progress: Progress
) -> manifest.Manifest:
    """Fill the empty `folder` with a finished image, manifest last.

    `mirror` replaces the tool's own choice of archive when it is not empty. Raises ToolFailed with
    the tool's last words, Unavailable past the recipe's deadline.
    """
    clock = asyncio.get_running_loop().time
    started = clock()
    work = folder / "work"
    work.mkdir(mode=0o700)
    root = work / "root"
    progress(f"{recipe.name}: installing packages")
    await _install(recipe, architecture, work, root, mirror, progress)
    date = rootfs.archive_date((work / "dates").read_text())
    epoch = int(date.timestamp())
    progress(f"{recipe.name}: making the disk")
    kernel = await asyncio.to_thread(
        rootfs.take_boot_files, root, folder / manifest.KERNEL, folder / manifest.INITRD
    )
    await asyncio.to_thread(rootfs.tidy, root, epoch)
    packages = await asyncio.to_thread(rootfs.packages, root)
    tree = await asyncio.to_thread(rootfs.tree_sha256, root)
    digest = recipe.digest(architecture)
    await make_disk(
        root, folder / manifest.DISK, size=recipe.virtual_bytes, epoch=epoch, digest=digest
    )
    files = {}
    for name in (manifest.DISK, manifest.KERNEL, manifest.INITRD):
        files[name] = await asyncio.to_thread(_seal, folder / name)
    await proc.run(["rm", "-rf", "--one-file-system", str(work)], seconds=_REMOVE_SECONDS)
    facts = manifest.Manifest(
        name=recipe.name,
        digest=digest,
        suite=recipe.suite,
        architecture=architecture,
        kernel=kernel,
        cmdline=cmdline(architecture),
        cmdline_tcg=cmdline_tcg(),
        default_port=recipe.default_port,
        login_user=recipe.login_user,
        virtual_bytes=recipe.virtual_bytes,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        build_seconds=round(clock() - started, 1),
        archive_date=date.isoformat(),
        tree_sha256=tree,
        tools=await _tools(),
        files=files,
        packages=packages,
    )
    atomic.write_json(folder / manifest.NAME, facts.model_dump(mode="json"), mode=0o444)
    return facts


def install_argv(
    recipe: Recipe, architecture: str, work: Path, root: Path, mirror: str
) -> list[str]:
    """The command that fills `root`; files it needs are in `work`."""
    packages = (*recipe.packages, f"linux-image-cloud-{architecture}")
    work_quoted, script = shlex.quote(str(work)), shlex.quote(str(work / "customise.sh"))
    argv = ["setpriv", "--pdeathsig=KILL"]  # an engine that is killed takes its build along
    argv += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    argv += ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--quiet"]
    argv += [f"--architectures={architecture}", f"--include={','.join(sorted(packages))}"]
    argv += ['--aptopt=Acquire::Languages "none"']
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.excluded]
    argv += [f"--dpkgopt=path-include={pattern}" for pattern in recipe.included]
    argv += [
        f'--customize-hook=grep -h "^Date:" "$1"/var/lib/apt/lists/*Release > {work_quoted}/dates',
        f"--customize-hook=tar-in {work_quoted}/sources.tar /",
        f'--customize-hook=chroot "$1" /bin/sh -eu < {script}',
        recipe.suite,
        str(root),
    ]
    return [*argv, mirror] if mirror else argv


async def _install(
    recipe: Recipe, architecture: str, work: Path, root: Path, mirror: str, progress: Progress
) -> None:
    await asyncio.to_thread(rootfs.pack_sources, work / "sources.tar")
    script = CUSTOMISE.read_text() + recipe.script
    (work / "customise.sh").write_text(script)
    argv = install_argv(recipe, architecture, work, root, mirror)
    async with TaskGroup() as group:
        ticker = group.create_task(_tick(recipe.name, root, progress))
        try:
            await proc.run(argv, seconds=recipe.build_seconds, env={**os.environ, "LC_ALL": "C"})
        finally:
            ticker.cancel()


async def _tick(name: str, root: Path, progress: Progress) -> None:
    """Say how far the package tools are, while their number changes."""
    said = 0
    while True:
        await asyncio.sleep(_TICK_SECONDS)
        count = await asyncio.to_thread(rootfs.unpacked, root)
        if count != said:
            said = count
            progress(f"{name}: {count} packages")


def _seal(path: Path) -> manifest.File:
    """Durable and read-only: an image's files are never written again."""
    path.chmod(0o444)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return manifest.describe(path)


async def _tools() -> dict[str, str]:
    """What built it."""
    versions = {}
    for name in ("mmdebstrap", "qemu-img"):
        said = await proc.run([name, "--version"], seconds=10, check=False)
        versions[name] = said.out.decode(errors="replace").splitlines()[0] if said.out else ""
    return versions
