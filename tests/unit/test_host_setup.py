"""The parts of `atoll up` that need no root: keys, client configuration, progress, memory of `down`."""

from __future__ import annotations

import asyncio
import io
import os
import pwd
from pathlib import Path

import pytest

from atoll.base.errors import Conflict, Invalid, Unavailable
from atoll.base.proc import run
from atoll.config import Config, Https, Ssh, load
from atoll.host_setup import layout, remembered, ssh_config, trust
from atoll.host_setup.people import Person, ensure_key
from atoll.host_setup.progress import Progress, beside
from atoll.host_setup.up import ssh_command


@pytest.fixture
def person(tmp_path: Path) -> Person:
    entry = pwd.getpwuid(os.getuid())
    return Person(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, home=tmp_path)


async def test_a_key_is_made_once(person: Person) -> None:
    made = await ensure_key(person)
    assert made.is_new
    assert made.is_usable
    assert made.private.stat().st_mode & 0o777 == 0o600
    assert made.private.parent.stat().st_mode & 0o777 == 0o700
    again = await ensure_key(person)
    assert (again.is_new, again.line, len(again.line.split())) == (False, made.line, 2)


async def test_a_key_with_a_passphrase_is_the_persons_but_not_ours_to_use(person: Person) -> None:
    path = person.home / ".ssh/id_ed25519"
    path.parent.mkdir()
    await run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(path)], seconds=20)
    key = await ensure_key(person)
    assert (key.is_new, key.is_usable) == (False, False)


async def test_a_public_key_of_an_agent_is_enough(person: Person) -> None:
    (person.home / ".ssh").mkdir()
    (person.home / ".ssh/id_ecdsa.pub").write_text("ecdsa-sha2-nistp256 AAAA ann@laptop\n")
    key = await ensure_key(person)
    assert (key.line, key.is_usable) == ("ecdsa-sha2-nistp256 AAAA", False)


async def test_openssh_reads_what_is_installed(person: Person) -> None:
    main = person.home / ".ssh/config"
    main.parent.mkdir()
    main.write_text("Host other\n  User bob\n")
    config = Config(ssh=Ssh(port=2022), https=Https(domain="isle.localhost"))
    text = ssh_config.render(config, gateway_key="ssh-ed25519 AAAAg", host_ca="ssh-ed25519 AAAAc")
    for _twice in range(2):
        ssh_config.install(text, person, config)
    assert main.read_text() == "Include isle.conf\nHost other\n  User bob\n"
    # ssh looks up the home in passwd, so the Include is resolved by hand here
    shown = await run(["ssh", "-G", "-F", str(main.with_name("isle.conf")), "web.isle"], seconds=20)
    lines = shown.out.decode().splitlines()
    assert {"hostname web.isle.localhost", "user atoll"} <= set(lines)


def test_a_linked_ssh_config_stays_a_link(person: Person, tmp_path: Path) -> None:
    (tmp_path / "dotfiles").write_text("")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").symlink_to(tmp_path / "dotfiles")
    ssh_config.install("", person, Config())
    assert (tmp_path / ".ssh/config").is_symlink()
    assert (tmp_path / "dotfiles").read_text() == "Include atoll.conf\n"


def test_the_ssh_line_is_as_short_as_it_can_be() -> None:
    assert ssh_command(Config(), "web") == "ssh -p 2222 web@localhost"
    assert ssh_command(Config(ssh=Ssh(port=22, host="isle.example"))) == "ssh isle.example"


def test_a_configuration_file_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "etc/atoll.toml"
    assert layout.ensure_config_file(Config(), path)
    assert load(path) == Config()
    path.write_text("[ssh]\nport = 22\n")
    assert not layout.ensure_config_file(Config(), path)
    assert load(path).ssh.port == 22


async def test_a_list_that_was_not_made_anew_is_made_by_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    tool, told = tmp_path / "bin/update-ca-certificates", tmp_path / "told"
    config = Config.model_validate({"paths": {"state": tmp_path}})
    (config.control_state / "keys").mkdir(parents=True)
    (config.control_state / "keys/ca.pem").write_text("PEM\n")

    def becomes(code: int) -> None:
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f'#!/bin/sh\necho "tried $*" >> {told}\nexit {code}\n')
        tool.chmod(0o755)

    for act, said in ((trust.install, "tried \n"), (trust.remove, "tried --fresh\n")):
        tool.unlink(missing_ok=True)
        with pytest.raises(Unavailable, match="not installed"):
            await act(config, folder=tmp_path / "local")
        becomes(1)
        with pytest.raises(Unavailable, match="ended with 1"):
            await act(config, folder=tmp_path / "local")
        becomes(0)
        assert not (await act(config, folder=tmp_path / "local"))[1]
        assert told.read_text() == said * 2
        told.unlink()


def test_what_ran_is_remembered_over_a_broken_off_down(tmp_path: Path) -> None:
    assert remembered.read(tmp_path) == ()
    remembered.write(tmp_path, ["vm-b"])
    remembered.write(tmp_path, ["vm-a"])
    assert remembered.read(tmp_path) == ("vm-a", "vm-b")
    remembered.forget(tmp_path)
    assert remembered.read(tmp_path) == ()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


async def test_a_step_is_one_line_with_its_time() -> None:
    stream = io.StringIO()

    async def job() -> int:
        return 7

    assert await Progress(stream).step("counting", job()) == 7
    assert stream.getvalue().split() == ["counting", "0.0", "s"]


async def test_a_long_step_shows_life_and_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.host_setup.progress.TERMINAL_EVERY_S", 0.01)
    stream, go = Terminal(), asyncio.Event()
    progress = Progress(stream)

    async def job() -> None:
        progress.note("package 3 of 9")
        await go.wait()

    async def watch() -> None:
        async with asyncio.timeout(10):
            while "package 3 of 9" not in stream.getvalue():
                await asyncio.sleep(0.01)
        go.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        group.create_task(progress.step("building", job()))
    assert stream.getvalue().endswith(" s\n")


async def test_a_failed_step_passes_its_error_on() -> None:
    async def job() -> None:
        raise Conflict("no")

    with pytest.raises(Conflict):
        await Progress(io.StringIO()).step("trying", job())


async def test_a_companion_ends_with_its_job_and_may_fail() -> None:
    ended = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fails() -> None:
        raise Unavailable("no events")

    async def job() -> int:
        await asyncio.sleep(0)
        return 7

    async def bad() -> int:
        raise Invalid("bad")

    assert await beside(job(), forever) == 7
    assert ended.is_set()
    assert await beside(job(), fails) == 7
    with pytest.raises(Invalid):
        await beside(bad(), forever)
