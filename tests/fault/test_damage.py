"""Files that are not what they were: templates and saved memory. Boot from disk, and say so."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from atoll.base.aio import poll
from framework.agreement import agreed, new, vm_id
from framework.atoll import Atoll

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]

REBUILD_S = 300.0  # from the cache in a moment; two boots where that was emptied


def spoil(path: Path) -> None:
    """Another byte in the middle. A new file: this one is linked into the cache all tests share."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    fresh = path.with_name(".spoiled")
    fresh.write_bytes(content)
    os.rename(fresh, path)


async def test_damaged_saved_memory_is_a_cold_boot_that_says_so(atoll: Atoll) -> None:
    await new(atoll, "saved")
    await atoll.ssh("echo kept > note; sync", user="saved")
    await atoll.command("pause saved")
    spoil(atoll.config.pool / "vms" / vm_id(atoll, "saved") / "saved" / "pages")
    resumed = await atoll.command("resume saved")
    assert resumed["cold_booted"] == "true"
    assert (await atoll.ssh("cat note", user="saved")).out == b"kept\n"
    await agreed(atoll)
    await atoll.command("rm saved")


@pytest.mark.parametrize("harm", ["damaged", "missing"])
async def test_without_its_template_a_vm_boots_from_disk_until_it_is_rebuilt(
    atoll: Atoll, harm: str
) -> None:
    templates = atoll.config.pool / "templates"
    folder = await _only(templates)
    if harm == "damaged":
        spoil(folder / "pages")
    else:
        (folder / "pages").unlink()
    os.kill(await atoll.pid_of("engine"), signal.SIGKILL)  # the next one must read it
    await agreed(atoll)

    made = await new(atoll, "cold")
    assert made["cold_booted"] is True
    assert not folder.exists(), "set aside"
    assert len(list(templates.glob(f".bad-{folder.name}*"))) == 1
    assert (await atoll.ssh("hostname", user="cold")).out == b"cold\n"
    await atoll.command("rm cold")

    assert await _only(templates) != folder, "made again, in the background"
    assert (await new(atoll, "warm"))["cold_booted"] is False
    await agreed(atoll)
    os.kill(await atoll.pid_of("engine"), signal.SIGKILL)
    await agreed(atoll)
    assert (await atoll.ssh("hostname", user="warm")).out == b"warm\n"
    assert list(templates.glob(".bad-*")) == []
    await atoll.command("rm warm")
    await agreed(atoll)


async def _only(templates: Path) -> Path:
    """The folder of the one template, once it is there."""

    async def look() -> Path | None:
        found = [path for path in templates.iterdir() if path.name.startswith("tmpl-")]
        assert len(found) < 2
        return found[0] if found else None

    return await poll(look, seconds=REBUILD_S, what="a template", every=0.2)
