"""Two engines of one instance would end each other's VMs: the second does not start."""

from __future__ import annotations

import os

import pytest

from atoll.base import ids
from atoll.base.errors import Conflict
from atoll.engine import sole


def test_the_second_is_refused_and_told_who_the_first_is() -> None:
    instance = ids.new("op")
    with sole.claim(instance):
        with pytest.raises(Conflict, match=rf"another engine .*\(process {os.getpid()}\)"):
            sole.claim(instance)
        sole.claim(f"{instance}-other").close()
    sole.claim(instance).close()
