"""One act on several VMs: names and patterns to VMs, and every result and error of theirs to one reply.

A VM that fails stops no other. A few are worked on at a time, so that `restart '*'` is no stampede.
"""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from atoll.base.aio import together
from atoll.base.errors import AtollError, NotFound
from atoll.commands.context import Context
from atoll.commands.reply import Reply
from atoll.services.rehearsal import Rehearsed

T = TypeVar("T")
AT_ONCE = 4  # each may write a VM's memory to disk
PATTERN_CHARS = 200  # a name has at most 52; a pattern of 64 KiB is seconds of work
VMS = "VMs, by name or by pattern: * stands for any letters, ? for one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Generic[T]):
    """What came of each VM, by name, in order."""

    results: Mapping[str, T]
    errors: Mapping[str, AtollError] = field(default_factory=dict)

    @property
    def exit(self) -> int:
        """Exit code of the first error."""
        return next((error.exit for error in self.errors.values()), 0)

    def failures(self) -> dict[str, Any]:
        """The JSON keys that say what failed."""
        return {
            "failed": list(self.errors),
            "not_found": [n for n, error in self.errors.items() if isinstance(error, NotFound)],
            "errors": {name: error.message for name, error in self.errors.items()},
        }


def is_pattern(text: str) -> bool:
    """Whether a name stands for all that match; no name of a VM holds these characters."""
    return not set(text).isdisjoint("*?[")


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """Those of `names` that fit; a pattern that is much longer than any name fits none."""
    if len(pattern) > PATTERN_CHARS:
        return []
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def is_anything(text: str) -> bool:
    """Whether a pattern leaves nobody out but by length: `*`, and what an empty folder leaves of it."""
    return is_pattern(text) and not text.strip("*?")


def is_several(names: Sequence[str]) -> bool:
    """Whether the answer is a list: two names, or a pattern, however many it matches."""
    return len(names) > 1 or any(map(is_pattern, names))


async def on_each(
    ctx: Context,
    given: Sequence[str],
    act: Callable[[str], Awaitable[Reply]],
    *,
    between: str = "\n",
) -> Reply:
    """The reply of `act` for one VM that is named; a list of replies for several or a pattern."""
    if not is_several(given):
        return await act(given[0])
    done = await each(ctx, given, act)
    texts = [reply.text for reply in done.results.values()]
    return Reply(
        data={"vms": [reply.data for reply in done.results.values()], **done.failures()},
        text=between.join([*texts, *map(str, done.errors.values())]),
        exit=done.exit,
        changed=tuple(name for name, reply in done.results.items() if reply.changed != ()),
    )


async def each(ctx: Context, given: Sequence[str], act: Callable[[str], Awaitable[T]]) -> Done[T]:
    """Do `act` with every VM named or matched, each once.

    Raises NotFound for a pattern without a match when that leaves nothing to do; in a dry run
    Rehearsed with the steps of all.
    """
    names, unmatched = await _named(ctx, given)
    if not names:
        raise next(iter(unmatched.values()))
    try:
        done = await collected(dict.fromkeys(names, act))
    except Rehearsed as ended:
        raise Rehearsed(ended.steps, {**unmatched, **ended.errors}) from None
    return Done(results=done.results, errors={**unmatched, **done.errors})


async def collected(acts: Mapping[str, Callable[[str], Awaitable[T]]]) -> Done[T]:
    """Run each act with its name; raises Rehearsed with the steps of all if there are any."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, act: Callable[[str], Awaitable[T]]) -> T | AtollError | Rehearsed:
        async with gate:
            try:
                return await act(name)
            except (AtollError, Rehearsed) as ended:
                return ended

    ended = dict(zip(acts, await together(*(one(*item) for item in acts.items())), strict=True))
    errors = {name: end for name, end in ended.items() if isinstance(end, AtollError)}
    steps = [step for end in ended.values() if isinstance(end, Rehearsed) for step in end.steps]
    if steps:
        raise Rehearsed(steps, errors)
    results = {name: end for name, end in ended.items() if name not in errors}
    return Done(results=results, errors=errors)


async def _named(ctx: Context, given: Sequence[str]) -> tuple[list[str], dict[str, AtollError]]:
    """The names meant, and an error for every pattern that matches none."""
    owned: list[str] = []
    if any(map(is_pattern, given)):
        owned = [vm.label for vm in await ctx.cloud.access.visible(ctx.caller)]
    names: list[str] = []
    errors: dict[str, AtollError] = {}
    for text in given:
        found = matching(owned, text)
        if found or not is_pattern(text):
            names.extend(found or [text])
        else:
            errors[text] = no_match(text)
    return list(dict.fromkeys(names)), errors


def no_match(pattern: str) -> NotFound:
    """The error for a pattern that no VM of the caller's fits."""
    return NotFound(f"no VM matches {pattern[:60]!r}", hint="Try: ls")
