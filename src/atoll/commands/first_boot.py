"""What `new` and `defaults` take for a VM's first start: a script, as text or from stdin."""

from __future__ import annotations

from atoll.base.errors import Invalid
from atoll.commands.context import Context
from atoll.domain.setup import check_script, unescaped

STDIN = ("-", "/dev/stdin")
UNIT = "exe-setup"  # the unit in a VM that runs it; why it has this name is said there


def script_of(ctx: Context, given: str) -> str:
    r"""The script: `given` with `\n` and `\\` decoded, or stdin as it is; empty: none.

    Raises Invalid for one that cannot run.
    """
    if given not in STDIN:
        return check_script(unescaped(given)) if given else ""
    if not ctx.stdin:
        raise Invalid(
            "no setup script came on stdin",
            hint="Try: ssh host new --setup-script - < setup.sh, or give its text",
        )
    try:
        return check_script(ctx.stdin.decode())
    except UnicodeDecodeError as error:
        raise Invalid("a setup script must be UTF-8 text without NUL") from error


def note(ctx: Context, name: str) -> str:
    """The line of `new` that says a script runs, and where its output is."""
    shell = ctx.addresses.ssh_command(name)
    return f"its setup script runs; what it prints: {shell} journalctl -fu {UNIT}"
