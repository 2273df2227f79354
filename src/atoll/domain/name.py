"""Names of VMs, tags and keys: what is allowed, and two random words when none is given."""

from __future__ import annotations

import re
import secrets

from atoll.base.errors import Invalid

_VM = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,50}[a-z0-9])?")
_TAG = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
# Names that mean something else in a URL, an ssh line or a log.
RESERVED = frozenset(
    [
        "admin",
        "api",
        "atoll",
        "auth",
        "edge",
        "engine",
        "help",
        "int",
        "login",
        "lobby",
        "localhost",
        "metadata",
        "root",
        "share",
        "www",
    ]
)
_FIRST = [
    "amber",
    "azure",
    "brisk",
    "calm",
    "cedar",
    "clear",
    "coral",
    "dune",
    "early",
    "ember",
    "fern",
    "fresh",
    "gentle",
    "golden",
    "granite",
    "green",
    "hazel",
    "indigo",
    "ivory",
    "jade",
    "keen",
    "lunar",
    "maple",
    "mellow",
    "misty",
    "noble",
    "olive",
    "opal",
    "pearl",
    "quiet",
    "rapid",
    "river",
    "ruby",
    "sage",
    "sandy",
    "silver",
    "solar",
    "sunny",
    "swift",
    "tidal",
    "topaz",
    "velvet",
    "violet",
    "vivid",
    "warm",
    "wild",
]
_SECOND = [
    "albatross",
    "anchor",
    "bay",
    "beacon",
    "breeze",
    "buoy",
    "cape",
    "cliff",
    "cove",
    "crab",
    "current",
    "delta",
    "dolphin",
    "egret",
    "ferry",
    "finch",
    "gull",
    "harbor",
    "heron",
    "island",
    "kelp",
    "lagoon",
    "lantern",
    "marlin",
    "meadow",
    "mole",
    "osprey",
    "otter",
    "palm",
    "pebble",
    "pelican",
    "plover",
    "reef",
    "ridge",
    "sail",
    "seal",
    "shell",
    "shoal",
    "shore",
    "skiff",
    "spray",
    "squid",
    "stork",
    "surf",
    "tern",
    "tide",
    "turtle",
    "wave",
    "whale",
]


def check_vm(name: str) -> str:
    """`name` if a VM may be called so, else Invalid.

    1 to 52 of a-z, 0-9 and `-`, so that `<port>-<name>` still fits one DNS label; it may not end in
    `-<digits>` (kept for generated names), start with `<digits>-` (ports) or be reserved.
    """
    hint = "Try a name like web or web-next: a-z, 0-9 and -, at most 52"
    if not _VM.fullmatch(name):
        raise Invalid(f"{name[:60]!r} cannot name a VM", hint=hint)
    if name in RESERVED:
        raise Invalid(f"{name!r} is reserved", hint=hint)
    if re.match(r"[0-9]+-", name) or re.search(r"-[0-9]+$", name):
        raise Invalid(f"{name!r}: a number at either end is kept for ports", hint=hint)
    return name


def check_tag(tag: str) -> str:
    """`tag` if it is one (`[a-z][a-z0-9_-]*`, at most 32), else Invalid."""
    if not _TAG.fullmatch(tag):
        raise Invalid(f"{tag[:40]!r} is not a tag", hint="Try: a-z first, then a-z, 0-9, _ or -")
    return tag


def check_user(user: str) -> str:
    """`user` if a VM's user may be called so, as Debian's useradd takes it, else Invalid."""
    if not _USER.fullmatch(user):
        raise Invalid(f"{user[:40]!r} is not a user name", hint="Try: a-z or _ first, at most 32")
    return user


def random_vm() -> str:
    """Two words, such as `maple-tern`; about 2,300 of them, so check that it is free."""
    return f"{secrets.choice(_FIRST)}-{secrets.choice(_SECOND)}"
