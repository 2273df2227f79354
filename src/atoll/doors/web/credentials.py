"""The page of what lets somebody in: SSH keys, API tokens, passkeys, browsers."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from atoll.commands.registry import Source
from atoll.doors.web.view import View


class Credentials:
    """`GET /keys`."""

    def __init__(self, view: View) -> None:
        self._view = view

    def routes(self) -> tuple[BaseRoute, ...]:
        """For the cloud's own host."""
        return (Route("/keys", self.page, methods=["GET"]),)

    async def page(self, request: Request) -> Response:
        """The list, and forms to add."""
        caller = await self._view.visitors.caller(request)
        listed = await self._view.lines.data(caller, "ssh-key", "list")
        passkeys = (await self._view.lines.data(caller, "passkey", "ls"))["passkeys"]
        sessions = (await self._view.lines.data(caller, "session", "ls"))["sessions"]
        vms = ("", *await self._view.choices.names(caller, Source.VM))
        return self._view.pages.page(
            request,
            "keys.html",
            email=caller.account.email,
            keys=[
                (key, self._view.forms.act("ssh-key remove", key=key["name"]))
                for key in listed["ssh_keys"]
            ],
            tokens=[
                (token, self._view.forms.act("ssh-key remove", key=token["label"]))
                for token in listed["api_keys"]
            ],
            passkeys=[
                (each, self._view.forms.act("passkey rm", passkey=each["name"]))
                for each in passkeys
            ],
            sessions=[
                (each, self._view.forms.act("session rm", id=each["id"])) for each in sessions
            ],
            others=self._view.forms.act("session rm", others="true"),
            add=self._view.forms.form(
                "ssh-key add", ("key", "name", "vm", "tag"), {}, choices={"vm": vms}
            ),
            generate=self._view.forms.form(
                "ssh-key generate-api-key",
                ("label", "cmds", "exp", "vm", "tag"),
                {},
                choices={"vm": vms},
                values={"exp": "30d"},
            ),
            rename=self._view.forms.form("ssh-key rename", ("old", "new"), {}),
        )
