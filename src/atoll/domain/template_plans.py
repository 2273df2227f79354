"""Which warm templates to build next, which templates and images to remove. Facts in, decisions out.

Invariant: nothing is removed that a record stands on, nor the default size's template, nor an image
that new VMs get.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from atoll.base.units import show_size

WAITING = 8  # sizes; at a minute or two each, whoever asks for the ninth asks again
FIRST_RETRY_S = 60.0
LAST_RETRY_S = 3600.0
REMEMBERED = 32  # failures


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a template is for: VMs of this image, vCPUs and memory, with this disk or a larger one."""

    image: str
    cpus: int
    memory_bytes: int
    disk_bytes: int

    def __str__(self) -> str:
        memory, disk = show_size(self.memory_bytes), show_size(self.disk_bytes)
        return f"{self.image}, {self.cpus} vCPU, {memory} memory, {disk} disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A size that could not be built: how often by now, why, and when it may be tried again."""

    times: int
    reason: str
    again_at: float


class Backlog:
    """Sizes that wait to be built, in the order they were missed. Every time is of one clock."""

    def __init__(self) -> None:
        self._waiting: list[Size] = []
        self._failures: dict[Size, Failure] = {}

    @property
    def waiting(self) -> tuple[Size, ...]:
        """First in, first built."""
        return tuple(self._waiting)

    @property
    def failures(self) -> Mapping[Size, Failure]:
        """What failed and has not been built since."""
        return dict(self._failures)

    def ask(self, size: Size, now: float) -> bool:
        """Queue `size` once. False: it failed a moment ago, or too much waits; ask again later."""
        if size in self._waiting:
            return True
        if not self._may_try(size, now) or len(self._waiting) >= WAITING:
            return False
        self._waiting.append(size)
        return True

    def next(self, now: float, default: Size | None) -> Size | None:
        """What to build now: `default` if it is missing (None: it is not), else the first that waits.

        It stays in the queue until `done` or `failed`.
        """
        if default is not None and self._may_try(default, now):
            return default
        return self._waiting[0] if self._waiting else None

    def done(self, size: Size) -> None:
        """There is a template of `size`."""
        self._leave(size)
        self._failures.pop(size, None)

    def failed(self, size: Size, reason: str, now: float) -> None:
        """Not now: each failure in a row doubles the wait until the next try."""
        self._leave(size)
        before = self._failures.pop(size, None)
        times = before.times + 1 if before else 1
        wait_s = min(FIRST_RETRY_S * 2 ** (times - 1), LAST_RETRY_S)
        self._failures[size] = Failure(times=times, reason=reason, again_at=now + wait_s)
        for oldest in list(self._failures)[:-REMEMBERED]:
            del self._failures[oldest]

    def _leave(self, size: Size) -> None:
        if size in self._waiting:
            self._waiting.remove(size)

    def _may_try(self, size: Size, now: float) -> bool:
        failure = self._failures.get(size)
        return failure is None or now >= failure.again_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A template of the pool. Those with equal `key`, `digest` and `disk_bytes` are interchangeable."""

    id: str
    key: str  # of the machine shape
    digest: str  # of the image
    disk_bytes: int
    created_at: float
    used_at: float


def plan_templates(
    held: Iterable[Held],
    *,
    default: str | None,
    images: Collection[str],
    needed: Collection[str],
    keep: int,
) -> tuple[str, ...]:
    """Templates to remove, in order.

    `default` is the id of the default size's, `images` the digests that new VMs get, `needed` the ids
    that records stand on. Of the rest go: those of other images, all but the newest of
    interchangeable ones, and the least recently used beyond `keep`.
    """
    newest_first = sorted(held, key=lambda each: (each.created_at, each.id), reverse=True)
    best: dict[tuple[str, str, int], Held] = {}
    for each in newest_first:
        best.setdefault((each.key, each.digest, each.disk_bytes), each)
    stay = {*needed, default}
    idle = [each for each in best.values() if each.digest in images and each.id not in stay]
    idle.sort(key=lambda each: (each.used_at, each.created_at, each.id), reverse=True)
    stay |= {each.id for each in idle[:keep]}
    return tuple(each.id for each in reversed(newest_first) if each.id not in stay)


def plan_images(
    held: Iterable[str], *, current: Collection[str], needed: Collection[str]
) -> tuple[str, ...]:
    """Digests of images to remove: neither what new VMs get nor what records or templates stand on."""
    return tuple(sorted(set(held) - set(current) - set(needed)))
