"""Images this pool stands on: kernel and initramfs by digest, kept as long as a VM may need them.

The cache may be deleted at any time; a VM must still boot. So what a VM needs is linked into the
pool: `<pool>/images/<name>-<digest>/` here, the disk as a base layer by `disks`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from atoll.base import atomic, log
from atoll.base.errors import Internal, Unavailable
from atoll.engine.disk.copy import link_or_copy
from atoll.engine.disks import Disks
from atoll.engine.images import manifest
from atoll.engine.images.build import Progress
from atoll.engine.images.cache import BuiltImage, Images, image_in
from atoll.engine.images.manifest import INITRD, KERNEL, Damaged
from atoll.engine.images.recipe import Recipe, architecture, find

_log = log.get("images")


class Installed:
    """Images of one pool."""

    def __init__(self, folder: Path, *, images: Images, disks: Disks, progress: Progress) -> None:
        self._folder = folder
        self._images = images
        self._disks = disks
        self._progress = progress
        self._known: dict[str, BuiltImage] = {}
        self._unreadable: dict[str, str] = {}  # digest -> why
        self._digests: dict[tuple[Recipe, str], str] = {}

    def open(self) -> None:
        """Read what is installed; what is half made or half removed goes.

        One whose manifest cannot be read stays: there is no other kernel for the VMs made from it.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in sorted(self._folder.iterdir()):
            if folder.name.startswith(".") or not (folder / manifest.NAME).exists():
                shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                facts = manifest.read(folder)
            except Damaged as error:
                _log.error("image unreadable", folder=str(folder), reason=error.message)
                self._unreadable[folder.name.rpartition("-")[2]] = error.message
                continue
            self._known[facts.digest] = image_in(folder, facts)

    @property
    def problems(self) -> tuple[str, ...]:
        """Images that are there and cannot be read: VMs made from them do not start."""
        return tuple(f"image {digest}: {why}" for digest, why in self._unreadable.items())

    def names(self) -> tuple[str, ...]:
        """Names that `current` knows."""
        return tuple(sorted({image.name for image in self._known.values()}))

    def current(self, name: str) -> BuiltImage:
        """The image new VMs get: today's recipe if it is built, else the one before it.

        Raises NotFound for an unknown name, Unavailable for one that was never built.
        """
        image = self._known.get(self._digest(name)) or self._newest(name)
        if image is None:
            raise Unavailable(f"image {name} is not built yet", hint="Try again in a few minutes")
        return image

    def _newest(self, name: str) -> BuiltImage | None:
        fitting = [image for image in self._known.values() if image.name == name]
        return max(fitting, key=lambda image: image.kernel.stat().st_ctime, default=None)

    def by_digest(self, digest: str) -> BuiltImage:
        """The image a VM was made from, whatever today's recipe is."""
        if digest not in self._known:
            why = self._unreadable.get(digest, "it is missing from the pool")
            raise Internal(f"image {digest} cannot be used: {why}")
        return self._known[digest]

    async def ensure(self, name: str) -> BuiltImage:
        """`current`, built and installed first if need be."""
        digest = self._digest(name)
        if digest not in self._known:
            built = await self._images.ensure(name, self._progress)
            digest = built.digest
            await self._disks.add_base(digest, built.disk)
            self._known[digest] = await asyncio.to_thread(self._install, built)
            self._unreadable.pop(digest, None)
        return self._known[digest]

    def _digest(self, name: str) -> str:
        """Of today's recipe: that of the code that runs.

        Read once, as hashing the recipe's files takes 0.8 ms and every `new` asks. They do not change
        under a running engine: an upgrade that installs others starts another one, and images are
        built, and named in the cache, by what is read then.
        """
        key = (find(name), architecture())
        if key not in self._digests:
            self._digests[key] = key[0].digest(key[1])
        return self._digests[key]

    def obsolete(self) -> frozenset[str]:
        """Digests that no new VM gets: today's image of that name is installed beside them."""
        today = {name: self._digest(name) for name in self.names() if name in self._images.known()}
        return frozenset(
            digest
            for digest, image in self._known.items()
            if today.get(image.name, digest) in self._known.keys() - {digest}
        )

    def digests(self) -> frozenset[str]:
        """All that is installed."""
        return frozenset(self._known)

    async def remove(self, digest: str) -> None:
        """Delete an obsolete image nobody stands on, here and in the cache; not its base layer."""
        image = self._known.pop(digest, None)
        if image is None:
            return
        place = image.kernel.parent
        atomic.remove(place / manifest.NAME)  # without it `open` removes the rest
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        await self._images.remove(image.name, digest)

    def _install(self, built: BuiltImage) -> BuiltImage:
        place = self._folder / f"{built.name}-{built.digest}"
        new = self._folder / f".{place.name}"
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)
        new.mkdir(mode=0o700)
        for name in (KERNEL, INITRD, manifest.NAME):
            link_or_copy(built.disk.parent / name, new / name)
        os.rename(new, place)
        atomic.sync_folder(self._folder)
        return image_in(place, manifest.read(place))
