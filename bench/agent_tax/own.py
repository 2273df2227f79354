"""Our side: the real language on a whole control; only the engine is the fake one of the tests.

A command is typed with the short name that `make up` puts into ~/.ssh/config, or in `full` with the
address that `docs/skill.md` shows; answers are those of a cloud as `make up` leaves it. An answer is
what SSH prints: as text, or as JSON with `--json`; progress, which goes to stderr, counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.agent_tax.tasks import CONSOLE, COPY, FLEET, NEW, PERSON, TAG, TASKS, Side, Turn

from atoll.commands.addresses import Addresses
from atoll.commands.verbs import REGISTRY
from atoll.config import Config
from fakes.engine import FakeEngine
from framework.cloud import Control, control

SHORT = f"ssh {Config().https.domain.partition('.')[0]}"
LINES: dict[str, Sequence[str]] = {
    "list": ["ls"],
    "create": [f"new --name {NEW} --tag {TAG}"],
    "copy": [f"cp web {COPY}"],
    "share with one person": [f"share add web {PERSON}"],
    "logs": ["vm-logs web"],
    "restart": ["restart web"],
    "resize": ["resize web --cpu 2 --memory 2G", "restart web"],
    "snapshot": ["snap web"],
    "rollback": ["rollback web"],
    "delete": [f"rm {COPY}"],
}


def is_built(task: str) -> bool:
    """Whether the language has every verb of the task."""
    return all(REGISTRY.match(line.split()) for line in LINES[task])


def full(side: Side) -> Side:
    """The same, typed without the short name."""
    lobby = Addresses(Config()).lobby_command
    return {
        task: [Turn(lobby + turn.command.removeprefix(SHORT), turn.output) for turn in turns]
        for task, turns in side.items()
    }


async def sides(folder: Path) -> dict[str, Side]:
    """`text` and `json`, each of a fleet of its own."""
    return {way: await _side(folder / way, way) for way in ("text", "json")}


async def _side(folder: Path, way: str) -> Side:
    folder.mkdir(parents=True)
    engine = FakeEngine(folder / "engine.sock")
    engine.warm_sizes |= {(cpus, gib << 30) for cpus in (1, 2) for gib in (1, 2, 4, 8)}
    async with engine.serving(), control(folder / "control", engine, loops=True) as cloud:
        for name in FLEET:
            await cloud.run(f"new --name {name} --tag {TAG}")
        engine.consoles = dict.fromkeys(engine.vms, CONSOLE)
        return {
            task: [await _turn(cloud, line, way) for line in LINES[task]]
            for task in TASKS
            if is_built(task)
        }


async def _turn(cloud: Control, line: str, way: str) -> Turn:
    line = f"{line} --json" if way == "json" else line
    cloud.progress.clear()
    reply = await cloud.run(line)
    assert reply.exit == 0, f"{line}: {reply.text}"
    return Turn(f"{SHORT} {line}", "\n".join([*cloud.progress, reply.text]))
