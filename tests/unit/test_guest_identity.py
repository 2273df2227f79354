"""Identity files under a temporary root: what is written, with which mode, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.guest.identity import Identity, Refused

PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
OLD_ID = "0" * 32


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("etc/ssh", "var/lib/dbus", "var/lib/systemd", "var/log/journal", "run"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/machine-id").write_text(OLD_ID + "\n")
    return tmp_path


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_hostname_replaces_its_own_line_only(root: Path) -> None:
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 old\n10.0.0.9 db # mine\n")
    identity = Identity(str(root))
    identity.hostname("web")
    assert not (root / "etc/hostname").exists(), "nothing changes before commit"
    identity.commit()
    assert (root / "etc/hostname").read_text() == "web\n"
    assert (root / "etc/hosts").read_text() == (
        "127.0.0.1 localhost\n10.0.0.9 db # mine\n127.0.1.1\tweb\n"
    )


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a\nb", "a" * 64, "../x"])
def test_a_hostname_that_is_none_is_refused(root: Path, name: str) -> None:
    with pytest.raises(Refused):
        Identity(str(root)).hostname(name)


def test_a_seed_that_others_have_is_forgotten(root: Path) -> None:
    (root / "var/lib/systemd/random-seed").write_bytes(b"seed")
    identity = Identity(str(root))
    identity.forget_seed()
    identity.commit()
    assert not (root / "var/lib/systemd/random-seed").exists()
    identity.forget_seed()
    identity.commit()


def test_a_fresh_machine_id_keeps_the_journal(root: Path) -> None:
    (root / "var/log/journal" / OLD_ID).mkdir()
    (root / "var/lib/dbus/machine-id").write_text(OLD_ID + "\n")
    identity = Identity(str(root))
    new = identity.machine_id()
    identity.commit()
    assert new != OLD_ID
    assert (root / "etc/machine-id").read_text() == new + "\n"
    assert (root / "var/lib/dbus/machine-id").read_text() == new + "\n"
    assert os.readlink(root / "var/log/journal" / new) == OLD_ID


def test_a_clone_of_a_clone_still_finds_the_journal(root: Path) -> None:
    (root / "var/log/journal" / OLD_ID).mkdir()
    for new in ("1" * 32, "2" * 32):
        identity = Identity(str(root))
        identity.machine_id(new)
        identity.commit()
    assert os.readlink(root / "var/log/journal" / ("2" * 32)) == OLD_ID


def test_the_bus_link_stays_a_link(root: Path) -> None:
    (root / "var/lib/dbus/machine-id").symlink_to("/etc/machine-id")
    identity = Identity(str(root))
    identity.machine_id("a" * 32)
    identity.commit()
    assert (root / "var/lib/dbus/machine-id").is_symlink()


def test_keys_have_their_modes_and_a_planted_link_is_not_followed(root: Path) -> None:
    victim = root / "victim"
    victim.write_text("untouched")
    (root / "etc/ssh/ssh_host_ed25519_key.atoll-new").symlink_to(victim)
    identity = Identity(str(root))
    identity.host_key(PEM.rstrip())
    identity.host_certificate("ssh-ed25519-cert-v01@openssh.com AAAA vm")
    identity.user_ca("ssh-ed25519 AAAA ca")
    identity.authorized_keys("atoll", ["ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"])
    identity.commit()
    ssh = root / "etc/ssh"
    assert (ssh / "ssh_host_ed25519_key").read_text() == PEM
    assert mode(ssh / "ssh_host_ed25519_key") == 0o600
    assert mode(ssh / "ssh_host_ed25519_key-cert.pub") == 0o644
    assert (ssh / "authorized_keys.d/atoll").read_text() == (
        "ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n"
    )
    assert mode(ssh / "authorized_keys.d/atoll") == 0o644
    assert victim.read_text() == "untouched"


def test_taking_the_last_key_back_leaves_none(root: Path) -> None:
    for keys in (["ssh-ed25519 AAAA one"], []):
        identity = Identity(str(root))
        identity.authorized_keys("atoll", keys)
        identity.commit()
    assert (root / "etc/ssh/authorized_keys.d/atoll").read_text() == ""


@pytest.mark.parametrize("line", ["", " ", "a\nb", "a\x00", "x" * 16_385, "\x1b[2J"])
def test_a_key_is_one_printable_line(root: Path, line: str) -> None:
    with pytest.raises(Refused):
        Identity(str(root)).authorized_keys("atoll", [line])
    with pytest.raises(Refused):
        Identity(str(root)).user_ca(line)


@pytest.mark.parametrize("user", ["", "../root", "a/b", "A", "x" * 33])
def test_a_user_is_a_name(root: Path, user: str) -> None:
    with pytest.raises(Refused):
        Identity(str(root)).authorized_keys(user, [])


def test_a_host_key_must_look_like_one(root: Path) -> None:
    with pytest.raises(Refused):
        Identity(str(root)).host_key("ssh-ed25519 AAAA")


def test_hooks_are_the_executables_in_order(root: Path) -> None:
    folder = root / "etc/atoll/after-fork.d"
    assert Identity(str(root)).hooks() == []
    folder.mkdir(parents=True)
    for name, bits in (("20-b", 0o755), ("10-a", 0o755), ("README", 0o644)):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(bits)
    assert [Path(path).name for path in Identity(str(root)).hooks()] == ["10-a", "20-b"]


def test_what_is_there_already_is_not_written_again(root: Path) -> None:
    def commit() -> list[int]:
        identity = Identity(str(root))
        identity.hostname("web")
        identity.host_key(PEM)
        identity.commit()
        return [(root / name).stat().st_ino for name in ("etc/hostname", "etc/hosts")]

    first = commit()
    (root / "etc/ssh/ssh_host_ed25519_key").chmod(0o644)
    assert commit() == first
    assert mode(root / "etc/ssh/ssh_host_ed25519_key") == 0o600
