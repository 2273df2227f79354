"""Asks servers of others over HTTPS for a little JSON, within bounds on time and size.

Invariants: no answer is read beyond `most` bytes, none is unpacked (a kilobyte can become a gigabyte),
no redirect is followed, and all of it is over after `seconds`, however slowly it comes.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from atoll.base.errors import Unavailable
from atoll.base.timeout import timeout


class Fetcher:
    """One for all servers. Tests give a `transport` of their own."""

    def __init__(self, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport
        self._trust: ssl.SSLContext | None = None

    async def json(
        self,
        method: str,
        url: str,
        *,
        body: str = "",
        headers: Mapping[str, str] | None = None,
        most: int = 256 * 1024,
        seconds: float = 10.0,
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of an answer. Raises Unavailable, which names the server."""
        host = _host(url)
        try:
            async with timeout(seconds):
                status, data = await self._read(method, url, body, headers or {}, most)
        except TimeoutError as error:
            raise Unavailable(f"{host} did not answer within {seconds:.0f} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            said = str(error) or type(error).__name__
            raise Unavailable(f"{host} cannot be asked: {said[:200]}") from error
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Unavailable(f"{host} answered {status}, and no JSON") from error
        if not isinstance(found, dict):
            raise Unavailable(f"{host} answered {status}, and no JSON object")
        return status, found

    async def _read(
        self, method: str, url: str, body: str, headers: Mapping[str, str], most: int
    ) -> tuple[int, bytes]:
        sent = {"accept": "application/json", "accept-encoding": "identity", **headers}
        async with (
            self._client() as client,
            client.stream(method, url, content=body.encode(), headers=sent) as answer,
        ):
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise httpx.DecodingError("its answer is packed, which was not asked for")
            data = bytearray()
            async for chunk in answer.aiter_raw():
                data += chunk
                if len(data) > most:
                    raise httpx.DecodingError(f"its answer has more than {most >> 10} KiB")
            return answer.status_code, bytes(data)

    def _client(self) -> httpx.AsyncClient:
        if self._transport is not None:
            return httpx.AsyncClient(transport=self._transport)
        if self._trust is None:
            self._trust = ssl.create_default_context()  # what this machine trusts
        return httpx.AsyncClient(verify=self._trust)


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError as error:
        raise Unavailable(f"{url[:100]!r} is no URL that can be asked") from error
