"""Records of what was done, chained by hashes so that none can be changed or taken out unseen. Pure.

A record's hash covers every field of it and the hash of the record before. The encoding is that of
docs/audit.md, which a program in any language can follow: change neither without the other, and
not without a new VERSION.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

from atoll.base.text import ELLIPSIS, escape
from atoll.domain.operation import Json

VERSION = "atoll-audit-1"
GENESIS = "0" * 64  # what the first record follows
TEXT_CHARACTERS = 254  # of an e-mail address, a name, a credential, an address
WHAT_CHARACTERS = 1000
DETAIL_CHARACTERS = 2000
UNKNOWN = "unknown"  # who somebody is that nobody knows


class Act(StrEnum):
    """What kind of thing was done; a closed set."""

    COMMAND = "command"
    SIGN_IN = "sign-in"
    SIGN_OUT = "sign-out"
    GRANT = "grant"  # who may do what was changed: shares, keys, tokens
    SECRET = "secret"  # noqa: S105  a secret was used
    ROOT = "root"  # a way into a VM was opened
    WEB = "web"  # a browser was let in to a VM's web address


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is to be recorded. Texts are as `fit` leaves them; `detail` is JSON, kept as text.

    `account` is who acted, `owner` whose VM it was; `vm` what the VM was called then.
    """

    at_us: int  # microseconds since the epoch: whole numbers are hashed alike in every language
    account: str | None
    who: str
    credential: str
    door: str
    source: str
    act: str
    what: str
    vm: str | None = None
    vm_id: str | None = None
    owner: str | None = None
    result: str = "ok"
    detail: str = "{}"


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ends."""

    seq: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Entry):
    """A link of the chain: the first has `seq` 1, every other one more than the one in `prev`."""

    seq: int
    prev: str
    hash: str

    @property
    def head(self) -> Head:
        """The end of a chain whose last record this is."""
        return Head(self.seq, self.hash)


ENTRY_FIELDS = tuple(field.name for field in fields(Entry))
HASHED = ("seq", *ENTRY_FIELDS, "prev")  # in this order


class Damaged(Exception):
    """A chain is not as it was written, from this record on."""

    def __init__(self, seq: int, why: str) -> None:
        super().__init__(f"record {seq}: {why}")
        self.seq = seq
        self.why = why


def linked(entry: Entry, head: Head) -> Record:
    """The record of `entry` that follows `head`."""
    values = {name: getattr(entry, name) for name in ENTRY_FIELDS}
    values |= {"seq": head.seq + 1, "prev": head.hash}
    return Record(**values, hash=digest(values))


def digest(values: Mapping[str, object]) -> str:
    """The hash over the fields HASHED: each as `<bytes>:<text>,` or, where there is none, `-,`."""
    parts = [_part(VERSION), *(_part(values[name]) for name in HASHED)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _part(value: object) -> bytes:
    if value is None:
        return b"-,"
    data = str(value).encode()
    return b"%d:%b," % (len(data), data)


class Verifier:
    """Takes the records of a chain in order, one after the other, and says where it is damaged.

    It sees whatever was changed, taken out or put in before the last record. That the last ones were
    cut off it sees only by `anchor`: a hash that was read, and kept elsewhere, while they were there.
    """

    def __init__(self, *, anchor: str = "") -> None:
        self.count = 0
        self.first = 0
        self.head = Head()
        self.anchor_seq: int | None = None
        self._anchor = anchor

    def take(self, record: Record) -> None:
        """The next record. Raises Damaged."""
        if record.seq != self.head.seq + 1:
            raise Damaged(self.head.seq + 1, f"it is missing; record {record.seq} comes next")
        if record.prev != self.head.hash:
            raise Damaged(record.seq, "it does not follow the record before it")
        if record.hash != digest({name: getattr(record, name) for name in HASHED}):
            raise Damaged(record.seq, "it is not what its hash was made of")
        self.count += 1
        self.first = self.first or record.seq
        self.head = record.head
        if record.hash == self._anchor:
            self.anchor_seq = record.seq


def fit(text: str, most: int = TEXT_CHARACTERS) -> str:
    """Anybody's text as one line that no terminal acts on, of at most so many characters."""
    spelled = escape(text[:most]).replace("\n", "\\n").replace("\t", "\\t")
    return spelled if len(text) <= most and len(spelled) <= most else spelled[: most - 1] + ELLIPSIS


def detailed(detail: Mapping[str, Json]) -> str:
    """A record's detail as text: JSON in ASCII, keys sorted; too much of it is left out."""
    text = json.dumps(detail, sort_keys=True, separators=(",", ":"))
    return text if len(text) <= DETAIL_CHARACTERS else '{"left_out":true}'
