"""The local door: root of this machine runs commands and makes the first account.

A unix socket that only root and control's own user may use. One request per connection, one JSON
object per line each way; progress lines may come before the one answer, and what a command goes on
with after it, until the client closes the connection, or {"end": true} where that ends. There is no
login here: whoever is root on the machine owns the cloud anyway.

    {"do": "execute", "line": "new --name web"}    -> {"progress": "..."}* {"reply": {...}}
    {"do": "execute", "line": "events --follow"}   -> {"reply": {.., "goes_on": true}} {"more": {...}}*
    {"do": "ensure-owner", "email": .., "key": .., "label": ..}           -> {"reply": {...}}
    {"do": "public-keys"}                                                 -> {"reply": {...}}
    {"do": "problems"}                                         -> {"reply": {"problems": ["…"]}}
    {"do": "rotate-issuer"}                                               -> {"reply": {"keys": [..]}}
    {"do": "rotate-key", "revoke": false}                                 -> {"reply": {"kid": ..}}
Errors come as {"error": {"code", "error", "hint"}}.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from atoll.base import log, peer
from atoll.base.aio import deadline, unless
from atoll.base.errors import AtollError, Internal, Invalid
from atoll.base.timeout import timeout
from atoll.commands.reply import Piece, Reply
from atoll.domain.account import Account, Caller, Door

REQUEST_LIMIT = 1 << 20
READ_S = 10.0  # for the request line; it is written at once
ANSWER_S = 900.0  # the longest command builds a template
_log = log.get("local")


class Language(Protocol):
    """Runs one command line; the command layer's `Language` fits."""

    async def execute(
        self,
        caller: Caller,
        line: str,
        *,
        stdin: bytes = b"",
        progress: Callable[[str], None] | None = None,
    ) -> Reply: ...


class Owners(Protocol):
    """The machine's first account, which is its admin."""

    async def ensure_owner(self, *, email: str, key_line: str, label: str) -> Account:
        """Make the account if there is none, add the key to it if it is new; return it."""
        ...

    async def owner(self) -> Account:
        """The account; NotFound before the first `ensure_owner`."""
        ...


class Issuer(Protocol):
    """Whoever signs what others verify."""

    def rotate(self) -> None:
        """Sign with a new key, and disown the others."""
        ...

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys."""
        ...


class Signing(Protocol):
    """The keys that sign tokens; `doors.edge` shows them to HAProxy."""

    def rotate(self, *, revoke: bool = False) -> Named:
        """Sign with the next key from now on; it is returned."""
        ...


class Named(Protocol):
    """A key."""

    @property
    def kid(self) -> str:
        """Its id."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKeys:
    """What a client needs to trust this cloud: two OpenSSH public key lines."""

    gateway: str
    host_ca: str


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Execute(_Request):
    """Run `line` as the owner."""

    do: Literal["execute"] = "execute"
    line: str = Field(max_length=65_536)


