"""The command language: one line in, one reply out, the same behind every door.

Order: parse, check the caller's scope, run, record, render. Nothing is run for `--help`, and for
`--dry-run` only as a rehearsal. Every line is recorded, refused ones as well; one that changed something
is answered when its record is on the disk.
"""

from __future__ import annotations

from collections.abc import Callable

from atoll.base import log
from atoll.base.errors import AtollError, Denied
from atoll.commands import pages
from atoll.commands.complete import Choices, Completer
from atoll.commands.context import Context, Sessions
from atoll.commands.dry_run import rehearse
from atoll.commands.going_on import Audience, in_json
from atoll.commands.parse import Parsed, parse
from atoll.commands.recording import Recorder, Run
from atoll.commands.registry import Command, Reach
from atoll.commands.render import as_json
from atoll.commands.reply import Reply
from atoll.commands.verbs import REGISTRY
from atoll.domain.account import Caller
from atoll.services.cloud import Cloud

_log = log.get("commands")


class Language:
    """Executes and completes lines."""

    def __init__(self, *, cloud: Cloud, sessions: Sessions) -> None:
        self._cloud = cloud
        self._sessions = sessions
        self._audience = Audience()
        self._completer = Completer(registry=REGISTRY, cloud=cloud)
        self._recorder = Recorder(registry=REGISTRY, audit=cloud.audit)

    async def execute(
        self,
        caller: Caller,
        line: str,
        *,
        stdin: bytes = b"",
        progress: Callable[[str], None] | None = None,
    ) -> Reply:
        """Run one line. `text` of the reply is JSON when the line asked for it; see `Reply.more` for
        one that goes on.

        Raises UnknownCommand, Invalid (the line), Denied (the scope), or what the verb raises.
        """
        async with self._recorder.around(caller, line) as run:
            run.parsed = parsed = parse(REGISTRY, line)
            run.reply = await self._run(caller, parsed, run, stdin=stdin, progress=progress)
            reply = run.reply
        if parsed.wants_json and reply.run_in_vm is None and not parsed.wants_help:
            reply = in_json(reply)
        return self._audience.admit(caller.account.id, reply)

    async def _run(
        self,
        caller: Caller,
        parsed: Parsed,
        run: Run,
        *,
        stdin: bytes,
        progress: Callable[[str], None] | None,
    ) -> Reply:
        command = parsed.command
        if parsed.wants_help:
            data = pages.page_data(command)
            return Reply(
                data=data, text=as_json(data) if parsed.wants_json else pages.page(command)
            )
        check_scope(caller, command, parsed.arguments)
        ctx = Context(
            caller=caller,
            registry=REGISTRY,
            cloud=self._cloud,
            sessions=self._sessions,
            stdin=stdin,
            progress=progress or (lambda _text: None),
        )
        if parsed.is_dry_run:
            return await rehearse(ctx, command, parsed.arguments)
        run.act_id = ctx.act
        reply = await command.run(ctx, parsed.arguments)
        if command.mutates:
            await self._record(ctx, command, reply)
        return reply

    def changes(self, line: str) -> bool:
        """True when running the line would change something.

        Raises UnknownCommand or Invalid (the line).
        """
        parsed = parse(REGISTRY, line)
        return parsed.command.mutates and not (parsed.wants_help or parsed.is_dry_run)

    async def complete(self, caller: Caller, line: str) -> list[str]:
        """Words that can stand in place of the last word of `line`, sorted."""
        choices = await self._completer.choices(caller, line)
        return [choice.word for choice in choices.items]

    async def choices(self, caller: Caller, line: str) -> Choices:
        """What can stand at the end of `line`, with what to show for it."""
        return await self._completer.choices(caller, line)

    async def _record(self, ctx: Context, command: Command, reply: Reply) -> None:
        names: tuple[str | None, ...] | None = reply.changed
        if names is None:
            names = (reply.data.get("vm_name") if isinstance(reply.data, dict) else None,)
        try:
            for name in names:
                await self._cloud.events.record(ctx.caller, command.name, act=ctx.act, vm_name=name)
        except AtollError as error:  # the command is done; its trace is missing
            _log.warning("event not recorded", command=command.name, reason=str(error))


def check_scope(caller: Caller, command: Command, arguments: object) -> None:
    """Raise Denied when the key or token is not made for this command."""
    scope = caller.scope
    is_beyond = {
        Reach.ACCOUNT: not scope.is_whole,
        Reach.NEW_VM: scope.vm is not None,
    }.get(command.reach, False)
    if is_beyond:
        limit = "one VM" if scope.vm is not None else f"VMs tagged {scope.tag!r}"
        raise Denied(
            f"this key or token is for {limit}; `{command.name}` concerns the account",
            hint="Use a key of the account itself",
        )
    words = {command.name, *map(" ".join, command.aliases)}
    if scope.cmds is None or words & scope.cmds:
        return
    vm = getattr(arguments, "vm", None)
    touched = (vm,) if isinstance(vm, str) else getattr(arguments, "vms", ())
    if touched and all(f"{command.name} {name}" in scope.cmds for name in touched):
        return
    allowed = ", ".join(sorted(scope.cmds)) or "nothing"
    raise Denied(f"this token does not allow `{command.name}`", hint=f"It allows: {allowed}")
