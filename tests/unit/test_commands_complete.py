"""Completion and `?`: what a half-typed line is, and what may follow it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import Invalid
from atoll.commands.parse import split
from atoll.commands.partial import partial
from fakes.engine import FakeEngine
from framework.cloud import Control, control


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine, loops=True) as made:
        for line in ("new --name web --tag prod,eu", "new --name web-next", "new --name auk"):
            await made.run(line)
        yield made


@pytest.mark.parametrize(
    ("line", "words", "value", "tail", "quote"),
    [
        ("", (), "", "", ""),
        ("share sh", ("share",), "sh", "sh", ""),
        ("rm web ", ("rm", "web"), "", "", ""),
        ("rm 'we", ("rm",), "we", "we", "'"),
        ('comment web "a b', ("comment", "web"), "a b", "a b", '"'),
        ("rm w'e", ("rm",), "we", "e", "'"),
        ("rm we\\b", ("rm",), "web", "", ""),
        ("rm '' ", ("rm", ""), "", "", ""),
        ("rm 'web'", ("rm",), "web", "", ""),
    ],
)
def test_partial(line: str, words: tuple[str, ...], value: str, tail: str, quote: str) -> None:
    found = partial(line)
    assert (found.words, found.value, line[found.start :], found.quote) == (
        words, value, tail, quote)  # fmt: skip
    assert found.settled == len(value) - len(tail)


@given(st.text(st.sampled_from("ab '\"\\\t"), max_size=20))
def test_partial_reads_as_the_parser_does(line: str) -> None:
    found = partial(line)
    try:
        words = split(line)
    except Invalid:
        return
    assert [*found.words, *([found.value] if found.value else [])] == [
        word for index, word in enumerate(words) if word or index < len(found.words)
    ]


async def grown(cloud: Control, line: str) -> list[str]:
    """The lines that choices make of it."""
    choices = await cloud.language.choices(cloud.ann, line)
    return [line[: choices.start] + item.word[choices.settled :] for item in choices.items]


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("sha", ["share"]),
        ("share set-", ["share set-private", "share set-public"]),
        ("rm web web-", ["rm web web-next"]),
        ("rm web auk w", ["rm web auk web-next"]),
        ("rm 'w", ["rm 'web", "rm 'web-next"]),
        ("rm w'eb-", ["rm w'eb-next"]),
        ("rm w\\eb-", ["rm w\\eb-next"]),
        ("new --im", ["new --image"]),
        ("new --image d", ["new --image debian"]),
        ("new --image=d", ["new --image=debian"]),
        ("new --image='d", ["new --image='debian"]),
        ("new --tag eu,p", ["new --tag eu,prod"]),
        ("new --tag=prod,", ["new --tag=prod,eu"]),
        ("new --tag prod,eu,", []),
        ("cp web --copy-tags=f", ["cp web --copy-tags=false"]),
        ("new --name x --na", []),
        ("new --tag a --ta", ["new --tag a --tag"]),
        ("ssh-key add --vm a", ["ssh-key add --vm auk"]),
        ("ssh-key generate-api-key --cmds ls,who",
         ["ssh-key generate-api-key --cmds ls,whoami"]),
        ("help share po", ["help share port"]),
        ("--json who", ["--json whoami"]),
        ("ssh web un", []),
        ("ssh web ls --", []),
        ("rm -- w", ["rm -- web", "rm -- web-next"]),
        ("ls w", ["ls web", "ls web-next"]),
        ("ls web ", []),
        ("ls --group s", ["ls --group status"]),
        ("rm web --dr", ["rm web --dry-run"]),
        ("ls --dr", []),
        ("doc error-conf", ["doc error-conflict"]),
    ],
)  # fmt: skip
async def test_choices(cloud: Control, line: str, lines: list[str]) -> None:
    assert await grown(cloud, line) == lines


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ("share ", ["show +Show who may open a VM: .*", "port +Choose .*"]),
        ("sha", ["share +show, port, set-public, set-private, .*"]),
        ("", ["new +Make a VM and wait until it answers", "cp +Clone a VM", "ls +List your VMs"]),
        (
            "cp ",
            [
                "<source> +VM to copy, or VM@SNAPSHOT",
                "--cpu N +vCPUs, if not as many",
                "--memory SIZE .*",
            ],
        ),
        ("cp web ", ["<new> +name of the copy; .*"]),
        ("new --image ", ["IMAGE +image to start from"]),
        ("tag ", ["<vm> +VM.*", "-d, --delete +take these tags away"]),
        ("comment web ", ["<text> +the note; .*"]),
        (
            "ls x ",
            [
                "-l, --long .*",
                "--columns .*",
                "--group .*",
                "-w, --watch .*",
                "--json +print the .*",
            ],
        ),
        ("undo ", ["--json .*", "--help .*", "--dry-run .*"]),
    ],
)
async def test_what_can_come(cloud: Control, line: str, rows: list[str]) -> None:
    shown = (await cloud.language.choices(cloud.ann, line)).help.splitlines()
    for row, pattern in zip(shown, rows, strict=False):
        assert re.fullmatch(f"  {pattern}", row), shown
    assert len(shown) >= len(rows)


@pytest.mark.parametrize(
    "line", ["ls web", "comment web 'why", "comment web why ", "ssh web ls ", "ls '", "nope "]
)
async def test_where_a_question_mark_is_a_letter(cloud: Control, line: str) -> None:
    assert (await cloud.language.choices(cloud.ann, line)).help == ""
