"""The SSH door with OpenSSH on both ends: the real clients outside, a real sshd as the VM."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
from asyncssh.constants import MSG_KEXINIT

from atoll.base.aio import poll, together
from atoll.base.errors import NotFound
from atoll.base.proc import run
from atoll.doors.ssh.admission import Limits
from atoll.doors.ssh.client_config import client_config
from atoll.doors.ssh.relay import ClientSide
from framework.clients import Terminal, client, exists, free_port, listening, shout, shouter
from framework.gateway import ANN, BOB, Ground, ground
from framework.screen import Screen

MB = 1_000_000


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Ground]:
    async with ground(tmp_path) as made:
        yield made


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(os.urandom(50 * MB))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- sessions in a VM


async def test_exec_keeps_streams_and_status_apart(here: Ground) -> None:
    done = await here.ssh("web@gw", "cat; echo out; echo err >&2; exit 7", stdin=b"in\n")
    assert (done.code, done.out, done.err) == (7, b"in\nout\n", b"err\n")


async def test_a_remote_signal_reaches_the_client(here: Ground) -> None:
    done = await here.ssh("-v", "web@gw", "kill -TERM $$")
    assert done.code == 255
    assert b"exit-signal" in done.err


async def test_environment(here: Ground) -> None:
    done = await here.ssh("-o", "SetEnv FLAVOUR=sea", "web@gw", "echo $FLAVOUR")
    assert done.out == b"sea\n"


async def test_binary_input_through_a_half_close(here: Ground, blob: Path) -> None:
    done = await here.ssh("web@gw", "sha256sum", stdin=blob.read_bytes())
    assert done.out.split()[0].decode() == digest(blob)


async def test_terminal_modes_and_window_changes(here: Ground) -> None:
    with Terminal(
        here.ssh_line("-tt", "web@gw", "bash --norc --noprofile -i"), columns=101, rows=37
    ) as term:
        await term.until(rb"[#$] ")
        term.type("stty size; stty -a | grep -o ' -\\?echo '\n")
        await term.until(rb"37 101\r\n")
        await term.until(rb" echo ")
        term.resize(columns=77, rows=21)
        term.type("stty size\n")
        await term.until(rb"21 77\r\n")
        term.type("sleep 60\n")
        await term.until(rb"sleep 60\r\n")
        term.type("\x03")  # the interrupt goes to the remote sleep
        await term.until(rb"[#$] ")
        term.type("exit 9\n")
        assert await term.ended() == 9


# --- files


@pytest.mark.parametrize("mode", ["-s", "-O"])
async def test_scp_both_ways(here: Ground, blob: Path, mode: str) -> None:
    there, back = here.folder / "there", here.folder / "back"
    up = await here.tool("scp", "-q", mode, str(blob), f"web@gw:{there}", seconds=60)
    assert up.code == 0, up.err
    assert digest(there) == digest(blob)
    down = await here.tool("scp", "-q", mode, f"web@gw:{there}", str(back), seconds=60)
    assert down.code == 0, down.err
    assert digest(back) == digest(blob)


async def test_sftp(here: Ground) -> None:
    (here.folder / "note").write_text("tide")
    batch = (
        f"put {here.folder}/note {here.folder}/note2\nrename {here.folder}/note2 {here.folder}/3\n"
    )
    done = await here.tool("sftp", "-b", "-", "web@gw", stdin=batch.encode())
    assert done.code == 0, done.err
    assert (here.folder / "3").read_text() == "tide"


async def test_rsync(here: Ground) -> None:
    tree = here.folder / "tree"
    for number in range(40):
        file = tree / f"d{number % 5}" / f"f{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(number * 1000))
    shell = f"ssh -F {here.config}"
    target = here.folder / "tree2"
    argv = ["rsync", "-a", "--stats", "-e", shell, f"{tree}/", f"web@gw:{target}/"]
    await run(argv, seconds=30)
    again = await run(argv, seconds=30)
    assert b"Number of regular files transferred: 0" in again.out
    assert digest(target / "d4" / "f39") == digest(tree / "d4" / "f39")


# --- forwards


async def test_local_forward_with_half_close(here: Ground) -> None:
    local = free_port()
    async with (
        shouter() as port,
        client(here.ssh_line("-N", "-L", f"{local}:127.0.0.1:{port}", "web@gw")),
    ):
        await listening(local)
        assert await shout(local, b"over the reef") == b"OVER THE REEF"


async def test_remote_forward_on_a_port_of_the_vms_choice_and_its_cancel(here: Ground) -> None:
    control = here.folder / "ctl"
    async with (
        shouter() as port,
        client(here.ssh_line("-N", "-M", "-S", str(control), "web@gw")) as master,
    ):
        await exists(control)
        forward = f"0:127.0.0.1:{port}"
        asked = await here.ssh("-S", str(control), "-O", "forward", "-R", forward, "web@gw")
        assert asked.code == 0, asked.err
        remote = int(asked.out)
        assert await shout(remote, b"inward") == b"INWARD"
        done = await here.ssh("-S", str(control), "-O", "cancel", "-R", forward, "web@gw")
        assert done.code == 0, done.err

        async def refused() -> bool | None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", remote)
            except ConnectionRefusedError:
                return True
            writer.close()
            return None

        await poll(refused, seconds=10, what="end of the forward")
        assert master.returncode is None


async def test_socks(here: Ground) -> None:
    local = free_port()
    argv = ["curl", "-sS", "--socks5-hostname", f"127.0.0.1:{local}", "-d", "shells"]
    async with (
        http_echo() as port,
        client(here.ssh_line("-N", "-D", str(local), "web@gw")),
    ):
        await listening(local)
        done = await run([*argv, f"http://127.0.0.1:{port}/"], seconds=15)
        assert done.out == b"shells"


@asynccontextmanager
async def http_echo() -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: (\d+)", head)
        body = await reader.readexactly(int(found[1]) if found else 0)
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_unix_socket_forwards(here: Ground) -> None:
    local, remote = free_port(), here.folder / "remote.sock"
    async with (
        shouter() as port,
        client(
            here.ssh_line(
                "-N", "-R", f"{remote}:127.0.0.1:{port}", "-L", f"{local}:{remote}", "web@gw"
            )
        ),
    ):
        await listening(local)
        await exists(remote)
        assert await shout(local, b"round trip") == b"ROUND TRIP"


async def test_agent_forwarding(here: Ground) -> None:
    socket = here.folder / "agent"
    async with client(["ssh-agent", "-D", "-a", str(socket)]):
        await exists(socket)
        env = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
        await run(["ssh-add", "-q", str(here.folder / "bob")], seconds=10, env=env)
        done = await run(
            here.ssh_line("-A", "-o", f"IdentityAgent {socket}", "web@gw", "ssh-add -l"), seconds=20
        )
    fingerprint = await run(["ssh-keygen", "-lf", str(here.folder / "bob.pub")], seconds=10)
    assert fingerprint.out.split()[1] in done.out


async def test_many_sessions_on_one_connection(here: Ground) -> None:
    control = here.folder / "ctl"
    async with client(here.ssh_line("-N", "-M", "-S", str(control), "web@gw")):
        await exists(control)
        # What an editor does: long streams, short commands and a file transfer at once.
        jobs = [
            here.ssh("-S", str(control), "web@gw", f"head -c {n}00000 /dev/zero | wc -c; exit {n}")
            for n in range(1, 13)
        ]
        for number, done in enumerate(await together(*jobs), start=1):
            assert (done.code, done.out) == (number, b"%d00000\n" % number)
    assert here.town.lines == []


async def test_an_endless_reader_does_not_hold_up_its_neighbour(here: Ground) -> None:
    control = here.folder / "ctl"
    async with (
        client(here.ssh_line("-N", "-M", "-S", str(control), "web@gw")),
        client(here.ssh_line("-S", str(control), "web@gw", "cat /dev/zero")) as stuck,
    ):
        await exists(control)
        assert stuck.stdout is not None  # its pipe is full soon and nobody reads on
        done = await here.ssh("-S", str(control), "web@gw", "echo through", seconds=20)
        assert done.out == b"through\n"


async def test_rekeying_by_the_client(here: Ground, blob: Path) -> None:
    done = await here.ssh(
        "-v", "-o", "RekeyLimit 1M", "web@gw", "sha256sum", stdin=blob.read_bytes(), seconds=60
    )
    assert done.out.split()[0].decode() == digest(blob)
    assert done.err.count(b"SSH2_MSG_NEWKEYS received") > 20


async def test_rekeying_by_the_gateway_on_both_sides_at_once(here: Ground, blob: Path) -> None:
    data = blob.read_bytes()[: 20 * MB]
    log = here.folder / "log"
    async with client(here.ssh_line("-v", "-E", str(log), "web@gw", "cat")) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        assert await process.stdout.readexactly(1) == b"x"
        (side,) = _client_sides(here)
        assert side._other is not None
        side._rekey_bytes = side._other._rekey_bytes = 300_000
        process.stdin.write(data)
        async with asyncio.timeout(50):
            assert await process.stdout.readexactly(len(data)) == data
            process.stdin.close()
            assert await process.wait() == 0
    assert log.read_bytes().count(b"SSH2_MSG_NEWKEYS received") > 20


@pytest.mark.parametrize("cipher", ["chacha20-poly1305@openssh.com", "aes256-ctr"])
async def test_a_client_without_the_fast_ciphers(here: Ground, blob: Path, cipher: str) -> None:
    done = await here.ssh("-c", cipher, "web@gw", "sha256sum", stdin=blob.read_bytes())
    assert done.out.split()[0].decode() == digest(blob)


async def test_the_fast_cipher_is_taken_from_the_end_of_a_list(here: Ground) -> None:
    done = await here.ssh("-v", "gw", "whoami")
    assert b"kex: server->client cipher: aes128-gcm@openssh.com" in done.err


async def test_a_client_that_waits_for_our_offer_gets_it(here: Ground) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", here.door.port)
    assert await reader.readline() == b"SSH-2.0-Atoll\r\n"
    writer.write(b"SSH-2.0-Patient\r\n")
    async with asyncio.timeout(10):
        packet = await reader.readexactly(6)
    assert packet[5] == MSG_KEXINIT
    writer.close()


# --- by way of the lobby


async def test_jump_and_tcp_to_ones_own_vms_only(here: Ground) -> None:
    route = next(iter(here.town.routes.values()))
    for name in ("web", "web.atoll", "web.atoll.localhost"):
        done = await here.ssh(
            "-J", "gw", "-o", "HostKeyAlias vm-web", f"{route.login_user}@{name}", "echo $0; exit 3"
        )
        assert done.code == 3, done.err
    for elsewhere in ("localhost", "127.0.0.1", "127.0.0.2", "169.254.169.254", "other"):
        done = await here.ssh("-W", f"{elsewhere}:{here.vm_port}", "gw")
        assert done.code == 255
        assert b"There is no VM" in done.err
    bobs = await here.tool("ssh", "-F", str(here.config_for("bob")), "-W", "web:22", "gw")
    assert b"There is no VM" in bobs.err


async def test_other_ports_of_a_vm_through_the_lobby(here: Ground) -> None:
    local = free_port()
    async with (
        shouter("127.0.0.2") as port,
        client(here.ssh_line("-N", "-L", f"{local}:web:{port}", "gw")),
    ):
        await listening(local)
        assert await shout(local, b"short cut") == b"SHORT CUT"


async def test_the_lobby_forwards_nothing_back(here: Ground) -> None:
    done = await here.ssh("-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:9", "gw")
    assert done.code == 255


async def test_the_printed_client_configuration(here: Ground) -> None:
    route = next(iter(here.town.routes.values()))
    host_key = here.keys.host_key_path.with_name("host_key.pub").read_text()
    text = client_config(
        ssh_host="127.0.0.1",
        ssh_port=here.door.port,
        domain=here.door.domain,
        gateway_key=host_key,
        host_ca=here.keys.host_ca_public,
        login_user=route.login_user,
    )
    config = here.folder / "printed"
    config.write_text(
        f"{text}\nHost *\n    IdentityFile {here.folder}/ann\n    IdentitiesOnly yes\n"
        "    StrictHostKeyChecking yes\n    UserKnownHostsFile none\n    GlobalKnownHostsFile none\n"
    )
    for argv in (["web.atoll"], ["web.atoll.localhost"], ["web@atoll"]):
        done = await run(["ssh", "-F", str(config), *argv, "echo in"], seconds=20, check=False)
        assert (done.code, done.out) == (0, b"in\n"), done.err
    done = await run(["ssh", "-F", str(config), "atoll", "whoami"], seconds=20)
    assert done.out == b"ann@example.com\n"
    other = ["ssh", "-F", str(config), "api.atoll", "true"]
    done = await run(other, seconds=20, check=False)
    assert b"There is no VM 'api'" in done.err


# --- the lobby itself


async def test_lobby_commands(here: Ground) -> None:
    done = await here.ssh("gw", "whoami", "--json")
    assert (done.code, done.out) == (0, b'{"email": "ann@example.com"}\n')
    done = await here.ssh("gw", "status", "5")
    assert (done.code, done.out) == (5, b"exit 5\n")
    done = await here.ssh("gw", "slow")
    assert (done.out, done.err) == (b"done\n", b"working\n")
    done = await here.ssh("gw", "nonsense")
    assert (done.code, done.out) == (2, b"")
    assert done.err == b"atoll: There is no command 'nonsense'\nTry: help\n"


async def test_lobby_reads_stdin_only_where_it_is_named(here: Ground) -> None:
    raw = bytes(range(256)) * 40
    done = await here.ssh("gw", "count", "-", stdin=raw)
    assert done.out == b"10240\n"
    async with client(here.ssh_line("gw", "whoami")) as process:  # its stdin stays open
        assert process.stdout is not None
        async with asyncio.timeout(15):
            assert await process.stdout.read() == b"ann@example.com\n"
            assert await process.wait() == 0
    done = await here.ssh("gw", "count", "-", stdin=b"x" * (2 << 20))
    assert done.code == 2


async def test_lobby_takes_lines_from_a_pipe(here: Ground) -> None:
    done = await here.ssh("gw", stdin=b"whoami\n\nnonsense\nstatus 4\nexit\nwhoami\n")
    assert (done.code, done.out) == (4, b"ann@example.com\nexit 4\n")
    assert here.town.lines == ["whoami", "nonsense", "status 4"]


async def test_lobby_prompt_on_a_terminal(here: Ground) -> None:
    with Screen(here.ssh_line("-tt", "gw"), columns=100, rows=30) as screen:
        await screen.shows("You have no VM called 'ann': this is the lobby.", ".*", "atoll>")
        screen.type("who\t")
        await screen.shows("atoll> whoami")
        screen.type("\r")
        await screen.shows("ann@example.com", "atoll>")
        screen.type("nonsense\r")
        await screen.shows("atoll: There is no command 'nonsense'", "Try: help", "atoll>")
        screen.type("ssh web\rstty size\r")  # what is typed ahead goes into the VM
        await screen.until(rb"30 100\r\n.*[#$] ")
        screen.drag(columns=77, rows=21)
        screen.type("stty size; exit 3\r")
        await screen.shows("21 77", ".*", "atoll>")
        screen.type("whoami\r")
        await screen.shows("ann@example.com", "atoll>")
        screen.type("\x04")
        assert await screen.ended() == 0


async def test_lobby_runs_a_command_in_a_vm(here: Ground) -> None:
    done = await here.ssh("gw", "ssh web cat; exit 4", stdin=b"through\xff")
    assert (done.code, done.out) == (4, b"through\xff")


async def test_lobby_opens_a_shell_in_a_vm_on_the_terminal_it_has(here: Ground) -> None:
    argv = here.ssh_line("-tt", "gw", "ssh web bash --norc --noprofile -i")
    with Screen(argv, columns=100, rows=30) as screen:
        await screen.until(rb"[#$] ")
        screen.type("stty size\r")
        await screen.until(rb"30 100\r\n")
        screen.type("sleep 60\r")
        await screen.until(rb"sleep 60\r\n")
        screen.type("\x03")  # for the sleep, not for the lobby
        await screen.until(rb"\^C.*[#$] ")
        screen.type("exit 9\r")
        assert await screen.ended() == 9


async def test_files_are_not_for_the_lobby(here: Ground) -> None:
    done = await here.tool("scp", str(here.config), "gw:/tmp/never")
    assert done.code != 0
    assert b"The lobby has no 'sftp'" in done.err


# --- who may


async def test_an_unknown_key_gets_one_line(here: Ground) -> None:
    config = str(here.config_for("nobody"))
    fingerprint = (
        await run(["ssh-keygen", "-lf", str(here.folder / "nobody.pub")], seconds=10)
    ).out.split()[1]
    for target in ("gw", "web@gw"):
        for command in (["-T"], ["ls"], ["-s", "sftp"]):
            done = await here.tool("ssh", "-F", config, target, *command, stdin=b"whoami\n")
            assert done.code == 1
            assert done.out == b""
            assert done.err.count(b"\n") == 1
            assert b"atoll: key " + fingerprint + b" is not known here" in done.err
    forward = await here.tool("ssh", "-F", config, "-W", "web:22", "gw")
    assert forward.code == 255
    assert b"not known here" in forward.err
    assert here.town.lines == []


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("ssh", ("gw", "ls")), ("ssh", ("web@gw", "ls")), ("ssh", ("-N", "gw")),
     ("ssh", ("-N", "-R", "0:127.0.0.1:1", "web@gw")), ("ssh", ("-W", "web:22", "gw")),
     ("sftp", ("web@gw",)), ("scp", ("web@gw:a", "b"))],
)  # fmt: skip
async def test_an_unknown_key_that_may_not_ask_gets_one_line(
    here: Ground, tool: str, arguments: tuple[str, ...]
) -> None:
    """With BatchMode the client never comes to where the others are told."""
    config = str(here.config_for("nobody"))
    printed = (await run(["ssh-keygen", "-lf", str(here.folder / "nobody.pub")], seconds=10)).out
    done = await here.tool(tool, "-F", config, "-o", "BatchMode=yes", *arguments)
    assert done.code == 255
    assert done.out == b""
    line, *closing = (said for said in done.err.splitlines() if said)
    assert b"unknown-key-" + printed.split()[1] in line
    assert b"add-it-from-a-computer-that-is-known-with:ssh-key-add" in line
    assert all(b"Connection closed" in said for said in closing), "only what scp and sftp add"
    assert here.town.lines == []


async def test_a_stranger_who_opens_nothing_is_sent_away(tmp_path: Path) -> None:
    async with ground(tmp_path, limits=Limits(stranger_s=0.5), vms=()) as here:
        done = await here.tool("ssh", "-F", str(here.config_for("nobody")), "-N", "gw")
        assert done.code == 255
        assert b"not known here" in done.err


@pytest.mark.parametrize("batch", ["no", "yes"])
async def test_the_known_key_is_found_among_others(here: Ground, batch: str) -> None:
    keys = [f"-i{here.new_key(f'spare{n}', None)}" for n in range(4)]
    done = await here.ssh("-o", f"BatchMode={batch}", *keys, "gw", "whoami")
    assert (done.code, done.out, done.err) == (0, b"ann@example.com\n", b"")


async def test_a_known_public_key_without_its_private_half_opens_nothing(here: Ground) -> None:
    """Offering ann's key and then failing over to keyboard-interactive leaves nobody."""
    ann = asyncssh.read_public_key(here.folder / "ann.pub")
    forged = asyncssh.generate_private_key("ssh-ed25519")

    class Forger(asyncssh.SSHKeyPair):
        def __init__(self) -> None:
            name = b"ssh-ed25519"
            super().__init__(name, name, [name], [name], ann.public_data, None)

        def sign(self, data: bytes) -> bytes:
            return forged.sign(data, b"ssh-ed25519")

    async with asyncssh.connect(
        "127.0.0.1",
        here.door.port,
        username="web",
        client_keys=[Forger()],
        known_hosts=None,
        config=[],
        agent_path=None,
        preferred_auth="publickey,keyboard-interactive",
        kbdint_auth=True,
        client_factory=_Agreeable,
    ) as conn:
        done = await conn.run("whoami")
    assert done.exit_status == 1
    assert "not known here" in str(done.stderr)
    assert here.town.lines == []


