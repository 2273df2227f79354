"""All of the provider's routes, put together."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute

from atoll.domain.web import Names
from atoll.doors.web.app import Web
from atoll.doors.web.openid.endpoints import Endpoints
from atoll.doors.web.openid.pages import OpenIdPages
from atoll.services.issuer import Issuer
from atoll.services.openid import OpenId


class Provider:
    """Atoll as an OpenID provider, beside the pages that `web` shows."""

    def __init__(self, *, names: Names, openid: OpenId, issuer: Issuer, web: Web) -> None:
        self._endpoints = Endpoints(openid=openid, issuer=issuer)
        self._pages = OpenIdPages(
            names=names,
            openid=openid,
            visitors=web.visitors,
            pages=web.pages,
            login=web.login,
        )

    def routes(self) -> Sequence[BaseRoute]:
        """For the cloud's own host."""
        return (*self._endpoints.routes(), *self._pages.routes())
