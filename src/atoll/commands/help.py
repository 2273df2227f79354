"""Verbs about the language itself: help, doc, exit."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.commands import pages
from atoll.commands.context import Context
from atoll.commands.library import Library
from atoll.commands.parse import unknown
from atoll.commands.registry import Command, Nothing, Reach, Registry, Source, argument
from atoll.commands.reply import Reply

VERBS = Registry()


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    words: tuple[str, ...] = argument(
        "command", "a command; all if not given", many=True, source=Source.VERB
    )


@VERBS.command(
    "help",
    help="List the commands, or explain one.",
    reach=Reach.NOTHING,
    aliases=("?",),
    examples=("help", "help share port"),
    result={"commands": "one entry per command"},
)
async def help_(ctx: Context, args: About) -> Reply:
    found = _chosen(ctx, args.words)
    if len(found) == 1:
        return Reply(data=pages.page_data(found[0]), text=pages.page(found[0]))
    return Reply(
        data={"commands": [pages.page_data(command) for command in found]},
        text=pages.overview(found),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    words: tuple[str, ...] = argument(
        "page", "a page or a command; all; the list if not given", many=True, source=Source.PAGE
    )


@VERBS.command(
    "doc",
    help="Print a page of the reference as Markdown. A page is a command, an error code, `language`,"
    " `errors` or `skill`.",
    reach=Reach.NOTHING,
    examples=("doc", "doc new", "doc share port", "doc error-conflict", "doc skill", "doc all"),
    result={"markdown": "the text"},
)
async def doc(ctx: Context, args: Which) -> Reply:
    library = Library(registry=ctx.registry, addresses=ctx.addresses)
    text = library.find(args.words)
    return Reply(data={"markdown": text}, text=text)


@VERBS.command(
    "exit",
    help="Leave the prompt.",
    reach=Reach.NOTHING,
    aliases=("quit", "logout"),
    examples=("exit",),
)
async def exit_(ctx: Context, args: Nothing) -> Reply:
    return Reply(data={})


def _chosen(ctx: Context, words: tuple[str, ...]) -> tuple[Command, ...]:
    """The verb of these words, the family that starts with them, or all."""
    if not words or words == ("all",):
        return tuple(ctx.registry)
    matched = ctx.registry.match(words)
    if matched is not None:
        return (matched[0],)
    family = tuple(command for command in ctx.registry if command.words[0] == words[0])
    if not family:
        raise unknown(ctx.registry, words)
    return family
