"""Verbs for who may have an account: invite, invite ls, invite rm, people, mail."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.base.errors import Denied
from atoll.commands.context import Context
from atoll.commands.letter import mailed, quoted
from atoll.commands.registry import Nothing, Reach, Registry, argument, flag
from atoll.commands.render import instant, table
from atoll.commands.reply import Reply
from atoll.store.people import Invitation

VERBS = Registry()
LETTERS = 50
_INVITED = {
    "email": "whom",
    "expires_at": "until when they may join, UTC",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    email: str = argument("email", "whom, as ann@example.com")
    message: str = flag("--message", "what the mail says from you", default="")


@VERBS.command(
    "invite",
    help="Let somebody have an account here; they get mail, and seven days. Only admins invite, for"
    " who uses the machine is its owner's to say. Others share what is theirs: `share add`.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=(
        "invite bob@example.com",
        "invite bob@example.com --message 'The demo runs here, come and see'",
    ),
    result={"status": "`invited`", **_INVITED},
    sometimes={"problem": "why no mail goes out"},
)
async def invite(ctx: Context, args: Invite) -> Reply:
    made = await ctx.cloud.joining.invite(ctx.caller, args.email, args.message)
    data = {"status": "invited", "email": made.email, "expires_at": instant(made.expires_at)}
    problem = await mailed(
        ctx,
        to=made.email,
        subject=f"{ctx.caller.account.email} invites you to {ctx.cloud.config.https.domain}",
        text=_letter(ctx, made),
    )
    if problem:
        return Reply(data=data | {"problem": problem}, text=f"invited {made.email}; {problem}")
    return Reply(data=data, text=f"invited {made.email}; mail is on its way")


def _letter(ctx: Context, invitation: Invitation) -> str:
    return (
        f"{ctx.caller.account.email} invites you to Atoll at {ctx.cloud.config.https.domain},"
        " a cloud of virtual machines.\n\n"
        + quoted(invitation.message)
        + f"Sign in with this address by {instant(invitation.expires_at)}:\n\n"
        f"{ctx.addresses.cloud_url('login')}\n\n"
        "You need do nothing if you do not want to.\n"
    )


@VERBS.command(
    "invite ls",
    help="List who is invited and has not come yet. For admins.",
    reach=Reach.ACCOUNT,
    examples=("invite ls",),
    result={
        "invitations": "one entry per address: `email`, `invited_by`, `message`, `since`, `expires_at`"
    },
)
async def ls(ctx: Context, args: Nothing) -> Reply:
    entries = [
        {
            "email": one.email,
            "invited_by": by,
            "message": one.message,
            "since": instant(one.created_at),
            "expires_at": instant(one.expires_at),
        }
        for one, by in await ctx.cloud.joining.invitations(ctx.caller)
    ]
    rows = [(e["email"] or "", e["invited_by"] or "", e["expires_at"] or "") for e in entries]
    head = ("E-MAIL", "INVITED BY", "UNTIL")
    return Reply(
        data={"invitations": entries}, text=table(head, rows) if rows else "Nobody is invited"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Uninvite:
    email: str = argument("email", "whose, as `invite ls` says it")


@VERBS.command(
    "invite rm",
    help="Take an invitation back. Who has come already stays. For admins.",
    reach=Reach.ACCOUNT,
    mutates=True,
    examples=("invite rm bob@example.com",),
    result={"status": "`removed`", "email": "whose"},
)
async def remove(ctx: Context, args: Uninvite) -> Reply:
    await ctx.cloud.joining.take_back(ctx.caller, args.email)
    email = args.email.strip().lower()
    return Reply(
        data={"status": "removed", "email": email}, text=f"{email} is not invited any more"
    )


@VERBS.command(
    "people",
    help="List who has an account here: all of them for an admin, yourself for anybody else.",
    reach=Reach.ACCOUNT,
    examples=("people",),
    result={
        "people": "one entry per account: `email`, `since`, `admin`, `last_seen` (in a browser, or"
        " changing something)"
    },
)
async def people(ctx: Context, args: Nothing) -> Reply:
    found = await ctx.cloud.joining.people(ctx.caller)
    entries = [
        {
            "email": one.email,
            "since": instant(one.created_at),
            "admin": one.is_admin,
            "last_seen": None if one.last_seen_at is None else instant(one.last_seen_at),
        }
        for one in found
    ]
    rows = [
        (
            str(entry["email"]),
            str(entry["since"]),
            str(entry["last_seen"] or ""),
            "admin" if entry["admin"] else "",
        )
        for entry in entries
    ]
    return Reply(
        data={"people": entries}, text=table(("E-MAIL", "SINCE", "LAST SEEN", "NOTE"), rows)
    )


@VERBS.command(
    "mail",
    help="Show mail that did not leave this machine, newest first: all of it where no SMTP server is"
    " set, else what the server did not take. For admins.",
    reach=Reach.ACCOUNT,
    examples=("mail",),
    result={
        "letters": f"the last {LETTERS}: `to`, `subject`, `text`, `at`, `undelivered` (why)",
    },
)
async def mail(ctx: Context, args: Nothing) -> Reply:
    if not ctx.caller.account.is_admin:
        raise Denied("only an admin of this cloud reads its mail", hint="See who is: people")
    letters = [
        {
            "to": letter.to,
            "subject": letter.subject,
            "text": letter.text,
            "at": instant(letter.at),
            "undelivered": letter.undelivered or None,
        }
        for letter in await ctx.cloud.mail.letters(LETTERS)
    ]
    return Reply(data={"letters": letters}, text="\n\n".join(map(_shown, letters)) or "No mail")


def _shown(letter: dict[str, str | None]) -> str:
    lines = [f"{letter['at']}  to {letter['to']}: {letter['subject']}"]
    if letter["undelivered"]:
        lines.append(f"not sent: {letter['undelivered']}")
    lines += [f"  {line}" for line in (letter["text"] or "").splitlines()]
    return "\n".join(lines)
