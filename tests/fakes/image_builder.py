"""A builder of images that are a few bytes long, for tests of what keeps and checks them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from atoll.base import atomic
from atoll.engine.images import manifest
from atoll.engine.images.build import Progress
from atoll.engine.images.recipe import Recipe


class FakeBuilder:
    """Builds at once, or waits for `go`, or ends with `fails`. `disk` is what the disk file holds."""

    def __init__(
        self, *, fails: Exception | None = None, disk: bytes = b"disk.qcow2" * 100
    ) -> None:
        self.fails = fails
        self.disk = disk
        self.built = 0
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(
        self, recipe: Recipe, *, architecture: str, folder: Path, mirror: str, progress: Progress
    ) -> manifest.Manifest:
        self.built += 1
        (folder / "work").mkdir()
        progress(f"{recipe.name}: building")
        self.started.set()
        await self.go.wait()
        if self.fails is not None:
            raise self.fails
        files = {}
        for name in (manifest.DISK, manifest.KERNEL, manifest.INITRD):
            content = self.disk if name == manifest.DISK else name.encode() * 100
            (folder / name).write_bytes(content)
            files[name] = manifest.describe(folder / name)
        (folder / "work").rmdir()
        facts = manifest.Manifest(
            name=recipe.name,
            digest=recipe.digest(architecture),
            suite=recipe.suite,
            architecture=architecture,
            kernel="6.12-fake",
            cmdline="root=/dev/vda",
            cmdline_tcg="mitigations=off",
            default_port=recipe.default_port,
            login_user=recipe.login_user,
            virtual_bytes=recipe.virtual_bytes,
            built_at="2026-01-01T00:00:00+00:00",
            build_seconds=0.1,
            archive_date="2026-01-01T00:00:00+00:00",
            tree_sha256="0" * 64,
            tools={},
            files=files,
            packages={"base-files": "1"},
        )
        atomic.write_json(folder / manifest.NAME, facts.model_dump(mode="json"))
        return facts
