"""The lobby as people use it: OpenSSH's client on a terminal, the whole language, a fake engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import asyncssh
import pytest

from atoll.base.aio import poll
from atoll.commands.qr import drawn
from atoll.domain.vm import VmRecord
from atoll.doors.ssh.pages import rows_of
from atoll.rpc.messages import Create, Message
from atoll.store import vms
from fakes.engine import FakeEngine
from framework.lobby import Lobby, lobby
from framework.screen import Screen

PROMPT = "atoll>"
UP, LEFT, HOME = "\x1b[A", "\x1b[D", "\x1b[H"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Lobby]:
    async with lobby(tmp_path) as made:
        yield made


def pasted(text: str) -> str:
    """As a terminal sends what is pasted."""
    return f"\x1b[200~{text}\x1b[201~"


# --- a line


async def test_a_line_is_edited(here: Lobby) -> None:
    with here.screen() as screen:
        await screen.shows("Type help for the commands, exit to leave.", PROMPT)
        screen.type(f"amix{LEFT * 4}who{HOME}\x1b[1;5C\x17whoam\x0b")
        await screen.shows(f"{PROMPT} whoam")
        screen.type("\x08\x19\x01\x04w\x05\r")
        await screen.shows("atoll: no command 'whoawhoamix'", "Did you mean whoami\\?", PROMPT)


async def test_history_and_search(here: Lobby) -> None:
    with here.screen() as screen:
        await screen.shows(".*", PROMPT)
        for line in ("comment web 日本", "whoami", "ls"):
            screen.type(f"{line}\r")
            await screen.shows(".*", PROMPT)
        screen.type(f"{UP}{UP}")
        await screen.shows(f"{PROMPT} whoami")
        screen.type("\x0e\x0e")
        await screen.shows(PROMPT)
        screen.type("\x12om")
        await screen.shows(r"\(search\) om: comment web 日本")
        screen.type("x")  # nothing has that: the bell, and what was found stays
        await screen.shows(r"\(search\) om: comment web 日本")
        screen.type("\x05!")
        await screen.shows(f"{PROMPT} comment web 日本!")
        screen.type("\x03")
        await screen.shows(f"{PROMPT} comment web 日本!\\^C", PROMPT)


async def test_history_outlives_the_session_without_secrets(here: Lobby) -> None:
    with here.screen() as screen:
        await screen.shows(".*", PROMPT)
        for line in ("ls one", "ssh-key add 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDNsQlPYC x'"):
            screen.type(f"{line}\r")
            await screen.shows("(Try|atoll): .*|.* Try: ls", PROMPT)
        screen.type(f"{UP}")
        await screen.shows(f"{PROMPT} ssh-key add .*")
        screen.type("\x15\x04")
        assert await screen.ended() == 2
    with here.screen() as screen:
        await screen.shows(".*", PROMPT)
        screen.type(f"{UP}")
        await screen.shows(f"{PROMPT} ls one")
        screen.type(f"{UP}")
        await screen.until(rb"\x07")  # the bell: that was the first


async def test_a_paste_waits_for_enter_and_runs_line_by_line(here: Lobby) -> None:
    with here.screen() as screen:
        await screen.shows(".*", PROMPT)
        screen.type(pasted("new --name web\rcomment web 'two\rlines'\rls nothing\r"))
        await screen.shows(f"{PROMPT} new --name web⏎comment web 'two⏎lines'⏎ls nothing")
        assert not any(isinstance(asked, Create) for asked in here.control.engine.asked)
        screen.type("\r")
        await screen.shows(
            "https://web.atoll.localhost:8443/",
            "atoll: a comment is one line without control characters",
            'VM "nothing" not found. Try: ls',
            PROMPT,
        )
        screen.type(f"{UP}{UP}{UP}")
        await screen.shows(f"{PROMPT} new --name web")


async def test_control_characters_that_are_pasted_do_nothing(here: Lobby) -> None:
    with here.screen() as screen:
        await screen.shows(".*", PROMPT)
        screen.type(pasted("who\x1b]0;owned\x07\x1b[2J\x9b\x03ami"))
        await screen.shows(f"{PROMPT} who\\]0;owned\\[2Jami")
        assert b"owned\x07" not in screen.received
        assert screen.model.title == ""


async def test_a_long_wide_line_on_a_narrow_terminal_that_is_resized(here: Lobby) -> None:
    with here.screen(columns=20, rows=8) as screen:
        await screen.shows(".*", PROMPT)
        screen.type("comment web 日本語日本語🐢🐢")
        await screen.shows(f"{PROMPT} comment web", "日本語日本語🐢🐢")
        assert screen.cursor[1] == 16
        screen.drag(columns=40, rows=8)
        await screen.shows(f"{PROMPT} comment web 日本語日本語🐢🐢")
        screen.drag(columns=14, rows=8)
        screen.type("\x01\x1bd\x04")
        await screen.shows(f"{PROMPT} web 日", "本語日本語🐢🐢")
        screen.type("\x03")
        await screen.shows("\\^C", PROMPT)


async def test_a_terminal_without_a_movable_cursor(here: Lobby) -> None:
    with here.screen(columns=70, term="dumb") as screen:
        await screen.shows(".*", PROMPT)
        screen.type("whoamx\x08i")
        await screen.shows(f"{PROMPT} whoami")
        screen.type("\r")
        await screen.shows("(desk|laptop) .*", PROMPT)
        assert b"\x1b" not in screen.received


async def test_end_of_input_leaves_on_an_empty_line_only(here: Lobby) -> None:
    with here.screen() as screen:
        await screen.shows(".*", PROMPT)
        screen.type("a\x04")
        await screen.shows(f"{PROMPT} a")
        screen.type("\x7f\x04")
        assert await screen.ended() == 0


# --- what can come


async def test_tab_finishes_and_the_second_lists_in_columns(here: Lobby) -> None:
    for number in range(9):
        await here.control.run(f"new --name web-{number}x")
    with here.screen(columns=30, rows=20) as screen:
        await screen.shows(".*", PROMPT)
        screen.type("sha\tsh\t")
        await screen.shows(f"{PROMPT} share show")
        assert screen.cursor[1] == len("atoll> share show ")
        screen.type("w\t")
        await screen.shows(f"{PROMPT} share show web-")
        screen.type("\t")
        await screen.shows(
            f"{PROMPT} share show web-",
            "web-0x  web-3x  web-6x",
            "web-1x  web-4x  web-7x",
            "web-2x  web-5x  web-8x",
            f"{PROMPT} share show web-",
        )
        screen.type("\x15rm 'web-0\t")
        await screen.shows(f"{PROMPT} rm 'web-0x'")
        screen.type("\x15new x\x01\x1bf --ima\t=deb\t")
        await screen.shows(f"{PROMPT} new --image=debian x")
        screen.type("\x05\x15s\t")  # nothing to finish: the bell
        await screen.until(rb"\x07")
        screen.type("\x15nope \t\t")
        await screen.shows(f"{PROMPT} nope")


async def test_a_question_mark_says_what_can_come_and_is_a_letter_inside_a_word(
    here: Lobby,
) -> None:
    await here.control.run("new --name web")
    with here.screen(columns=60, rows=80) as screen:
        await screen.shows(".*", PROMPT)
        screen.type("?")
        await screen.shows(
            *[".*"] * 3, "  exit +Leave the prompt", *["  .* +the same as exit"] * 2, PROMPT
        )
        screen.type("share sh")
        screen.type("?")  # in a word of a verb
        await screen.shows(f"{PROMPT} share sh", "  show +Show who may .*", f"{PROMPT} share sh")
        screen.type("ow ")
        await screen.shows(f"{PROMPT} share show")
        screen.type("?")
        await screen.shows(
            f"{PROMPT} share show",
            "  <vm> +VM",
            "  --url URL +say why .*",
            "  --who EMAIL +by whom.*",
            "  --qr +draw the address as a QR code too",
            "  --json +print the result as JSON",
            "  --help +say what a command does; nothing is run",
            "web",
            f"{PROMPT} share show",
        )
        screen.type("\x15ls web?\r")
        await screen.shows("No such VM", PROMPT)
        screen.type("comment web really \x1b[200~?\x1b[201~")
        await screen.shows(f"{PROMPT} comment web really \\?")


# --- long texts, narrow terminals, colours


async def test_a_long_text_is_shown_by_page(here: Lobby) -> None:
    text = (await here.control.run("doc all")).text
    total = len(rows_of(text, 80, colour=False))
    with here.screen(columns=80, rows=12) as screen:
        await screen.shows(".*", PROMPT)
        screen.type("doc all\r")
        await screen.shows(f"1-11 of {total}  space next, b back, / search, q quit")
        assert screen.rows()[0] == text.split("\n")[0]
        screen.type(" ")
        await screen.shows(f"12-22 of {total}  .*")
        screen.type("jb")
        await screen.shows(f"2-12 of {total}  .*")
        screen.type("/# WHOAMI")
        await screen.shows("/# WHOAMI")
        screen.type("\r")
        await screen.shows(f"\\d+-\\d+ of {total}  .*")
        assert screen.rows()[0].lstrip("#") == " whoami"
        screen.type("/nothing such\r")
        await screen.shows(".* not found|.*  not found")
        assert screen.rows()[0].lstrip("#") == " whoami"
        screen.drag(columns=40, rows=8)
        await screen.shows("\\d+-\\d+ of [0-9]+  space next, b.*")
        assert screen.rows()[0].lstrip("#") == " whoami"
        screen.type("G")
        await screen.shows("[0-9]+-([0-9]+) of \\1  .*")
        screen.type("g  q")
        await screen.shows(PROMPT)
        screen.type("ls x\r")
        await screen.shows(".* Try: ls", PROMPT)


@pytest.mark.parametrize("line", ["doc all --json", "help"])
async def test_json_and_what_fits_is_not_paged(here: Lobby, line: str) -> None:
    with here.screen(columns=80, rows=30) as screen:
        await screen.shows(".*", PROMPT)
        screen.type(f"{line}\r")
        await screen.shows(".*", PROMPT)
        assert b"[?1049h" not in screen.received


async def test_a_paged_command_on_a_terminal_of_its_own(here: Lobby) -> None:
    with here.screen("doc", "all", columns=80, rows=12) as screen:
        await screen.shows("1-11 of .*")
        screen.type("q")
        assert await screen.ended() == 0
    done = await here.ssh("doc", "all")
    assert done.out.decode() == (await here.control.run("doc all")).text + "\n"


async def test_tables_fit_a_narrow_terminal_and_are_whole_without_one(here: Lobby) -> None:
    await here.control.run(f"new --name web --comment '{'long ' * 20}'")
    with here.screen("ls", columns=60) as screen:
        await screen.shows(
            "NAME  STATUS   URL +COMMENT",
            r"web   running  https://web\.atoll\.localhost:8443/  long long…",
            "Connection to .*",
        )
    done = await here.ssh("ls")
    assert ("long " * 20).strip().encode() in done.out


async def test_a_qr_code_on_terminals_of_any_theme_and_width(here: Lobby) -> None:
    await here.control.run("new --name web")
    url = "https://web.atoll.localhost:8443/"
    with here.screen("share", "show", "web", "--qr", columns=80, rows=24) as screen:
        assert await screen.ended() == 0
        rows = screen.model.display
        first = next(n for n, row in enumerate(rows) if row.startswith("█"))
        code = drawn(url)
        assert [row.rstrip() for row in rows[first : first + len(code)]] == list(
            map(str.rstrip, code)
        )
        shown = screen.model.buffer[first][0]
        assert (shown.fg, shown.bg) == ("brightwhite", "black")
        assert any(url in row for row in rows)
    with here.screen("share", "show", "web", "--qr", columns=30) as screen:
        await screen.ended()
        assert "needs 33 columns" in " ".join(screen.rows())
        assert "█" not in "".join(screen.rows())
    done = await here.ssh("share", "show", "web", "--qr")
    assert done.out.decode().endswith("\n".join(drawn(url)) + "\n")
    done = await here.ssh("browser", "--qr", "--json")
    assert set(json.loads(done.out)) == {"url", "expires_at"}


@pytest.mark.parametrize(("no_colour", "term", "is_painted"), [
    (False, "xterm", True), (True, "xterm", False), (False, "dumb", False)])  # fmt: skip
async def test_colour_is_for_terminals_whose_users_want_it(
    here: Lobby, no_colour: bool, term: str, is_painted: bool
) -> None:
    await here.control.run("new --name web")
    options = ["-o", "SetEnv=NO_COLOR=1"] if no_colour else []
    for words, colour in ((["ls"], b"\x1b[32mrunning\x1b[0m"), (["nope"], b"\x1b[31matoll: no")):
        argv = here.ground.ssh_line("-tt", *options, "atoll@gw", *words)
        with Screen(["env", f"TERM={term}", *argv]) as screen:
            await screen.ended()
            assert (colour in screen.received) is is_painted
            assert (b"\x1b" in screen.received) is is_painted
        done = await here.ssh(*words)
        assert b"\x1b" not in done.out + done.err


# --- commands at the prompt


async def test_a_command_is_left_with_ctrl_c_and_what_follows_is_not_run(here: Lobby) -> None:
    gate = here.control.engine.hold[Create] = asyncio.Event()
    with here.screen() as screen:
        await screen.shows(".*", PROMPT)
        screen.type(pasted("new --name web\rwhoami") + "\r")
        await _asked(here.control.engine, Create)
        screen.type("\x03")
        await screen.shows("\\^C", "What it began goes on. Try: ls", PROMPT)
        gate.set()
        screen.type("ls\r")
        await screen.shows("NAME +STATUS +URL", "web +.*", PROMPT)


async def test_keys_typed_while_a_command_runs_wait_for_the_prompt(here: Lobby) -> None:
    with here.screen() as screen:
        await screen.shows(".*", PROMPT)
        screen.type("whoami\rls x")
        await screen.shows("(desk|laptop) .*", f"{PROMPT} ls x")


async def test_input_that_is_broken_off_does_nothing(here: Lobby) -> None:
    with here.screen() as screen:
        await screen.shows(".*", PROMPT)
        screen.type("ssh-key add -\r")
        await screen.shows(f"{PROMPT} ssh-key add -")
        await screen.until(rb"add -.*\[\?2004h")
        screen.type("ssh-ed25519\r\x03")
        await screen.shows(
            "ssh-ed25519", "\\^C", "atoll: Input was broken off; nothing was done", PROMPT
        )


async def test_a_window_of_any_size_costs_nothing(here: Lobby) -> None:
    for columns, rows in ((2**32 - 1, 24), (1, 1), (0, 2**32 - 1)):
        async with asyncssh.connect(
            "127.0.0.1",
            here.ground.door.port,
            username="atoll",
            client_keys=[str(here.ground.folder / "ann")],
            known_hosts=None,
            config=[],
            agent_path=None,
        ) as connection:
            process = await connection.create_process(
                term_type="xterm", term_size=(columns, rows, 0, 0)
            )
            process.stdin.write("doc all\rq\rexit\r")
            async with asyncio.timeout(20):
                assert len(await process.stdout.read()) < 200_000


async def test_a_client_that_is_gone_leaves_nothing_behind(here: Lobby) -> None:
    here.control.engine.hold[Create] = asyncio.Event()
    for keys in ("half a line", "doc all\r", "new --name web\r"):
        with here.screen() as screen:
            await screen.shows(".*", PROMPT)
            screen.type(keys)
            await screen.shows(".+", f"{PROMPT} new .*|{PROMPT} half.*|1-23 of.*")
    await _asked(here.control.engine, Create)

    async def alone() -> bool | None:
        return None if len(here.ground.door._visitors) else True

    await poll(alone, seconds=15, what="the end of all connections")
    here.control.engine.hold.pop(Create).set()
    with here.screen() as screen:  # what was begun is brought to its end
        await screen.shows(".*", PROMPT)
        screen.type("ls web\r")
        await screen.shows("NAME .*", "web .*", PROMPT)


@pytest.mark.parametrize("seed", range(4))
async def test_noise_at_the_prompt_does_no_harm(here: Lobby, seed: int) -> None:
    random = Random(seed)
    parts = [
        "\x1b",
        "[",
        "200~",
        "O",
        ";",
        "9",
        "m",
        "\t",
        "?",
        "\x12",
        "\x03",
        "\x17",
        "\x19",
        "\x0c",
    ]
    parts += ["a", "'", "\\", "日", "🇩", "\u0301", "\x9b", "\x1b[A", "\x1b[D", "\x7f", " ls "]
    with here.screen(columns=random.randint(5, 60), rows=random.randint(3, 30)) as screen:
        await screen.until(b"atoll> ")
        for _ in range(40):
            screen.type("".join(random.choices(parts, k=random.randint(1, 60))))
            screen.drag(columns=random.randint(5, 60), rows=random.randint(3, 30))
        screen.drag(columns=80, rows=24)
        screen.type("\x1b[201~x\x1b[201~\x03")
        await screen.until(rb"\^C")
        screen.type("\x15\x0bwhoami\r")
        await screen.until(rb"ann@example\.com.*atoll> ")


async def test_stdin_is_typed_where_a_command_reads_it(here: Lobby) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHmJGHFXyGmpRGkQ4Lf3vUQnZ1a3kPv1rm0t8xrJmSDD ci"
    with here.screen("ssh-key", "add", "-") as screen:
        await screen.until(rb"\[\?2004h")  # it reads
        screen.type(f"{key}\r\x04")
        await screen.shows(".*", "added ci", "Connection to 127.0.0.1 closed.")
        assert await screen.ended() == 0


async def test_nothing_that_a_terminal_acts_on_gets_out(here: Lobby) -> None:
    """Names and comments are checked when they come in; this is about what slipped past."""
    await here.control.run("new --name web")
    await _damage(here, comment="\x1b]0;owned\x07\x1b[31mred\x9b2J\u202egnp\r\nNAME")
    hostile = (b"\x1b]0", b"\x1b[31", b"\x9b", b"\x07", b"\xc2\x9b", b"\xe2\x80\xae")
    for words in (["ls"], ["ls", "--json"], ["comment", "web", "a\x1b[31mb"], ["\x1b[31m"]):
        done = await here.ssh(*words)
        assert not [code for code in hostile if code in done.out + done.err], words
    with here.screen("ls", columns=200) as screen:
        assert await screen.ended() == 0
        shown = next(row for row in screen.rows() if row.startswith("web"))
        assert shown.endswith(r"\x1b]0;owned\x07\x1b[31mred\x9b2J\u202egnp\x0d\nNAME")


async def test_without_a_terminal_lines_come_from_the_pipe(here: Lobby) -> None:
    done = await here.ssh(stdin=b"whoami --json\n\n nonsense \nhelp whoami\nexit\nls\n")
    assert done.code == 0
    assert done.err.splitlines() == [b"atoll: no command 'nonsense'", b"Try: help"]
    assert b'"email":"ann@example.com"' in done.out
    assert b"Usage: whoami" in done.out
    assert b"\r" not in done.out + done.err
    assert b"\x1b" not in done.out + done.err


# --- small things the tests share


async def _asked(engine: FakeEngine, kind: type[Message]) -> None:
    async def check() -> bool | None:
        return any(isinstance(request, kind) for request in engine.asked) or None

    await poll(check, seconds=10, what="a request to the engine")


async def _damage(here: Lobby, *, comment: str) -> None:
    """Put a comment into the store that no command would take."""
    async with here.control.store.begin() as tx:
        vm: VmRecord | None = await vms.named(tx, "web")
        assert vm is not None
        await vms.change(tx, vm, comment=comment)
