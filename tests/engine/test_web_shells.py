"""A page's shell through the gateway's own way in: OpenSSH's sshd as the VM, certificates and all."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Unavailable
from atoll.domain.account import Caller, Door
from atoll.doors.ssh.shells import Shells, VmShell
from contracts.run_in_vm import gone
from framework.gateway import ANN, Ground, ground


class Window:
    """Where a shell's output goes."""

    def __init__(self) -> None:
        self.output = b""
        self.count = 0

    def show(self, data: bytes) -> None:
        self.count += len(data)
        self.output = (self.output + data)[-20_000:]

    async def shows(self, pattern: bytes) -> re.Match[bytes]:
        async def check() -> re.Match[bytes] | None:
            return re.search(pattern, self.output, re.DOTALL)

        try:
            return await poll(check, seconds=20, what=repr(pattern), every=0.01)
        except Unavailable as error:
            raise AssertionError(f"not {pattern!r}: {self.output[-1000:]!r}") from error


@pytest.fixture(name="here")
async def _here(tmp_path: Path) -> AsyncIterator[Ground]:
    async with ground(tmp_path) as made:
        yield made


async def started(here: Ground, window: Window, size: tuple[int, int] = (80, 24)) -> VmShell:
    shells = Shells(opener=here.door, language=here.town, history=here.town)
    shell = await shells.in_vm(here.town.routes[ANN.id, "web"], size, window.show)
    await shell.write(b"unset PROMPT_COMMAND; PS1='% '\n")
    await window.shows(rb"\r\n[^\n]*% $")
    return shell


async def test_a_shell_of_this_size_that_ends_with_its_code(here: Ground) -> None:
    window = Window()
    async with TaskGroup() as group:
        shell = await started(here, window, (101, 33))
        how = group.create_task(shell.run())
        await shell.write(b"stty size; echo $TERM; tty\n")
        await window.shows(rb"33 101\r\nxterm-256color\r\n/dev/pts/")
        shell.resize(90, 20)
        await shell.write(b"stty size\n")
        await window.shows(rb"20 90\r\n")
        await shell.write(b"exit 7\n")
    assert how.result() == "The shell in web ended with exit code 7."


async def test_a_flood_waits_for_who_reads_and_ctrl_c_ends_it(here: Ground) -> None:
    window = Window()
    shell = await started(here, window)
    shell.pause()
    await shell.write(b"yes tide\n")
    before = window.count
    shell.resume()
    await window.shows(rb"tide\r\ntide\r\n")
    shell.pause()
    seen = window.count
    assert seen > before
    await shell.write(b"\x03")
    await shell.write(b"echo ca''lm\n")
    shell.resume()
    await window.shows(rb"\^C.*% .*calm\r\n")
    assert window.count - seen < 2 << 20, "what the window, sshd and the terminal held"
    shell.hang_up()
    await shell.run()


async def test_hanging_up_ends_what_runs(here: Ground) -> None:
    window = Window()
    shell = await started(here, window)
    await shell.write(b"echo pid $$; sleep 600\n")
    pid = int((await window.shows(rb"pid (\d+)\r\n"))[1])
    shell.hang_up()
    assert await shell.run() == "The connection to web ended."
    await gone(pid)


async def test_a_vm_that_is_paused_gives_the_prompt_back(here: Ground) -> None:
    """No goodbye comes from it: whoever waits in `ssh web` would wait for ever."""
    window = Window()
    caller = Caller(account=ANN, door=Door.WEB)
    shells = Shells(opener=here.door, language=here.town, history=here.town)
    prompt = await shells.prompt(caller, (80, 24), window.show)
    async with TaskGroup() as group:
        how = group.create_task(prompt.run())
        await window.shows(rb"atoll> ")
        await prompt.write(b"ssh web\r")
        await prompt.write(b"echo ins''ide\n")
        await window.shows(rb"inside\r\n")
        here.door.end_vm("vm-other")
        await prompt.write(b"echo st''ill\n")
        await window.shows(rb"still\r\n")
        here.door.end_vm("vm-web")
        await window.shows(rb"The connection to web ended\.\r\n.*atoll> ")
        await prompt.write(b"exit\r")
    assert how.result() == "You have left the prompt."


async def test_a_vm_that_does_not_answer_is_named(here: Ground) -> None:
    route = here.town.routes[ANN.id, "web"]
    shells = Shells(opener=here.door, language=here.town, history=here.town)
    away = replace(route, address="127.0.0.99")
    with pytest.raises(Unavailable, match="VM 'web' does not let us in"):
        await shells.in_vm(away, (80, 24), Window().show)
