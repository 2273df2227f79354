"""The few kinds of failure Atoll reports.

An error says what failed, with names and numbers; its hint says what to type next. Doors turn the
kind into an exit code or an HTTP status; nothing else branches on the text.
"""

from __future__ import annotations

from typing import Any, ClassVar


class AtollError(Exception):
    """Root of every error shown to a user.

    `code` is stable and kebab-case, `http` an HTTP status, `exit` a process exit code.
    """

    code: ClassVar[str] = "internal"
    http: ClassVar[int] = 500
    exit: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = fields

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def to_wire(self) -> dict[str, Any]:
        """JSON shape shared by the RPC and the doors."""
        wire: dict[str, Any] = {"code": self.code, "error": self.message}
        if self.hint:
            wire["hint"] = self.hint
        if self.fields:
            wire["fields"] = self.fields
        return wire


class Invalid(AtollError):
    """The request can never work as written."""

    code, http, exit = "invalid", 400, 2  # as shells and their tools say it


class Denied(AtollError):
    """The caller may not do this."""

    code, http, exit = "denied", 403, 77


class NotFound(AtollError):
    """A named thing does not exist, or the caller may not know that it does."""

    code, http, exit = "not-found", 404, 66


class Conflict(AtollError):
    """The thing exists but its state does not allow this now."""

    code, http, exit = "conflict", 409, 75


class Exhausted(AtollError):
    """A limit is reached: memory, disk, rate, queue."""

    code, http, exit = "exhausted", 429, 69


class Unavailable(AtollError):
    """Something this depends on does not answer; trying again may help."""

    code, http, exit = "unavailable", 503, 69


class Internal(AtollError):
    """A defect of ours."""


KINDS: dict[str, type[AtollError]] = {
    kind.code: kind
    for kind in (Invalid, Denied, NotFound, Conflict, Exhausted, Unavailable, Internal)
}


def from_wire(wire: dict[str, Any]) -> AtollError:
    """Rebuild an error sent by `to_wire`; unknown codes become Internal."""
    kind = KINDS.get(str(wire.get("code")), Internal)
    fields = wire.get("fields")
    return kind(
        str(wire.get("error", "unknown error"))[:2000],
        hint=str(wire.get("hint", ""))[:2000],
        **{str(k): v for k, v in fields.items() if str(k) not in ("hint", "message", "self")}
        if isinstance(fields, dict)
        else {},
    )
