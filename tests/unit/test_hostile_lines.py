"""Nothing that anybody types does harm: what is refused is refused in order, and writes nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.commands.parse import LINE_BYTES
from atoll.commands.verbs import REGISTRY
from framework import hostile
from framework.api import Door, door
from framework.hostile import Target, target

LONG = "a" * 10_000
VERBS = [command for command in REGISTRY if command.words[0] not in hostile.SLOW]


@pytest.fixture(name="aim")
async def _aim(tmp_path: Path) -> AsyncIterator[Target]:
    async with target(tmp_path) as made:
        yield made


@pytest.fixture(name="api")
async def _api(aim: Target, tmp_path: Path) -> AsyncIterator[Door]:
    async with door(aim.cloud, tmp_path) as made:
        yield made


@pytest.fixture(name="runner")
def _runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


async def test_long_and_odd_words_everywhere(aim: Target) -> None:
    words = (
        LONG,
        "é" * 10_000,
        "*" * 5000,
        "a\x1b]0;x\x07",
        "\u202e",
        "--",
        "-",
        "''",
        "[",
        "\udcff",
        "\0",
    )
    for command in VERBS:
        for word in words:
            for count in range(1, len(command.places) + 2):
                await aim.check(" ".join([command.name, *[word] * count]))
            for option in command.options:
                await aim.check(f"{command.name} {hostile.VM} {option.flags[0]}={word}")
    for line in (f"new --env {LONG}=1 --env {LONG}=1", f"new --env '{LONG}=\n'"):
        await aim.check(line)
    assert aim.refused > len(VERBS)


async def test_flags_twice(aim: Target) -> None:
    for command in VERBS:
        for option in command.options:
            await aim.check(f"{command.name} x {option.flags[0]}=1 {option.flags[-1]}=1")
        for flag in ("--json", "--help", "--dry-run"):
            await aim.check(f"{command.name} {flag} {flag}")


@pytest.mark.parametrize("size", [LINE_BYTES, LINE_BYTES + 1, 4 * LINE_BYTES])
async def test_lines_of_any_length(aim: Target, size: int) -> None:
    for filling in ("a", "'", '"', "\\", " ", "\n", "--a ", "a ", "*", "é"):
        for head in ("", "rm ", "comment web "):
            line = (head + filling * size).encode()[:size].decode(errors="ignore")
            await aim.check(line)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(dice=st.randoms(use_true_random=False))
def test_any_line(runner: asyncio.Runner, tmp_path: Path, dice: random.Random) -> None:
    async def throw() -> None:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        async with target(folder) as aim:
            for _ in range(40):
                line = hostile.line(dice)
                await aim.check(line)
                await aim.cloud.cloud.history.add(aim.cloud.ann, line)
                await aim.cloud.language.choices(
                    aim.cloud.ann, line[: dice.randrange(len(line) + 1)]
                )

    runner.run(throw())


async def test_bodies_that_are_no_lines(api: Door, aim: Target) -> None:
    bearer = {"authorization": f"Bearer {api.token}"}
    bodies = {
        b"": 400, b" \n": 400, b"ls\0": 400, b"new 'a": 400, b"ls \xff": 400, b"\xed\xa0\x80": 400,
        b"new --name " + b"a" * 10_000: 422, b"rm " + b"a" * 10_000: 200, b"frobnicate": 404,
        b"ls " + b"a" * (LINE_BYTES - 3): 200, b"ls " + b"a" * LINE_BYTES: 413, b"a" * (1 << 20): 413,
        b"new --name a --name b": 422,
    }  # fmt: skip
    assert await api.data("ls")  # writes down that the token was used, at most once a minute
    before = aim.version()
    for body, status in bodies.items():
        answer = await api.client.post("/exec", content=body, headers=bearer)
        assert answer.status_code == status, (body[:40], answer.text[:200])
        assert status == 200 or len(answer.text) < 2 * hostile.ERROR_CHARS
    assert aim.version() == before
