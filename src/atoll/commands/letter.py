"""Mail that a verb sends to somebody besides what it does."""

from __future__ import annotations

from atoll.base.errors import AtollError
from atoll.commands.context import Context


def quoted(message: str) -> str:
    """What the sender says, as a paragraph of a letter; empty for nothing."""
    lines = "\n".join(f"  {line}" for line in message.splitlines())
    return f"They say:\n\n{lines}\n\n" if lines else ""


async def mailed(ctx: Context, *, to: str, subject: str, text: str) -> str:
    """Send it. Returns why it does not go, or nothing; what it tells of is good all the same."""
    try:
        await ctx.cloud.mail.send(to=to, subject=subject, text=text)
    except AtollError as error:
        return f"no mail goes to {to}: {error.message}"
    return ""
