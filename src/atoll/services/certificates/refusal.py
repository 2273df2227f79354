"""What an ACME server said no to, and how long it wants to be left alone."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from acme import errors, messages
from josepy.errors import Error as JoseError

from atoll.base.errors import Unavailable


class Refused(Unavailable):
    """The server did not give a certificate. `wait_s`: it wants no further attempt before; `is_limit`:
    that is about all we ask, not about one name."""

    def __init__(
        self, message: str, *, hint: str = "", wait_s: float = 0.0, is_limit: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.wait_s = wait_s
        self.is_limit = is_limit


class Answered:
    """What the last answer said of waiting: the library does not pass it on."""

    def __init__(self) -> None:
        self._wait_s = 0.0
        self._status = 0

    def note(self, response: requests.Response, *_arguments: Any, **_options: Any) -> None:
        """Called by requests, in the thread, after each answer."""
        self._wait_s = wait_of(response.headers.get("Retry-After", ""), now=dt.datetime.now(dt.UTC))
        self._status = response.status_code

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Errors of the library in our words."""
        self._wait_s, self._status = 0.0, 0
        try:
            yield
        except errors.TimeoutError:
            raise
        except messages.Error as error:
            is_limit = error.code == "rateLimited" or self._status == 503
            raise Refused(
                f"the ACME server refuses: {said(error)}", wait_s=self._wait_s, is_limit=is_limit
            ) from error
        except errors.IssuanceError as error:
            raise Refused(f"the ACME server does not sign: {said(error.error)}") from error
        except (errors.Error, JoseError, ValueError, KeyError) as error:  # also what is no JSON
            raise Refused(
                f"the ACME server's answer is not understood: {_short(error)}",
                wait_s=self._wait_s,
                is_limit=self._status >= 500,
            ) from error
        except requests.RequestException as error:
            raise Refused(
                f"the ACME server does not answer: {_short(error)}",
                wait_s=self._wait_s,
                is_limit=True,
            ) from error


def wait_of(text: str, *, now: dt.datetime) -> float:
    """Seconds of a Retry-After header, which is a number or a date; 0 for anything else."""
    if text.isascii() and text.isdigit() and len(text) < 9:
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, (when.replace(tzinfo=when.tzinfo or dt.UTC) - now).total_seconds())


def said(error: messages.Error | None) -> str:
    if error is None:
        return "no reason given"
    parts = [error.detail or error.title or "", *(said(one) for one in error.subproblems or ())]
    return f"{error.code or error.typ}: {'; '.join(filter(None, parts))}"[:400]


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__).split("\n", 1)[0][:300]
