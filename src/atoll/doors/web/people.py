"""The pages of who is here, and of mail that stays here."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from atoll.doors.web.view import View


class PeoplePages:
    """`GET /people`, `GET /mail`."""

    def __init__(self, view: View) -> None:
        self._view = view

    def routes(self) -> tuple[BaseRoute, ...]:
        """For the cloud's own host."""
        return (
            Route("/people", self.people, methods=["GET"]),
            Route("/mail", self.mail, methods=["GET"]),
        )

    async def people(self, request: Request) -> Response:
        """Accounts; for an admin invitations too, and a form to invite."""
        caller = await self._view.visitors.caller(request)
        forms, lines = self._view.forms, self._view.lines
        is_admin = caller.account.is_admin
        invited = (await lines.data(caller, "invite", "ls"))["invitations"] if is_admin else []
        return self._view.pages.page(
            request,
            "people.html",
            email=caller.account.email,
            is_admin=is_admin,
            people=(await lines.data(caller, "people"))["people"],
            invitations=[(each, forms.act("invite rm", email=each["email"])) for each in invited],
            invite=forms.form("invite", ("email", "message"), {}),
        )

    async def mail(self, request: Request) -> Response:
        """Letters, as plain text. Raises Denied for who is no admin."""
        caller = await self._view.visitors.caller(request)
        found = await self._view.lines.data(caller, "mail")
        return self._view.pages.page(
            request, "mail.html", email=caller.account.email, letters=found["letters"]
        )
