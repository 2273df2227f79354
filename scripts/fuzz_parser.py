"""Throws hostile lines at the language and prints how many: `python scripts/fuzz_parser.py [SECONDS]`.

The language is the real one on a whole control; only the engine is a fake. What must hold of every line
is in tests/framework/hostile.py; a line of which it does not hold stops the run and is printed. With
atheris installed and `--atheris` given, its engine follows coverage of the language instead of the dice.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from atoll.base import log

ROOT = Path(__file__).parents[1]
LINES = 2000  # then another cloud, before its VMs and keys are at their limits
sys.path.append(str(ROOT / "tests"))


async def plain(folder: Path, seconds: float, number: int) -> str:
    """Roll dice for `seconds`; what came of it."""
    from framework.hostile import line, target

    dice, end = random.Random(number), time.monotonic() + seconds  # noqa: S311
    ran = refused = 0
    while time.monotonic() < end:
        async with target(folder / str(ran + refused)) as aim:
            for _ in range(LINES):
                thrown = line(dice)
                try:
                    await aim.check(thrown)
                except BaseException:
                    sys.stderr.write(f"after {ran + refused} lines: {thrown[:2000]!r}\n")
                    raise
                if time.monotonic() > end:
                    break
        ran, refused = ran + aim.ran, refused + aim.refused
    return f"{ran + refused} lines: {refused} refused in order, {ran} did what they say"


def guided(folder: Path, seconds: float, number: int) -> None:
    """Hand over to atheris, which prints its own count and ends the process."""
    import atheris

    with atheris.instrument_imports(include=["atoll.commands", "shlex"]):
        from atoll.commands.verbs import REGISTRY
        from framework.hostile import WORDS, target
    heads = [" ".join(words) for words in REGISTRY.heads() if words[0] != "stat"]
    with asyncio.Runner() as runner:
        opened = target(folder)  # never left: the process ends in Fuzz()
        aim = runner.run(opened.__aenter__())

        def one(data: bytes) -> None:
            provider = atheris.FuzzedDataProvider(data)
            head = heads[provider.ConsumeIntInRange(0, len(heads) - 1)]
            count, last = provider.ConsumeIntInRange(0, 3), len(WORDS) - 1
            words = [WORDS[provider.ConsumeIntInRange(0, last)] for _ in range(count)]
            runner.run(aim.check(" ".join([head, *words, provider.ConsumeUnicode(4096)])))

        run: Callable[[], None] = atheris.Fuzz
        limits = f"-max_total_time={int(seconds)}", f"-seed={number}", f"-artifact_prefix={folder}/"
        atheris.Setup([sys.argv[0], *limits], one)
        run()


def main() -> None:
    """Fuzz in a folder that is removed, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atheris", action="store_true")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    log.setup(json=False, level="warning")
    if args.folder is not None:
        guided(args.folder, args.seconds, args.seed)
    with tempfile.TemporaryDirectory() as folder:
        if args.atheris:  # it ends its process without a word, so it has one of its own
            argv = [
                sys.executable,
                __file__,
                str(args.seconds),
                "--seed",
                str(args.seed),
                "--folder",
            ]
            sys.exit(subprocess.run([*argv, folder], check=False).returncode)
        sys.stdout.write(asyncio.run(plain(Path(folder), args.seconds, args.seed)) + "\n")


if __name__ == "__main__":
    main()
