"""A page per kind of error: what it means and what to do. Keyed by `code`, which never changes.

The engine's kinds are named here as text: control does not know the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from atoll.base.errors import KINDS, AtollError, Internal
from atoll.commands.registry import UnknownCommand

# Those that a command ends with. What only the engine raises arrives in control as `internal`.
CODES: Mapping[str, type[AtollError]] = MappingProxyType(
    {**KINDS, UnknownCommand.code: UnknownCommand}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPage:
    """One code. `exec_status` is what POST /exec answers when a command fails so."""

    means: str
    do: str
    exec_status: int


ERROR_PAGES: Mapping[str, ErrorPage] = MappingProxyType(
    {
        "invalid": ErrorPage(
            means="The line can never work as it is written: a flag that the command does not have, a"
            " value that is no size or number, a name with letters that names cannot have, a"
            " quote that is not closed.",
            do="Read the message, it names the word. `<command> --help` shows every flag. Over SSH"
            " see that your own shell has not taken your quotes: `doc language`. Trying the same"
            " line again is of no use.",
            exec_status=422,
        ),
        "unknown-command": ErrorPage(
            means="No command has this name.",
            do="The hint has the nearest one; `help` lists all. To run a program in a VM, name the"
            " VM: `ssh <vm> <program>`.",
            exec_status=404,
        ),
        "denied": ErrorPage(
            means="The key or token you come with may not do this: it is made for one VM, or for"
            " other commands, or it has ended.",
            do="Use a key of the account itself, or make a token that may: `ssh-key"
            " generate-api-key --cmds …`. `whoami` shows which key you used.",
            exec_status=403,
        ),
        "not-found": ErrorPage(
            means="There is no such VM, image, key or page, or it is not yours: the two are not told"
            " apart.",
            do="`ls` shows your VMs, `ssh-key list` your keys and tokens; the hint has the nearest"
            " name. A VM you have removed comes back with `undo`, for a while.",
            exec_status=422,
        ),
        "conflict": ErrorPage(
            means="It exists, but its state does not allow this now: the name is taken, the VM is"
            " paused or stopped, or another command is working on it.",
            do="The message says which. For a taken name take another. A paused or stopped VM:"
            " `resume <vm>`. If something else is running, wait a moment and send the same line"
            " again.",
            exec_status=422,
        ),
        "exhausted": ErrorPage(
            means="A limit is reached: number of VMs, keys or calls in a while, or memory or disk of"
            " the pool.",
            do="`billing usage` shows what is used of what. `pause` frees memory, `rm` frees a"
            " place (and its disk once the time of `undo` is over). Where calls are counted,"
            " wait as long as `Retry-After` says.",
            exec_status=422,
        ),
        "unavailable": ErrorPage(
            means="Something behind the command does not answer: the engine restarts, a VM boots, or"
            " a time limit was reached. What was being done may still be done.",
            do="Look with `ls` before you repeat a change, then send it again. If it stays so:"
            " `atoll doctor` on the machine.",
            exec_status=500,
        ),
        "internal": ErrorPage(
            means="A defect of Atoll.",
            do="The log of control on the machine says more (`journalctl -u atoll-control`, or"
            " /var/lib/atoll/log). Please report it with the line that led to it.",
            exec_status=500,
        ),
        "guest-failed": ErrorPage(
            means="The guest agent, the program in every VM that the engine talks to, answered with"
            " an error.",
            do="`vm-logs <vm>` may say why; `restart <vm>` starts it anew. A command shows it as"
            " `internal`.",
            exec_status=500,
        ),
        "qmp-failed": ErrorPage(
            means="QEMU refused what the engine asked of it.",
            do="`atoll doctor` on the machine, then the engine's log. A command shows it as"
            " `internal`.",
            exec_status=500,
        ),
        "tool-failed": ErrorPage(
            means="A program of the machine that Atoll runs, as qemu-img or nft, failed or is not"
            " installed.",
            do="The message has the program's own words; `atoll doctor` on the machine names what"
            " is missing. A command shows it as `internal`.",
            exec_status=500,
        ),
        "image-damaged": ErrorPage(
            means="Files of a built image are not what was built.",
            do="Nothing at first: the image is built anew when it is needed. If it comes again,"
            " look for a failing disk. A command shows it as `internal`.",
            exec_status=500,
        ),
    }
)


def slug_of(code: str) -> str:
    """`error-not-found`."""
    return f"error-{code}"


def body_of(code: str) -> str:
    """The page of one code, without a heading."""
    page, kind = ERROR_PAGES[code], CODES.get(code, Internal)
    return (
        f"{page.means}\n\n**What to do.** {page.do}\n\n"
        f"Exit code {kind.exit}; `POST /exec` answers {page.exec_status}; in JSON, `code` is"
        f" `{kind.code}`."
    )


ABOUT = (
    "A command that fails says what failed and, as a hint, what to type next. In JSON:"
    ' `{"code": "not-found", "error": "VM \\"wbe\\" not found", "hint": "Did you mean web?"}`.'
    " `code` is one of those below and stays the same from release to release; the text may change."
    " Over SSH the exit code tells the kind. `POST /exec` also answers 400 for a line it cannot"
    " split, 401 without a good token, 413 over 64 KiB, 429 (with `Retry-After`) when a token calls too"
    " often, 504 when a command takes too long."
)