class EnsureOwner(_Request):
    """Make the first account, or add a key to it."""

    do: Literal["ensure-owner"] = "ensure-owner"
    email: str = Field(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")
    key: str = Field(max_length=16_384, pattern=r"^[^\r\n\x00]+$")
    label: str = Field(default="", max_length=200)


class GetPublicKeys(_Request):
    """The gateway's host key and the host CA."""

    do: Literal["public-keys"] = "public-keys"


class GetProblems(_Request):
    """What control cannot do, for `atoll doctor`."""

    do: Literal["problems"] = "problems"


class RotateIssuer(_Request):
    """New signing keys at once, since one may have leaked."""

    do: Literal["rotate-issuer"] = "rotate-issuer"


class RotateKey(_Request):
    """Sign tokens with the next key; `revoke` ends the tokens of all others."""

    do: Literal["rotate-key"] = "rotate-key"
    revoke: bool = False


AnyRequest: TypeAlias = (
    Execute | EnsureOwner | GetPublicKeys | GetProblems | RotateIssuer | RotateKey
)
Request = Annotated[AnyRequest, Field(discriminator="do")]
_REQUEST: TypeAdapter[AnyRequest] = TypeAdapter(Request)


def socket_path(run_dir: Path) -> Path:
    """In a folder of control's own, since the run directory belongs to root."""
    return run_dir / "control" / "control.sock"


class LocalDoor:
    """Serves the socket; see the module for the protocol."""

    def __init__(
        self,
        *,
        path: Path,
        language: Language,
        owners: Owners,
        keys: PublicKeys,
        issuer: Issuer,
        signing: Signing,
        changed: Callable[[], None],
        problems: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """`changed` tells the edge that `signing` has other keys."""
        self._path = path
        self._language = language
        self._owners = owners
        self._keys = keys
        self._problems = problems
        self._issuer = issuer
        self._signing = signing
        self._changed = changed
        self._allowed = frozenset({0, os.geteuid()})
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen while the body runs."""
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._accept, self._path, limit=REQUEST_LIMIT)
        os.chmod(self._path, 0o600)
        try:
            yield
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            self._path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            uid = peer.uid_of(writer)
            if uid not in self._allowed:
                _log.warning("local caller refused", uid=uid)
                return
            async with timeout(READ_S):
                line = await reader.readline()
            answer = await self._answer(line, lambda text: _send(writer, {"progress": text}))
            _send(writer, answer.frame)
            await writer.drain()
            if answer.more is not None:
                await unless(_go_on(answer.more, writer), _left(reader))
        except (OSError, ValueError) as error:  # peer gone or silent, or a line over the limit
            _log.info("local connection ended", reason=str(error))
        except asyncio.CancelledError:
            return
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, line: bytes, progress: Callable[[str], None]) -> _Answer:
        try:
            async with deadline(ANSWER_S, "the command"):
                return await self._run(_parse(line), progress)
        except AtollError as error:
            return _Answer({"error": error.to_wire()})
        except Exception as error:  # noqa: BLE001  the border: a defect becomes an answer and a log line
            _log.exception("local command failed")
            return _Answer({"error": Internal(f"{type(error).__name__}: {error}").to_wire()})

    async def _run(self, request: AnyRequest, progress: Callable[[str], None]) -> _Answer:
        match request:
            case Execute(line=line):
                caller = Caller(account=await self._owners.owner(), door=Door.LOCAL, source="local")
                reply = await self._language.execute(caller, line, progress=progress)
                if reply.run_in_vm is not None:
                    raise Invalid(
                        "the local door runs commands of the cloud, not commands in a VM",
                        hint=f"Try: ssh to {reply.run_in_vm.vm_name}",
                    )
                return _executed(reply)
            case EnsureOwner(email=email, key=key, label=label):
                account = await self._owners.ensure_owner(email=email, key_line=key, label=label)
                return _Answer({"reply": {"account": account.id, "email": account.email}})
            case GetPublicKeys():
                keys = {"gateway_key": self._keys.gateway, "host_ca": self._keys.host_ca}
                return _Answer({"reply": keys})
            case GetProblems():
                return _Answer({"reply": {"problems": list(self._problems())}})
            case RotateIssuer():
                self._issuer.rotate()
                return _Answer({"reply": self._issuer.jwks()})
            case RotateKey(revoke=revoke):
                kid = self._signing.rotate(revoke=revoke).kid
                self._changed()
                _log.info("key rotated", kid=kid, revoke=revoke)
                return _Answer({"reply": {"kid": kid}})


@dataclass(frozen=True, slots=True)
class _Answer:
    """The one answer, and what it goes on with."""

    frame: dict[str, Any]
    more: AsyncGenerator[Piece, None] | None = None


def _executed(reply: Reply) -> _Answer:
    said: dict[str, Any] = {"text": reply.text, "data": reply.data, "exit": reply.exit}
    if reply.more is not None:
        said |= {"goes_on": True, "is_redrawn": reply.is_redrawn}
    return _Answer({"reply": said}, reply.more)


async def _go_on(more: AsyncGenerator[Piece, None], writer: asyncio.StreamWriter) -> None:
    """Send pieces as they are taken; a failure is the last frame."""
    try:
        async with aclosing(more):
            async for piece in more:
                _send(writer, {"more": {"text": piece.text, "data": piece.data}})
                await writer.drain()
        _send(writer, {"end": True})
    except AtollError as error:
        _send(writer, {"error": error.to_wire()})
    await writer.drain()


async def _left(reader: asyncio.StreamReader) -> None:
    """Wait until the client closes the connection; raises OSError then."""
    while await reader.read(4096):
        pass
    raise BrokenPipeError("the client left")


def _parse(line: bytes) -> AnyRequest:
    try:
        return _REQUEST.validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"not a request: {where}: {first['msg']}") from error


def _send(writer: asyncio.StreamWriter, frame: dict[str, Any]) -> None:
    writer.write(json.dumps(frame, separators=(",", ":")).encode() + b"\n")
