"""Keys that sign tokens: what signs, what verifies, and for how long."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from atoll.base.errors import Invalid
from atoll.domain.web import TOKEN_S
from atoll.services.keyring import AGE_S, NAMELESS, KeyRing
from atoll.services.keys import Keys
from framework.cloud import Clock


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="ring")
def _ring(tmp_path: Path, clock: Clock) -> KeyRing:
    return KeyRing(tmp_path / "token_keys.json", now=clock)


def test_next_key_is_shown_before_it_signs(ring: KeyRing) -> None:
    for _ in range(3):
        shown = ring.table()
        assert shown[ring.rotate().kid] == ring.signing.text


def test_old_key_verifies_until_its_tokens_are_over(ring: KeyRing, clock: Clock) -> None:
    old = ring.signing
    ring.rotate()
    clock.time += TOKEN_S
    assert ring.table()[old.kid] == old.text
    assert ring.get(old.kid) is not None
    clock.time += 61
    assert ring.get(old.kid) is None
    assert old.kid not in ring.table()
    assert len(ring.table()) == 2


def test_rotates_by_age(ring: KeyRing, clock: Clock) -> None:
    first = ring.signing
    clock.time += AGE_S
    ring.table()
    assert ring.signing == first
    clock.time += 1
    assert first.kid in ring.table()
    assert ring.signing != first


def test_revoking_leaves_no_key_of_before(ring: KeyRing) -> None:
    before = ring.table()
    ring.rotate()
    before |= ring.table()
    ring.rotate(revoke=True)
    assert not before.keys() & ring.table().keys()


def test_file_is_private_and_read_again(tmp_path: Path, ring: KeyRing, clock: Clock) -> None:
    ring.rotate()
    path = tmp_path / "token_keys.json"
    again = KeyRing(path, now=clock)
    assert (again.signing, again.table()) == (ring.signing, ring.table())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ring.signing.text not in repr(ring.signing)


def test_clock_set_back_neither_rotates_nor_forgets(ring: KeyRing, clock: Clock) -> None:
    ring.rotate()
    before = ring.table()
    clock.time -= 10 * 86400
    assert ring.table() == before


def test_key_of_earlier_releases_verifies_for_a_while(tmp_path: Path, clock: Clock) -> None:
    tmp_path.joinpath("session_key").write_text("ab" * 32)
    keys = Keys(tmp_path, now=clock)
    assert keys.session_key == bytes.fromhex("ab" * 32)  # seals answers on
    assert keys.tokens.table()[NAMELESS] == "ab" * 32
    assert keys.tokens.signing.kid != NAMELESS
    clock.time += TOKEN_S + 61
    assert NAMELESS not in Keys(tmp_path, now=clock).tokens.table()


def test_no_key_without_a_name_when_there_never_was_one(tmp_path: Path) -> None:
    for _ in range(2):
        assert NAMELESS not in Keys(tmp_path).tokens.table()


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", '[{"kid": "a", "text": "b"}]'])
def test_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token_keys.json"
    path.write_text(text)
    with pytest.raises(Invalid, match=r"token_keys\.json"):
        KeyRing(path)


def test_file_holds_no_more_than_it_must(tmp_path: Path, ring: KeyRing, clock: Clock) -> None:
    for _ in range(5):
        clock.time += TOKEN_S + 61
        ring.rotate()
    ring.table()
    assert len(json.loads((tmp_path / "token_keys.json").read_text())) == 3
