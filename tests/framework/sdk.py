"""The reference product's own Python client, in both its kinds, called alike and kept count of.

Nothing of it is changed: it gets our address, our authority and a token.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl
import types
import typing
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import exedev
import httpx

from framework.atoll import Atoll

Kind = Literal["sync", "async"]
# Groups of methods hang on these as attributes.
ROOTS = (exedev.Client, exedev.VM, exedev.Process)


@dataclass
class Sdk:
    """One client, and which of its methods were called."""

    client: Any
    kind: Kind
    used: set[str] = field(default_factory=set)

    async def do(self, thing: object, method: str, *args: Any, **options: Any) -> Any:
        """Call a method, in a thread if it blocks. `method` may be in a group: `share.port`."""
        self.used.add(f"{plain_name(type(thing))}.{method}")
        *groups, name = method.split(".")
        for group in groups:
            thing = getattr(thing, group)
        call = getattr(thing, name)
        if self.kind == "async":
            result = call(*args, **options)
            return await result if inspect.isawaitable(result) else result
        return await asyncio.to_thread(call, *args, **options)

    @asynccontextmanager
    async def within(self, made: Any) -> AsyncIterator[Any]:
        """The body of `with` or `async with` on a VM, a process or a client."""
        if self.kind == "async":
            async with made:
                yield made
        else:
            await asyncio.to_thread(made.__enter__)
            try:
                yield made
            finally:
                await asyncio.to_thread(made.__exit__, None, None, None)


@asynccontextmanager
async def sdk(atoll: Atoll, kind: Kind, token: str) -> AsyncIterator[Sdk]:
    """A client of the given kind for a test cloud; only base URL and trust are ours."""
    https = atoll.config.https
    base = f"https://{https.domain}:{https.port}"
    trust = ssl.create_default_context(cafile=atoll.config.control_state / "keys" / "ca.pem")
    if kind == "sync":
        with httpx.Client(verify=trust, timeout=60) as http:
            yield Sdk(exedev.Client(token, base_url=base, http_client=http), kind)
    else:
        async with httpx.AsyncClient(verify=trust, timeout=60) as later:
            yield Sdk(exedev.AsyncClient(token, base_url=base, http_client=later), kind)


def plain_name(of: type) -> str:
    """`VM` for both kinds of VM."""
    return of.__name__.removeprefix("Async")


def methods(client: Any, vm: Any, process: type) -> Iterator[tuple[str, str]]:
    """Every public method: the class it starts from, and its name with its groups."""
    for thing in (client, vm):
        for name in _below(thing):
            yield plain_name(type(thing)), name
    for name, member in vars(process).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            yield plain_name(process), name


def _below(thing: Any) -> Iterator[str]:
    for name, _member in inspect.getmembers(type(thing), inspect.isfunction):
        if name == "__call__":
            yield ""
        elif not name.startswith("_"):
            yield name
    for name, group in vars(thing).items():
        if not name.startswith("_") and type(group).__module__.startswith("exedev"):
            for below in _below(group):
                yield f"{name}.{below}".rstrip(".")


def arguments_for(call: Any) -> list[Any]:
    """Something of the right type for each argument that has no default."""
    hints = typing.get_type_hints(_method(call))
    return [
        _example(hints[name])
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.default is parameter.empty and parameter.kind in _BY_PLACE
    ] + [
        _example(hints[name])
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.kind is parameter.VAR_POSITIONAL
    ]


def _method(call: Any) -> Any:
    """A bound method; a group that can itself be called has one."""
    return call if inspect.ismethod(call) else call.__call__


def options_for(call: Any) -> dict[str, Any]:
    """The same for arguments given by name."""
    hints = typing.get_type_hints(_method(call))
    return {
        name: _example(hints[name])
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
    }


_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _example(hint: Any) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return inner[0]
    if origin in (typing.Union, types.UnionType):
        return _example(inner[0])
    if hint in (bool, int):
        return hint(1)
    return "x"
