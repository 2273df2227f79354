"""What the audit keeps of a line: its verb and arguments in one form, without secrets, and its VMs.

A line that no verb could be made of may be anything, a password typed at the wrong prompt too: of it
nothing is kept but the verb it begins with.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from atoll.base.errors import AtollError, Denied, Internal, Invalid, NotFound
from atoll.commands.parse import DRY_RUN_FLAG, HELP_FLAG, Parsed, split
from atoll.commands.registry import Command, Parameter, Registry, Source
from atoll.commands.reply import Reply
from atoll.commands.several import is_pattern
from atoll.domain.account import Caller, Door
from atoll.domain.audit import WHAT_CHARACTERS, Act, Entry, detailed, fit
from atoll.services.audit import Waiting

MASK = "***"
FAILED = "failed"  # the result of a command that says itself what of it failed
CANCELLED = "cancelled"  # nobody waited for its end
REPEAT_S = 600.0  # what a page looks at is recorded once in this time
_PAGES = 4096  # lines of pages that are remembered for it
_GRANTS = frozenset({"share", "ssh-key", "team", "transfer", "invite", "passkey", "session"})
_SHOWN = ("name", "label", "fingerprint", "old_name", "new_name")  # of what a grant's reply says
_RENAMED = "old"  # the place of a VM's name that it has not any more when the command is done
_UNCHANGED = (Invalid, Denied, NotFound)
# Secrets that may stand in any place: private keys, tokens, sign-in links.
_TELLING = re.compile(r"-----BEGIN|(?:atoll|exe)[01]\.\S{16}|/login/\S{16}")


class Recording(Protocol):
    """What is needed of atoll.services.audit.Audit."""

    def now_us(self) -> int:
        """The time as records have it."""

    def note(self, entries: Sequence[Waiting]) -> None:
        """Have entries written, some time soon."""

    async def add(self, entries: Sequence[Waiting], *, is_urgent: bool = True) -> None:
        """The same, and wait for it when it is urgent."""

    async def room(self) -> None:
        """Wait until there is room; raises Unavailable."""


@dataclass(slots=True)
class Run:
    """One line that is being run, as far as it is known."""

    parsed: Parsed | None = None
    reply: Reply | None = None
    act_id: str = ""

    @property
    def is_change(self) -> bool:
        """Whether it may change something."""
        parsed = self.parsed
        return (
            parsed is not None
            and parsed.command.mutates
            and not (parsed.wants_help or parsed.is_dry_run)
        )


class Recorder:
    """Records every line that is run."""

    def __init__(
        self,
        *,
        registry: Registry,
        audit: Recording,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._audit = audit
        self._monotonic = monotonic
        self._pages: OrderedDict[tuple[str, ...], float] = OrderedDict()

    @asynccontextmanager
    async def around(self, caller: Caller, line: str) -> AsyncIterator[Run]:
        """Run a line in the body; it is recorded when the body ends, however that is.

        Raises Unavailable before it when nothing can be recorded.
        """
        await self._audit.room()
        run = Run()
        try:
            yield run
        except AtollError as error:
            is_urgent = run.is_change and not isinstance(error, _UNCHANGED)
            await self._audit.add(self._entries(caller, line, run, error.code), is_urgent=is_urgent)
            raise
        except (asyncio.CancelledError, Exception) as error:
            ended = CANCELLED if isinstance(error, asyncio.CancelledError) else Internal.code
            self._audit.note(self._entries(caller, line, run, ended))
            raise
        entries = self._entries(caller, line, run, FAILED if _exit(run) else "ok")
        is_opened = run.reply is not None and run.reply.run_in_vm is not None
        if not self._is_repeated(caller, run, entries[0].entry):
            await self._audit.add(entries, is_urgent=run.is_change or is_opened)

    def _entries(self, caller: Caller, line: str, run: Run, result: str) -> list[Waiting]:
        """A record per VM that the line is about; one if it is about none."""
        parsed = run.parsed
        verb = self._verb(line) if parsed is None else parsed.command.name
        touched = _touched(parsed, run, result)
        is_one = len(touched) == 1
        entry = Entry(
            at_us=self._audit.now_us(),
            account=caller.account.id,
            who=fit(caller.account.email.lower()),
            credential=fit(caller.credential),
            door=caller.door.value,
            source=fit(caller.source),
            act=_act(parsed),
            what=fit(verb if parsed is None else written(parsed), WHAT_CHARACTERS),
            detail=detailed(_detail(run)),
        )
        return [
            Waiting(
                replace(entry, vm=vm, result=outcome),
                act_id=run.act_id,
                to_owner="" if is_one or vm is None else f"{verb} {vm}",
            )
            for vm, outcome in touched.items()
        ]

    def _verb(self, line: str) -> str:
        try:
            matched = self._registry.match(split(line))
        except Invalid:
            matched = None
        return matched[0].name if matched is not None else ""

    def _is_repeated(self, caller: Caller, run: Run, entry: Entry) -> bool:
        """Whether a page reads again what it read a moment ago: an open one does so for hours."""
        if caller.door is not Door.WEB or run.is_change or entry.act == Act.ROOT:
            return False
        key = (caller.account.id, entry.credential, entry.source, entry.what, entry.result)
        now = self._monotonic()
        if now - self._pages.get(key, float("-inf")) < REPEAT_S:
            return True
        self._pages[key] = now
        self._pages.move_to_end(key)
        if len(self._pages) > _PAGES:
            self._pages.popitem(last=False)
        return False


def written(parsed: Parsed) -> str:
    """A line as `parse` understood it, flags first, with MASK in place of what may be secret."""
    command = parsed.command
    words = [command.name]
    words += [HELP_FLAG] if parsed.wants_help else []
    words += [DRY_RUN_FLAG] if parsed.is_dry_run else []
    for option in command.options:
        for text in parsed.given.get(option.name, ()):
            words.append(_flag(option, text))
    for place in command.places:
        texts = parsed.given.get(place.name, ())
        words += [MASK] if texts and place.is_secret else [_shown(place, text) for text in texts]
    return " ".join(words)


def _flag(option: Parameter, text: str) -> str:
    name = option.flags[-1]
    if option.is_switch:
        return name if text == "true" else f"{name}={text}"
    return f"{name}={_shown(option, text)}"


def _shown(parameter: Parameter, text: str) -> str:
    if parameter.is_secret or _TELLING.search(text):
        return MASK
    return shlex.quote(text[: WHAT_CHARACTERS + 1])


def _act(parsed: Parsed | None) -> str:
    if parsed is None or parsed.wants_help or parsed.is_dry_run:
        return Act.COMMAND.value
    command = parsed.command
    if command.name == "ssh":
        return Act.ROOT.value
    is_grant = command.mutates and command.words[0] in _GRANTS
    return Act.GRANT.value if is_grant else Act.COMMAND.value


def _detail(run: Run) -> dict[str, str]:
    """What the line does not say: which act of the journal it was, which key it made or removed."""
    if not run.is_change:
        return {}
    detail = {"act": run.act_id} if run.act_id else {}
    data = run.reply.data if run.reply is not None else None
    if _act(run.parsed) == Act.GRANT and isinstance(data, Mapping):
        said = {key: data[key] for key in _SHOWN if isinstance(data.get(key), str)}
        detail |= {key: fit(text) for key, text in said.items() if not _TELLING.search(text)}
    return detail


def _touched(parsed: Parsed | None, run: Run, result: str) -> dict[str | None, str]:
    """VMs that the line names or has changed, and what came of each."""
    if parsed is None:
        return {None: result}
    reply = run.reply
    data = reply.data if reply is not None and isinstance(reply.data, Mapping) else {}
    names = dict.fromkeys(_changed(reply, data), "ok") if run.is_change else {}
    for name in _named(parsed.command, parsed.given, is_done=reply is not None):
        names.setdefault(name, result)
    names |= dict.fromkeys(_listed(data, "failed"), FAILED)
    names |= dict.fromkeys(_listed(data, "not_found"), NotFound.code)
    return {fit(name): outcome for name, outcome in names.items()} or {None: result}


def _changed(reply: Reply | None, data: Mapping[str, object]) -> Iterator[str]:
    if reply is None:
        return
    if reply.changed is not None:
        yield from reply.changed
    elif isinstance(name := data.get("vm_name"), str):
        yield name


def _named(command: Command, given: Mapping[str, Sequence[str]], *, is_done: bool) -> Iterator[str]:
    for parameter in command.parameters:
        if parameter.source is Source.VM and not (is_done and parameter.name == _RENAMED):
            texts = given.get(parameter.name, ())
            yield from (
                text for text in texts if not is_pattern(text) and not _TELLING.search(text)
            )


def _listed(data: Mapping[str, object], key: str) -> Iterable[str]:
    found = data.get(key)
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else ()


def _exit(run: Run) -> int:
    return run.reply.exit if run.reply is not None else 0
