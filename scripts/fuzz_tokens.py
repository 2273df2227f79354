"""Throws broken tokens at the verifier and prints how many: `python scripts/fuzz_tokens.py [SECONDS]`.

Real tokens of every kind of key are the seeds. A mutant must be refused in order (Denied), or be signed
by the key over the very bytes of its seed; anything else stops the run with the mutant printed. With
atheris installed and `--atheris` given, its engine follows coverage instead of the plain dice here.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from atoll.base.errors import Denied
from atoll.services import signed_token
from framework.signing import NAMESPACE, SshKeyFile, b64url

NOW = 1_800_000_000.0
KINDS = (("ed25519",), ("ecdsa", "-b", "256"), ("ecdsa", "-b", "521"), ("rsa", "-b", "2048"))
PERMISSIONS = (
    "{}",
    '{"exp":1900000000,"nbf":1700000000,"cmds":["ls","ssh web"],"ctx":{"a":[null]}}',
)
BITS = '{}[]",:.eE-+0123456789 \n\0\\u'


class Seed:
    """A good token, taken apart."""

    def __init__(self, key: SshKeyFile, permission: str) -> None:
        self.line = key.line
        self.message = permission.encode()
        self.blob = key.sign(self.message)

    def check(self, token: str) -> bool:
        """True when it passed. Raises AssertionError when it should not have."""
        try:
            read = signed_token.read(token, now=NOW)
        except Denied:
            return False
        if not read.is_signed_by(self.line, namespace=NAMESPACE):
            return False
        assert read.message == self.message, f"another message passed: {token}"
        return True


def mutated(data: bytes, dice: random.Random) -> bytes:
    """A few random changes."""
    broken = bytearray(data)
    for _ in range(dice.choice((0, 1, 1, 1, 2, 5))):
        at = dice.randrange(len(broken) + 1)
        match dice.randrange(5):
            case 0 if at < len(broken):
                broken[at] ^= 1 << dice.randrange(8)
            case 1:
                broken[at:at] = dice.choice(BITS).encode()
            case 2:
                del broken[at : at + dice.randrange(1, 9)]
            case 3:
                broken[at:at] = broken[: dice.randrange(40)]
            case _:
                broken[at : at + 4] = dice.randbytes(4)
    return bytes(broken)


def plain(seeds: list[Seed], seconds: float, number: int) -> tuple[int, int]:
    """Roll dice for `seconds`; tokens tried, and those that passed unchanged in meaning."""
    dice, end = random.Random(number), time.monotonic() + seconds  # noqa: S311
    tried = passed = 0
    while time.monotonic() < end:
        seed = dice.choice(seeds)
        message, blob = mutated(seed.message, dice), mutated(seed.blob, dice)
        token = f"atoll0.{b64url(message)}.{b64url(blob)}"
        if dice.randrange(4) == 0:
            token = mutated(token.encode(), dice).decode("latin-1")
        passed += seed.check(token)
        tried += 1
    return tried, passed


def guided(seeds: list[Seed], seconds: float, number: int) -> None:
    """Hand over to atheris, which prints its own count and ends the process."""
    import atheris

    def one(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        seed = seeds[provider.ConsumeIntInRange(0, len(seeds) - 1)]
        size = provider.ConsumeIntInRange(0, 200)
        message = provider.ConsumeBytes(size) or seed.message
        blob = provider.ConsumeBytes(4096) or seed.blob
        seed.check(f"atoll0.{b64url(message)}.{b64url(blob)}")

    run: Callable[[], None] = atheris.Fuzz
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}", f"-seed={number}"], one)
    run()


def main() -> None:
    """Make the seeds, fuzz, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atheris", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        keys = [SshKeyFile.new(Path(folder), f"key{n}", *kind) for n, kind in enumerate(KINDS)]
        seeds = [Seed(key, permission) for key in keys for permission in PERMISSIONS]
    if args.atheris:
        guided(seeds, args.seconds, args.seed)
    tried, passed = plain(seeds, args.seconds, args.seed)
    sys.stdout.write(f"{tried} tokens tried, {passed} unchanged ones passed, no other did\n")


if __name__ == "__main__":
    main()
