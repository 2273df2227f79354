"""Who acts and what they may do: plain values that every door and service shares."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from atoll.domain.sharing import Opening, may_open


class Door(StrEnum):
    """How a command came in; shown in the journal and in events."""

    SSH = "ssh"
    EXEC = "exec"
    WEB = "web"
    LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A person (or a program of theirs) that owns VMs."""

    id: str  # `acct-…`; the engine keeps for whom a VM was made, and decides nothing by it
    email: str
    is_admin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a key or token is limited to; the default is everything its account may do.

    `cmds` holds verbs as written (`ls`, `share show`, `ssh web`); a parent does not imply its
    children. `vm` is the one VM it may touch; with `tag` it is those that have this tag. `user` is
    whom it logs in as there, if not as the VM's own login user.
    """

    cmds: frozenset[str] | None = None
    vm: str | None = None
    tag: str | None = None
    user: str | None = None

    @property
    def is_whole(self) -> bool:
        """True when it reaches every VM of the account, and the account itself."""
        return self.vm is None and self.tag is None

    def covers(self, vm: str, tags: Collection[str]) -> bool:
        """True for a VM, by id and tags, that is within it."""
        return self.vm in (None, vm) and (self.tag is None or self.tag in tags)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One authenticated caller of one command."""

    account: Account
    door: Door
    key_fingerprint: str | None = None  # of the SSH key used, `SHA256:…`
    source: str = ""  # the client's address
    scope: Scope = field(default_factory=Scope)
    token: str = ""  # what the API token used is called, `api:…`; empty for one signed by a key
    good_for_s: float | None = field(default=None, compare=False)  # from when it was let in

    @property
    def credential(self) -> str:
        """What let it in, and what its calls are counted by."""
        return self.key_fingerprint or self.token


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a running VM's sshd answers, as whom to log in, and for whom it was found."""

    vm_id: str
    vm_name: str
    address: str
    login_user: str
    host_ca: str  # public key line that must have signed the VM's host key
    caller: Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the edge must know of one VM."""

    vm_name: str
    address: str | None  # None: not running now
    port: int  # the default web port inside
    openings: frozenset[Opening]  # who may open what of it; its owner's is one

    def may_be_opened(
        self, account: str | None, *, port: int | None, path: str, now: float
    ) -> bool:
        """As `may_open`; a `port` of None is the VM's own."""
        return may_open(self.openings, account, port=port or self.port, path=path, now=now)
