"""Built images by content hash: one folder each, made once, checked on use, never changed.

Invariant: a folder named `<name>-<digest>` is complete (it was renamed there after its manifest was
durable). One build per image at a time on this machine, whoever asks: a file lock says so, and the
kernel drops it with the process that held it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.base import atomic, log, proc
from atoll.base.aio import poll, shielded
from atoll.engine.images import manifest
from atoll.engine.images.build import Builder, Progress, build
from atoll.engine.images.manifest import DISK, INITRD, KERNEL, Damaged, Manifest
from atoll.engine.images.recipe import RECIPES, Recipe, architecture, find

_LOG = log.get(__name__)
_REMOVE_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """An image that can be booted. `cmdline_tcg` is added to `cmdline` when the CPU is emulated."""

    name: str
    digest: str
    disk: Path
    kernel: Path
    initrd: Path
    cmdline: str
    cmdline_tcg: str
    default_port: int
    login_user: str
    size_bytes: int
    virtual_bytes: int


class Images:
    """The images below `cache`; `mirror` overrides the package archive when it is not empty."""

    def __init__(self, cache: Path, *, mirror: str = "", builder: Builder = build) -> None:
        self._folder = cache / "images"
        self._mirror = mirror
        self._builder = builder

    def known(self) -> tuple[str, ...]:
        """Names that `ensure` can make."""
        return tuple(sorted(RECIPES))

    def get(self, name: str) -> BuiltImage | None:
        """The image if it is built for today's recipe and its files have their sizes."""
        try:
            folder = self._place(find(name))
            return image_in(folder, manifest.check_quick(folder))
        except Damaged:
            return None

    async def ensure(self, name: str, progress: Progress) -> BuiltImage:
        """The image, built first if need be (a minute for `debian`, several for `full`).

        `progress` gets lines for people. Raises NotFound for an unknown name, ToolFailed when the
        build fails; a damaged image is put aside and built anew.
        """
        recipe = find(name)
        if (image := self.get(name)) is not None:
            return image
        self._folder.mkdir(parents=True, exist_ok=True)
        async with self._alone(recipe, progress):
            if (image := self.get(name)) is None:
                await self._build(recipe, progress)
                image = self.get(name)
            if image is None:
                raise Damaged(f"image {name} was built and cannot be used")
            return image

    async def check(self, name: str) -> None:
        """Compare every byte with the manifest. Raises Damaged (also when it is not built)."""
        await asyncio.to_thread(manifest.check_full, self._place(find(name)))

    async def remove(self, name: str, digest: str) -> None:
        """Delete an image of a recipe before today's; one that is not there is fine."""
        place = self._folder / f"{name}-{digest}"
        if place != self._place(find(name)) and place.exists():
            atomic.remove(place / manifest.NAME)
            await _remove(place)

    def _place(self, recipe: Recipe) -> Path:
        return self._folder / f"{recipe.name}-{recipe.digest(architecture())}"

    async def _build(self, recipe: Recipe, progress: Progress) -> None:
        for left in self._folder.glob(f".{recipe.name}-*.new"):  # of builds that were cut off
            await _remove(left)
        place = self._place(recipe)
        new = place.with_name(f".{place.name}.new")
        new.mkdir(mode=0o755)
        try:
            made = await self._builder(
                recipe,
                architecture=architecture(),
                folder=new,
                mirror=self._mirror,
                progress=progress,
            )
            if place.exists():
                await _remove(place)  # damaged, or ensure would not have come here
            os.rename(new, place)
            atomic.sync_folder(self._folder)
        finally:
            if new.exists():
                await shielded(_remove(new), seconds=_REMOVE_SECONDS)
        progress(f"{recipe.name}: built in {made.build_seconds:.0f} s")
        _LOG.info("image built", image=recipe.name, digest=made.digest, seconds=made.build_seconds)

    @asynccontextmanager
    async def _alone(self, recipe: Recipe, progress: Progress) -> AsyncIterator[None]:
        """Hold the image's build lock."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self._folder / f"{recipe.name}.lock", flags, 0o600)
        try:
            if not _try_lock(fd):
                progress(f"{recipe.name}: waiting for a build that is under way")

                async def locked() -> bool | None:
                    return _try_lock(fd) or None

                await poll(
                    locked,
                    seconds=recipe.build_seconds,
                    what=f"another build of the image {recipe.name}",
                    every=0.5,
                )
            yield
        finally:
            os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _remove(path: Path) -> None:
    await proc.run(["rm", "-rf", "--one-file-system", "--", str(path)], seconds=_REMOVE_SECONDS)


def image_in(folder: Path, facts: Manifest) -> BuiltImage:
    """The image whose files lie in `folder`; a pool keeps its disk elsewhere, as a base layer."""
    return BuiltImage(
        name=facts.name,
        digest=facts.digest,
        disk=folder / DISK,
        kernel=folder / KERNEL,
        initrd=folder / INITRD,
        cmdline=facts.cmdline,
        cmdline_tcg=facts.cmdline_tcg,
        default_port=facts.default_port,
        login_user=facts.login_user,
        size_bytes=facts.files[DISK].size,
        virtual_bytes=facts.virtual_bytes,
    )
