"""Device state: what QEMU saves besides memory, made loadable into a new process.

`xen-save-devices-state` writes every device in 2 ms without touching memory (it needs no Xen), but
leaves out the header that a loading QEMU expects and the ROM blocks without which the guest cannot
reboot. Both depend on the machine's shape alone, so they are taken once from a machine of that shape
that never ran (its "prologue") and put in front.

The prologue ends where the first full section of the saved state, `timer`, starts.
"""

from __future__ import annotations

from atoll.base.errors import Internal

_MAGIC = b"QEVM"
_SECTION_FULL = 4  # QEMU migration/savevm.c: QEMU_VM_SECTION_FULL


def splice(prologue: bytes, devices: bytes) -> bytes:
    """A stream for `migrate-incoming` (with x-ignore-shared) from the two halves.

    Raises Internal when the halves are not of one shape; such a state must never be loaded.
    """
    mark = first_section(devices)
    at = prologue.find(mark)
    if at <= 0 or prologue.find(mark, at + 1) >= 0:
        raise Internal("device state does not fit this machine's shape")
    return prologue[:at] + devices[8:]


def first_section(devices: bytes) -> bytes:
    """The header of the first section: type, id, name, instance and version."""
    if devices[:4] != _MAGIC or len(devices) < 32 or devices[8] != _SECTION_FULL:
        raise Internal("QEMU's device state does not begin as expected")
    name_length = devices[13]
    return devices[8 : 14 + name_length + 8]
