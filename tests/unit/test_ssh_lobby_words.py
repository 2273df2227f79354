"""The small text rules of the lobby."""

from __future__ import annotations

import pytest

from atoll.doors.ssh.words import common_start, split_last, wants_stdin


@pytest.mark.parametrize(
    ("line", "wants"),
    [
        ("ls", False),
        ("ssh-key add -", True),
        ("new --prompt /dev/stdin", True),
        ("new --setup-script=/dev/stdin", True),
        ("comment web 'a - b'", False),
        ("comment web a-b", False),
        ("comment 'unclosed -", False),
        ("", False),
    ],
)
def test_which_lines_read_stdin(line: str, wants: bool) -> None:
    assert wants_stdin(line) is wants


def test_words() -> None:
    assert split_last("share sh") == ("share ", "sh")
    assert split_last("share ") == ("share ", "")
    assert split_last("") == ("", "")
    assert common_start(["web", "web-next", "weblog"]) == "web"
    assert common_start(["web"]) == "web"
    assert common_start(["a", "b"]) == ""
