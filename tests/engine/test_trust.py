"""`atoll trust` with the real tools, on a list of certificates that is not this machine's."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from atoll.base.errors import NotFound
from atoll.base.proc import run
from atoll.config import Config
from atoll.doors.edge.certs import Authority
from atoll.host_setup import trust

DOMAIN = "atoll.localhost"


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Config:
    return Config.model_validate({"paths": {"state": tmp_path / "state"}})


async def test_openssl_trusts_the_edge_until_it_is_taken_back(
    config: Config, tmp_path: Path
) -> None:
    keys = config.control_state / "keys"
    keys.mkdir(parents=True)
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(Authority(keys, DOMAIN).leaf(leaf, now=dt.datetime.now(dt.UTC)) or b"")
    folder, made = tmp_path / "local", tmp_path / "etc"
    made.mkdir()
    options = ("--localcertsdir", str(folder), "--etccertsdir", str(made), "--hooksdir", str(made))

    async def is_trusted() -> bool:
        argv = ["openssl", "verify", "-CAfile", str(made / "ca-certificates.crt"), str(leaf)]
        return (await run(argv, seconds=20, check=False)).code == 0

    path, is_new = await trust.install(config, folder=folder, options=options)
    assert is_new
    assert path == folder / f"atoll-{DOMAIN}.crt"
    assert await is_trusted()
    assert (await trust.install(config, folder=folder, options=options))[1] is False
    assert (await trust.remove(config, folder=folder, options=options))[1]
    assert not path.exists()
    assert not await is_trusted()
    assert (await trust.remove(config, folder=folder, options=options))[1] is False


async def test_before_control_has_made_it(config: Config, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await trust.install(config, folder=tmp_path / "local")
    assert not (tmp_path / "local").exists()


def test_other_machines(config: Config) -> None:
    said = trust.elsewhere(config)
    assert f"atoll trust --print > {DOMAIN}.pem" in said
    for system in ("Debian", "Fedora", "macOS", "Windows", "Firefox"):
        assert system in said
