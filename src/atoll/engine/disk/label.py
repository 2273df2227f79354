"""What a layer's header says about it beyond qcow2: whose it is, which one, and why it was begun.

The text is JSON in a header extension of our own, which QEMU carries along when it rewrites a header.
"""

from __future__ import annotations

import json
import re

from atoll.base.errors import Invalid
from atoll.domain.layers import Kind, Layer, LayerId, base_id, layer_id
from atoll.engine.disk.qcow2 import Header

_NAME = re.compile(r"([a-z]{1,5}-[0-9a-z]{1,12})-[0-9]{4,6}")
_BASE_PREFIX = "../base/"
_SUFFIX = ".qcow2"


def encode(layer: Layer) -> bytes:
    """The label of a layer; parent and size are in the header proper."""
    facts = {
        "vm": layer.vm,
        "seq": layer.seq,
        "kind": layer.kind.value,
        "owner": layer.owner,
        "created": layer.created,
    }
    return json.dumps(facts, separators=(",", ":")).encode()


def decode(header: Header) -> Layer:
    """The layer a header belongs to. Raises Invalid for a file that Atoll did not write."""
    if header.backing is None or header.backing_format != "qcow2":
        raise Invalid("it stands on no qcow2 file")
    try:
        facts = json.loads(header.label)
        vm, seq = str(facts["vm"]), int(facts["seq"])
        return Layer(
            id=layer_id(vm, seq),
            parent=_parent(header.backing),
            kind=Kind(facts["kind"]),
            size_bytes=header.size_bytes,
            vm=vm,
            seq=seq,
            owner=str(facts["owner"]),
            created=float(facts["created"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid(f"its label is damaged: {error}") from error


def vm_of(stem: str) -> str:
    """The VM whose layer has this file name without suffix; empty for another file."""
    match = _NAME.fullmatch(stem)
    return match[1] if match else ""


def _parent(backing: str) -> LayerId:
    name = backing.removeprefix(_BASE_PREFIX).removesuffix(_SUFFIX)
    return base_id(name) if backing.startswith(_BASE_PREFIX) else LayerId(name)
