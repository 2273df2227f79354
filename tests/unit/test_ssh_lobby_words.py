"""The small text rules of the lobby."""

from __future__ import annotations

import pytest

from atoll.doors.ssh.completion import in_columns
from atoll.doors.ssh.draw import Size
from atoll.doors.ssh.words import commands, common_start, wants_stdin


@pytest.mark.parametrize(
    ("line", "wants"),
    [
        ("ls", False),
        ("ssh-key add -", True),
        ("new --prompt /dev/stdin", True),
        ("new --setup-script=/dev/stdin", True),
        ("new --setup-script=-", True),
        ("defaults write atoll new.setup-script -", True),
        ("comment web 'x=-'", False),
        ("new --setup-script='echo a=/dev/stdin'", False),
        ("comment web 'a - b'", False),
        ("comment web a-b", False),
        ("comment 'unclosed -", False),
        ("", False),
    ],
)
def test_which_lines_read_stdin(line: str, wants: bool) -> None:
    assert wants_stdin(line) is wants


def test_common_start() -> None:
    assert common_start(["web", "web-next", "weblog"]) == "web"
    assert common_start(["web"]) == "web"
    assert common_start(["a", "b"]) == ""


@pytest.mark.parametrize(
    ("pasted", "run"),
    [
        ("ls", ["ls"]),
        (" ls \n\n whoami\n", ["ls", "whoami"]),
        ("comment web 'two\nlines'\nls", ["comment web 'two\nlines'", "ls"]),
        ("comment web 'open\nls", ["comment web 'open\nls"]),
        ("", []),
    ],
)
def test_the_commands_of_a_paste(pasted: str, run: list[str]) -> None:
    assert commands(pasted) == run


@pytest.mark.parametrize(
    ("count", "columns", "rows", "shown"),
    [
        (3, 80, 24, "vm0  vm1  vm2\n"),
        (5, 13, 24, "vm0  vm2  vm4\nvm1  vm3\n"),
        (3, 4, 24, "vm0\nvm1\nvm2\n"),
        (9, 13, 6, "vm0  vm2  vm4\nvm1  vm3  vm5\n… and 3 more\n"),
    ],
)
def test_columns(count: int, columns: int, rows: int, shown: str) -> None:
    assert in_columns([f"vm{n}" for n in range(count)], Size(columns, rows)) == shown