async def test_others_vms_are_not_there(here: Ground) -> None:
    config = str(here.config_for("bob"))
    done = await here.tool("ssh", "-F", config, "web@gw", "whoami")
    assert done.out == f"{BOB.email}\n".encode()  # the lobby, as bob
    done = await here.tool("ssh", "-F", config, "vm+web@gw", "true")
    assert (done.code, done.err) == (66, b"atoll: There is no VM 'web'\nTry: ls\n")


async def test_a_misspelt_vm_does_not_become_a_lobby_command(here: Ground) -> None:
    done = await here.ssh("wbe@gw", "whoami")
    assert done.code == 66
    assert b"For VM 'web' write web@" in done.err
    assert here.town.lines == []


async def test_a_vm_that_is_not_running(here: Ground) -> None:
    here.town.stopped.add("web")
    for command in (["true"], ["-s", "sftp"], ["-T"]):
        done = await here.ssh("web@gw", *command)
        assert (done.code, done.err) == (75, b"atoll: VM 'web' is paused\nTry: resume web\n")
    done = await here.ssh("-W", "localhost:1", "web@gw")
    assert b"is paused" in done.err


async def test_a_vm_that_does_not_answer(here: Ground) -> None:
    os.kill(here.sshd_pids["web"], signal.SIGTERM)

    async def gone() -> bool | None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.2", here.vm_port)
        except ConnectionRefusedError:
            return True
        writer.close()
        return None

    await poll(gone, seconds=10, what="end of sshd")
    done = await here.ssh("web@gw", "true")
    assert done.code == 69
    assert b"atoll: VM 'web' does not let us in" in done.err
    assert b"restart web" in done.err


