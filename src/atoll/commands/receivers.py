"""Whom `share add` and `share remove` mean: a person by address, or a team that one is in by name."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.base.errors import NotFound
from atoll.commands.context import Context
from atoll.domain.email import check_email
from atoll.domain.sharing import Who
from atoll.domain.team import ONLY

_HINT = "Give a team of: team ls, or an e-mail address: bob@example.com"
WHO = "an e-mail address, or a team; `team` is the one you are in"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """One of them; `who` is what a grant keeps, `name` what people say."""

    kind: Who
    who: str
    name: str

    @property
    def fields(self) -> dict[str, str]:
        """What an answer says of it."""
        return {"team_name": self.name} if self.kind is Who.TEAM else {}


async def receiver(ctx: Context, text: str) -> Receiver:
    """Raises NotFound for a team that the caller is not in, Invalid for what is neither."""
    if "@" in text:
        email = check_email(text)
        return Receiver(kind=Who.PERSON, who=email, name=email)
    try:
        place = await ctx.cloud.teams.find(ctx.caller, None if text == ONLY else text)
    except NotFound as error:
        is_near = error.hint.startswith("Did you mean")
        raise NotFound(error.message, hint=error.hint if is_near else _HINT) from error
    return Receiver(kind=Who.TEAM, who=place.team.id, name=place.team.name)
