"""Shared by all rings: quiet logs, and no test changes the machine's own Atoll by accident."""

from __future__ import annotations

import os
import signal

import pytest

from atoll.base import log


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    # Whatever a shell starts with `&` ignores these, and so would every shell that a test starts.
    for number in (signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    log.setup(json=False, level="warning")


@pytest.fixture(autouse=True)
def _no_default_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that forgets to pass a Config must not read /etc/atoll."""
    monkeypatch.setenv("ATOLL_CONFIG", os.environ.get("ATOLL_TEST_CONFIG", "/nonexistent.toml"))