async def test_an_impostor_at_the_address_of_a_vm(tmp_path: Path) -> None:
    async with ground(tmp_path, vms=("web", "other")) as here:
        ann = next(iter(here.town.routes))[0]
        web, other = here.town.routes[ann, "web"], here.town.routes[ann, "other"]
        here.town.routes[ann, "web"] = replace(web, address=other.address)
        done = await here.ssh("web@gw", "true")
        assert done.code == 69
        assert b"its host key is not that of the VM: made for vm-other" in done.err
        here.town.routes[ann, "web"] = replace(web, host_ca=here.keys.user_ca_public)
        done = await here.ssh("web@gw", "true")
        assert b"signed by another CA" in done.err


# --- the end of things


async def test_a_vm_that_dies_ends_its_sessions_with_a_word(here: Ground) -> None:
    async with client(here.ssh_line("web@gw", "echo $PPID; cat")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        os.kill(int(await process.stdout.readline()), signal.SIGKILL)
        async with asyncio.timeout(15):
            said = await process.stderr.read()
            assert await process.wait() == 255
        assert b"VM 'web' stopped or lost its connection" in said


async def test_a_vm_that_is_paused_ends_its_sessions_at_once(here: Ground) -> None:
    """Its end of the connection is gone without a word, and would be waited for."""
    route = here.town.routes[ANN.id, "web"]
    jump = ("-J", "gw", "-o", "HostKeyAlias vm-web", f"{route.login_user}@web", "echo in; cat")
    async with (
        client(here.ssh_line("web@gw", "echo in; cat")) as straight,
        client(here.ssh_line(*jump)) as jumped,
    ):
        for process in (straight, jumped):
            assert process.stdout is not None
            assert await process.stdout.readline() == b"in\n"
        here.door.end_vm("vm-other")
        assert straight.returncode is None
        here.door.end_vm(route.vm_id)
        assert straight.stderr is not None
        async with asyncio.timeout(15):
            assert b"the VM was paused or stopped" in await straight.stderr.read()
            assert await straight.wait() == 255
            assert await jumped.wait() == 255


async def test_withdrawn_access_ends_connections_within_a_second(here: Ground) -> None:
    """The straight one, the one through a jump, and what the lobby has opened."""
    route = here.town.routes[ANN.id, "web"]
    jump = ("-J", "gw", "-o", "HostKeyAlias vm-web", f"{route.login_user}@web", "echo in; cat")
    async with (
        client(here.ssh_line("web@gw", "echo in; cat")) as straight,
        client(here.ssh_line(*jump)) as jumped,
    ):
        for process in (straight, jumped):
            assert process.stdout is not None
            assert await process.stdout.readline() == b"in\n"
        inside = await here.door.open_vm(route)
        here.door.end_access("acct-bob", route.vm_id)
        here.door.end_access(ANN.id, "vm-other")
        assert straight.returncode is None
        assert not inside.is_closed()
        here.door.end_access(ANN.id, route.vm_id)
        assert straight.stderr is not None
        async with asyncio.timeout(1):
            assert b"access was withdrawn" in await straight.stderr.read()
            assert await straight.wait() == 255
            assert await jumped.wait() == 255
            await inside.wait_closed()
    await _nothing_left(here)


async def test_what_is_lost_during_a_login_ends_it_at_whatever_door(here: Ground) -> None:
    """Shells of the page, `POST /exec` and the lobby have nothing else that looks again."""
    route = here.town.routes[ANN.id, "web"]
    login = asyncio.create_task(here.door.open_vm(route))
    await asyncio.sleep(0)
    del here.town.routes[ANN.id, "web"]
    try:
        with pytest.raises(NotFound):
            await login
        here.town.routes[ANN.id, "web"] = replace(route, vm_id="vm-new")
        with pytest.raises(NotFound):
            await here.door.open_vm(route)
    finally:
        here.town.routes[ANN.id, "web"] = route
    await _nothing_left(here)


async def test_a_killed_client_leaves_nothing_behind(here: Ground) -> None:
    for _ in range(3):
        async with client(here.ssh_line("web@gw", "echo $$; exec cat /dev/zero")) as process:
            assert process.stdout is not None
            remote = int(await process.stdout.readline())
            await process.stdout.readexactly(5 * MB)
            process.kill()

            async def gone(pid: int = remote) -> bool | None:
                return None if Path(f"/proc/{pid}").exists() else True

            await poll(gone, seconds=15, what="end of the remote command")
    await _nothing_left(here)


async def test_a_client_that_stops_reading_holds_no_memory(here: Ground) -> None:
    async with client(here.ssh_line("web@gw", "cat /dev/zero")) as process:
        assert process.stdout is not None
        await process.stdout.readexactly(20 * MB)
        before = _resident_bytes()
        process.send_signal(signal.SIGSTOP)
        await _until_quiet(here)
        assert _resident_bytes() - before < 16 * MB
        process.send_signal(signal.SIGCONT)
        await process.stdout.readexactly(20 * MB)


async def test_a_key_exchange_that_never_ends_holds_no_memory(here: Ground) -> None:
    sink = _Sink()
    async with asyncssh.connect(
        "127.0.0.1",
        here.door.port,
        username="web",
        client_keys=[str(here.folder / "ann")],
        known_hosts=None,
        config=[],
        agent_path=None,
    ) as conn:
        window = 1 << 30  # far more than the gateway may hold
        await conn.create_session(lambda: sink, "cat /dev/zero", encoding=None, window=window)
        await poll(sink.has_some, seconds=20, what="data")
        conn._packet_handlers = {
            **conn._packet_handlers,
            MSG_KEXINIT: lambda *_ignored: None,  # the gateway's answer gets none
        }
        conn._send_kexinit()
        (side,) = _client_sides(here)
        await _until_quiet(here)
        assert not side._kex_complete
        assert 0 < side._kept_bytes < 1 * MB
        conn.abort()
    await _nothing_left(here)


async def test_64_at_once(here: Ground) -> None:
    jobs = [here.ssh("web@gw", f"cat; echo {n}", stdin=b"x", seconds=120) for n in range(64)]
    for number, done in enumerate(await together(*jobs)):
        assert (done.code, done.out) == (0, b"x%d\n" % number), done.err
    await _nothing_left(here)


async def test_one_source_too_many_is_answered(tmp_path: Path) -> None:
    async with ground(tmp_path, limits=Limits(pending_per_source=2), vms=()) as here:
        idle = [await asyncio.open_connection("127.0.0.1", here.door.port) for _ in range(2)]
        for reader, _ in idle:
            assert await reader.readline() == b"SSH-2.0-Atoll\r\n"
        done = await here.ssh("gw", "whoami")
        assert done.code == 255
        assert b"too many logins at once from 127.0.0.1; try again in a moment" in done.err
        for _, writer in idle:
            writer.close()
        await _nothing_left(here)
        assert (await here.ssh("gw", "whoami")).code == 0


async def test_closing_the_door_tells_those_inside(tmp_path: Path) -> None:
    async with ground(tmp_path) as here:
        process = await asyncio.create_subprocess_exec(
            *here.ssh_line("web@gw", "echo in; cat"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        await process.stdout.readline()
    assert process.stderr is not None
    async with asyncio.timeout(15):
        assert b"Atoll is stopping" in await process.stderr.read()
        assert await process.wait() == 255


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 5000,
        b"SSH-1.5-old\r\n",
        b"SSH-2.0-x\r\n" + b"\xff" * 5000,
        b"SSH-2.0-x\r\n\x00\x00\x00\x0c\x0a\x05" + b"\x00" * 10,
        b"SSH-2.0-x\r\n\x00\x00\x00\x0c\x0a\x14" + b"\x00" * 10,  # a cut KEXINIT
        b"SSH-2.0-x\r\n\x00\x00\x00\x0c\x0a\x5e" + b"\x00" * 10,  # channel data before all
        b"SSH-2.0-" + b"x" * 100_000,
    ],
)
async def test_noise_does_no_harm(here: Ground, noise: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", here.door.port)
    writer.write(noise)
    await reader.readline()  # ours comes first
    assert (await here.ssh("gw", "whoami")).code == 0
    writer.close()
    await _nothing_left(here)


# --- small things the tests share


async def _nothing_left(here: Ground) -> None:
    """Every visitor is forgotten and no socket of the door is left."""

    async def empty() -> bool | None:
        return None if len(here.door._visitors) or _sockets(here) else True

    await poll(empty, seconds=15, what="the end of all connections")


def _sockets(here: Ground) -> list[str]:
    """Established connections of this process to the VM or at the door."""
    mine = {
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    }
    ports = {f"{here.door.port:04X}", f"{here.vm_port:04X}"}
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return [
        row[9]
        for row in rows
        if row[3] != "0A"
        and f"socket:[{row[9]}]" in mine
        and ports & {row[1].partition(":")[2], row[2].partition(":")[2]}
    ]


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _until_quiet(here: Ground) -> None:
    """Wait until no more is read from the VM: every buffer on the way is full."""
    last = -1

    async def same() -> bool | None:
        nonlocal last
        now = sum(side._other._recv_seq for side in _client_sides(here) if side._other)
        if now == last:
            return True
        last = now
        return None

    await poll(same, seconds=20, what="a full pipe", every=0.5)


def _client_sides(here: Ground) -> list[ClientSide]:
    return [one._conn for one in here.door._visitors if one._conn is not None]


class _Agreeable(asyncssh.SSHClient):
    """Tries keyboard-interactive when its keys are refused."""

    def kbdint_auth_requested(self) -> str:
        return ""


class _Sink(asyncssh.SSHClientSession[bytes]):
    """Takes any amount and keeps none."""

    def __init__(self) -> None:
        self._received = 0

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._received += len(data)

    async def has_some(self) -> bool | None:
        return True if self._received > MB else None
