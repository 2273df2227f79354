"""`make up`, `make down` and `make purge` as a newcomer types them, in a checkout of their own.

The machine's own Atoll is not touched: another environment, configuration, ports and names, and the
person is a user who exists for this test only. Packages are there already, or the tests would not run.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from atoll.base.proc import run
from atoll.config import Config, load
from atoll.supervise import status as supervision
from framework.atoll import leaks, settings, toml

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(1500),
    pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="units have fixed names"),
]

CHECKOUT = Path(__file__).parents[2]
NOT_SOURCE = (".git", ".venv", "__pycache__", ".*_cache", ".hypothesis")
UP_S = 1200.0  # of which an image that was never built takes some minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomer:
    """A person with sudo, a checkout and nothing else."""

    name: str
    folder: Path
    environment: dict[str, str]

    @property
    def config(self) -> Config:
        return load(Path(self.environment["ATOLL_CONFIG"]))

    async def make(self, task: str) -> str:
        argv = ["make", "--no-print-directory", "-C", str(self.folder / "checkout"), task]
        done = await run(argv, seconds=UP_S, env=self.environment)
        return done.out.decode()

    async def ssh(self, user: str, *words: str) -> str:
        options = ["StrictHostKeyChecking=accept-new", "BatchMode=yes", "ConnectTimeout=20"]
        flags = [word for option in options for word in ("-o", option)]
        argv = ["setpriv", "--reuid", self.name, "--regid", self.name, "--init-groups", "env"]
        argv += [f"HOME={self.folder / 'home'}", "ssh", "-F", "none", *flags]
        argv += ["-o", f"UserKnownHostsFile={self.folder / 'home/.ssh/known_hosts'}"]
        argv += ["-i", str(self.folder / "home/.ssh/id_ed25519"), "-p", str(self.config.ssh.port)]
        return (await run([*argv, f"{user}@localhost", *words], seconds=120)).out.decode()


@pytest_asyncio.fixture(loop_scope="session")
async def newcomer() -> AsyncIterator[Newcomer]:
    folder = Path(tempfile.mkdtemp(prefix="atoll-test-up-", dir="/var/tmp"))
    folder.chmod(0o755)
    name = "newcomer"
    shutil.copytree(CHECKOUT, folder / "checkout", ignore=shutil.ignore_patterns(*NOT_SOURCE))
    cache = Path("/var/cache/atoll")
    if cache.exists():  # `purge` deletes the cache, too: a copy of the names, then
        await run(["cp", "-al", str(cache), str(folder / "cache")], seconds=60, check=False)
    tables = settings(folder)
    tables["paths"]["cache"] = str(folder / "cache")
    (folder / "atoll.toml").write_text(toml(tables))
    await run(["useradd", "--create-home", "--home-dir", str(folder / "home"), name], seconds=30)
    kept = {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "PATH"))}
    config = load(folder / "atoll.toml")
    person = Newcomer(
        name=name,
        folder=folder,
        environment={
            **kept,
            "SUDO_USER": name,
            "ATOLL_CONFIG": str(folder / "atoll.toml"),
            "ATOLL_VENV": str(folder / "venv"),
        },
    )
    try:
        yield person
    finally:
        if (folder / "venv/bin/atoll").exists():
            await person.make("down")
        left = await leaks(config, folder)
        await run(["userdel", name], seconds=30)
        shutil.rmtree(folder)
    assert not left, f"left behind: {left}"


def processes(config: Config) -> dict[str, int | None]:
    found = supervision.status(config.paths.run)
    return {name: child.pid for name, child in found.children.items()}


async def test_one_command_and_back(newcomer: Newcomer) -> None:
    config = newcomer.config
    said = await newcomer.make("up")
    assert re.search(r"new --name hello +\d+\.\d s\n", said)
    assert re.search(r"cp hello hello-copy +\d+\.\d s\n", said)
    assert f"ssh -p {config.ssh.port} hello-copy@localhost" in said
    assert f"https://hello.{config.https.domain}:{config.https.port}/" in said
    assert (newcomer.folder / "home/.ssh/id_ed25519").stat().st_uid != 0, "the person's own key"
    assert await newcomer.ssh("hello-copy", "hostname") == "hello-copy\n"
    assert "<html" in await newcomer.ssh("hello-copy", "curl -s http://localhost:8000")

    before = processes(config)
    boot = await newcomer.ssh("hello", "cat /proc/sys/kernel/random/boot_id")
    again = await newcomer.make("up")
    assert "new --name" not in again
    assert processes(config) == before, "run again it changes nothing"
    assert await newcomer.ssh("hello", "cat /proc/sys/kernel/random/boot_id") == boot

    await newcomer.make("down")
    assert await leaks(config, newcomer.folder) == []
    await newcomer.make("up")
    assert await newcomer.ssh("hello", "cat /proc/sys/kernel/random/boot_id") == boot
    listed = await newcomer.ssh("lobby", "ls")
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
        ["hello", "running"],
        ["hello-copy", "running"],
    ]

    await newcomer.make("purge")
    assert await leaks(config, newcomer.folder) == []
    left = {path.name for path in newcomer.folder.iterdir()}
    assert left == {"checkout", "home"}, "no data, no configuration, no environment"
