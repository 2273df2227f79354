"""Terminals from end to end without a browser: forms, WebSockets, uvicorn, SSH, a real shell."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from starlette.types import Message
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from atoll.base.aio import poll
from atoll.commands.addresses import Addresses
from atoll.domain.web import HOST_HEADER
from atoll.doors.web.terminal import socket as door
from atoll.doors.web.terminal.wire import TYPED, WINDOW
from atoll.doors.web.visitor import Visitors
from contracts.run_in_vm import gone
from framework.terminals import House, Page, house


@pytest.fixture(name="house")
async def _house(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        yield made


async def shell(house: House) -> tuple[str, Page]:
    """A terminal with a page on it, at its prompt."""
    id_ = await house.opened()
    page = await house.attach(id_)
    await page.shows(r"\$ $")
    return id_, page


async def test_a_shell_in_the_size_of_the_page(house: House) -> None:
    page = await house.attach(await house.opened(), size=(100, 30))
    await page.shows(r"\$ $")
    await page.type("stty size; echo $TERM\n")
    await page.shows("30 100\r\nxterm-256color")
    await page.say("size", [132, 50])
    await page.type("stty size\n")
    await page.shows("50 132")


async def test_exit_is_told_with_its_code_and_can_be_read_later(house: House) -> None:
    id_, page = await shell(house)
    await page.type("exit 3\n")
    assert await page.closed() == (door.OVER, "over")
    said = "The shell in web ended with exit code 3."
    assert await page.told("over") == said
    again = await house.attach(id_)
    assert await again.told("over") == said
    await again.shows("exit 3")
    assert said in (await house.get("/terminal")).text


async def test_a_page_that_was_cut_off_goes_on_where_it_was(house: House) -> None:
    id_, page = await shell(house)
    await page.type("(sleep 0.1; echo la''ter) &\n")
    await page.shows(r"\$ .*\$ ")
    have = page.offset
    page.socket.transport.abort()
    await page.closed()
    again = await house.attach(id_, have=have)
    await again.shows("later")
    assert (await again.told("from"))["reset"] is False
    assert not re.search(b"sleep", again.output), "what it has is not sent again"


async def test_two_pages_of_one_terminal(house: House) -> None:
    id_, page = await shell(house)
    other = await house.attach(id_, size=(90, 20))
    await other.shows(r"\$ ")
    assert await page.told("size") == [90, 20]
    await page.type("echo bo''th\n")
    await page.shows("both")
    await other.shows("both")


async def test_ctrl_c_works_at_once_in_a_flood_that_nobody_shows(house: House) -> None:
    _, page = await shell(house)
    page.acks = False
    await page.type("yes flood\n")

    async def full() -> bool | None:
        return page.offset >= WINDOW or None

    await page.shows("flood")
    await poll(full, seconds=10, what="a window of output", every=0.01)
    assert page.offset <= WINDOW + 200, "and what was shown before"
    await page.type("\x03echo calm\n")
    page.acks = True
    await page.say("ack", page.offset)
    await page.shows(r"\^C.*\$ .*calm\r\n")
    assert page.offset < 4 * WINDOW, "what was under way, and no more"


async def test_a_large_paste_that_is_echoed_does_not_lock(house: House) -> None:
    """Each direction waits for the other: acknowledgements must not stand behind what is typed."""
    _, page = await shell(house)
    await page.type("stty -icanon -echo; cat\n")
    await page.shows("cat\r\n")
    sent, line = 0, b"x" * 98 + b"\r\n"
    for _ in range(60):
        chunk = line * 300
        while sent + len(chunk) - sum(note.get("taken", 0) for note in page.notes) > TYPED:
            await asyncio.sleep(0.005)
        await page.socket.send(chunk)
        sent += len(chunk)
    await page.shows(r"(x{98}\r\n\r\n){18000}", seconds=30)


async def test_the_prompt_is_the_lobbys(house: House) -> None:
    id_ = await house.opened(kind="prompt")
    page = await house.attach(id_)
    await page.shows("atoll> ")
    await page.type("who\t")
    await page.shows("whoami ")
    await page.type("\r")
    await page.shows("ann@example.com")
    await page.type("nonsense\r")
    await page.shows("atoll: ")
    await page.type("doc all\r")
    await page.shows("space next, b back")
    await page.type("q")
    await page.shows(r"\x1b\[\?1049l.*atoll> ")
    await page.type("ssh web\r")
    await page.shows(r"ssh web.*\$ ")
    await page.say("size", [70, 20])
    await page.type("stty size; exit 4\n")
    await page.shows(r"20 70.*atoll> ")
    await page.type("exit\r")
    assert await page.told("over") == "You have left the prompt."


async def test_a_prompt_with_history_and_a_command_that_is_interrupted(house: House) -> None:
    page = await house.attach(await house.opened(kind="prompt"))
    await page.shows("atoll> ")
    await page.type("whoami\r")
    await page.shows("ann@example.com")
    await page.type("exit\r")
    await page.closed()
    again = await house.attach(await house.opened(kind="prompt"))
    await again.shows("atoll> ")
    await again.type("\x1b[A\x1b[A\r")
    await again.shows("whoami.*ann@example.com")
    await again.type("ssh web 'echo o''n; sleep 600'\r")
    await again.shows("on\r\n")
    await again.type("\x03")
    await again.shows(r"\^C.*atoll> ")


async def test_what_the_prompt_does_is_written_down_as_this_browsers(house: House) -> None:
    page = await house.attach(await house.opened(kind="prompt"))
    await page.shows("atoll> ")
    await page.type("comment web hello\r")
    await page.shows("hello.*atoll> ")
    session = await house.sessions.session(house.cookies["ann"])
    assert session is not None
    said = (await house.cloud.data("events web -n 1"))["events"][0]
    assert (said["event"], said["door"], said["by"]) == (
        "comment",
        "web",
        f"web:{session.key[:12]}",
    )


async def test_a_vm_that_is_paused_ends_its_terminal_with_a_word(house: House) -> None:
    _, page = await shell(house)
    await house.cloud.run("pause web")
    assert await page.told("over") == "The VM was paused or stopped."
    refused = await house.post("/terminal", kind="vm", vm="web")
    assert refused.status_code == 409
    assert "resume web" in refused.text


async def test_signing_out_ends_it(house: House) -> None:
    _, page = await shell(house)
    session = house.cookies["ann"]
    await house.sessions.revoke(session)
    code, _ = await page.closed()
    assert code in (door.OVER, door.SIGNED_OUT)
    again = await house.attach("x" * 22)
    assert await again.closed() == (door.SIGNED_OUT, "You have signed out.")
    assert (await house.get("/terminal")).headers["location"] == "/login"


async def test_who_signs_out_before_hello_is_not_attached(house: House) -> None:
    id_, _ = await shell(house)
    stolen = await house.sign_in("ann")
    sent: list[Message] = []
    frames: list[Message] = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": HELLO},
        {"type": "websocket.disconnect", "code": 1001},
    ]

    async def receive() -> Message:
        if len(frames) == 2:  # asked for hello: who this is was looked at before
            await house.sessions.revoke(stolen)
        return frames.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in house.headers().items()]
    scope = {"type": "websocket", "headers": headers, "path_params": {"id": id_}}
    sockets = door.Sockets(
        names=Addresses(house.cloud.cloud.config).names,
        visitors=Visitors(sessions=house.sessions, ssh="ssh"),
        terminals=house.terminals,
    )
    await sockets.serve(WebSocket(scope, receive, send))
    assert [message.get("code") for message in sent] == [None, door.SIGNED_OUT]


async def test_who_signs_out_while_a_form_is_on_its_way_opens_nothing(house: House) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"kind="
        await house.sessions.revoke(house.cookies["ann"])
        yield b"prompt"

    kind = {"content-type": "application/x-www-form-urlencoded"}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{house.port}") as client:
        answer = await client.post("/terminal", content=body(), headers=house.headers() | kind)
    assert answer.headers["location"] == "/login"
    assert house.terminals.of(house.cloud.ann.account) == []


async def test_a_terminal_is_its_accounts(house: House) -> None:
    id_, _ = await shell(house)
    await house.sign_in("bob")
    page = await house.attach(id_, "bob")
    assert (await page.closed())[0] == door.GONE
    assert (await house.get(f"/terminal/{id_}", "bob")).status_code == 404
    assert (await house.post(f"/terminal/{id_}/close", "bob")).status_code == 404
    assert (await house.post("/terminal", "bob", kind="vm", vm="web")).status_code == 404
    assert id_ not in (await house.get("/terminal", "bob")).text
    await house.sign_in("ann")
    other_browser = await house.attach(id_)
    await other_browser.shows(r"\$ ")


async def test_no_page_of_another_site_gets_a_socket(house: House) -> None:
    id_ = await house.opened()
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "https://web.atoll.localhost:8443"},
        {"origin": "http://atoll.localhost:8443"},
        {"origin": "https://atoll.localhost"},
        {"origin": "null"},
        {HOST_HEADER: "web.atoll.localhost"},
        {HOST_HEADER: "evil.example"},
    ):
        with pytest.raises(InvalidStatus) as refused:
            await house.socket(id_, **headers)
        assert refused.value.response.status_code == 403, headers


async def test_no_other_path_is_a_socket(house: House) -> None:
    for path in ("/", "/exec", "/terminal/socket", "/terminal/a/b/socket"):
        with pytest.raises(InvalidStatus) as refused:
            await house.socket("x" * 22, path=path)
        assert refused.value.response.status_code == 403, path


HELLO = json.dumps({"hello": {"have": None, "size": [80, 24]}})


HOSTILE: list[list[str | bytes]] = [
    [b"typed before hello"],
    ['{"ack": 0}'],
    ["no json"],
    [HELLO, HELLO],
    [HELLO, '{"ack": 4000000000}'],
    [HELLO, '{"size": [0, 0]}'],
    [HELLO, "x" * 5000],
    [HELLO, *([b"x" * 60_000] * 40)],
]


async def test_what_no_page_of_ours_says_ends_the_connection_alone(house: House) -> None:
    id_, page = await shell(house)
    await page.type("stty -icanon -echo; sleep 600\n")  # takes no input
    for frames in HOSTILE:
        async with house.socket(id_) as hostile:
            with suppress(ConnectionClosed):
                for frame in frames:
                    await hostile.send(frame)
            assert await Page(hostile).ends() == door.WRONG, frames[-1][:40]
    assert page.code is None
    assert not house.terminals.find(house.cloud.ann.account, id_).is_over


async def test_a_frame_that_is_too_large_is_not_read(house: House) -> None:
    id_, _ = await shell(house)
    async with house.socket(id_) as hostile:
        await hostile.send(HELLO)
        await hostile.send(b"x" * 70_000)
        assert await Page(hostile).ends() == 1009


async def test_forms_of_other_sites_and_odd_ones_open_nothing(house: House) -> None:
    for form in ({}, {"kind": "root"}, {"kind": "vm"}, {"kind": "vm", "vm": "web; rm web"}):
        refused = await house.post("/terminal", **form)
        assert refused.status_code == 400, form
    assert (await house.post("/terminal", kind="vm", vm="x" * 5000)).status_code == 400
    assert (await house.post("/terminal", kind="vm", vm="gone")).status_code == 404
    assert house.terminals.of(house.cloud.ann.account) == []


async def test_closing_ends_the_shell(house: House) -> None:
    id_, page = await shell(house)
    await page.type("echo pid $$\n")
    pid = int((await page.shows(r"pid (\d+)\r\n")).group(1))
    closed = await house.post(f"/terminal/{id_}/close")
    assert (closed.status_code, closed.headers["location"]) == (303, "/terminal")
    assert await page.told("over") == "The terminal was closed."
    await gone(pid)
    assert (await house.get(f"/terminal/{id_}")).status_code == 404


async def test_the_page_allows_its_own_style_elements_and_no_others(house: House) -> None:
    id_ = await house.opened()
    first, second = [await house.get(f"/terminal/{id_}") for _ in range(2)]
    policies = [page.headers["content-security-policy"] for page in (first, second)]
    assert policies[0] != policies[1]
    for page, policy in zip((first, second), policies, strict=True):
        nonce = re.search(r"style-src 'self' 'nonce-([\w-]{22})';", policy)
        assert nonce
        assert f'data-nonce="{nonce[1]}"' in page.text
        assert "unsafe" not in policy
    listing = await house.get("/terminal")
    assert "nonce" not in listing.headers["content-security-policy"]
