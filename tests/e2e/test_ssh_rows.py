"""Every kind of SSH traffic with the real OpenSSH clients, through the gateway into a real VM."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from atoll.base.aio import poll, together
from atoll.base.proc import Finished, run
from framework.atoll import Atoll
from framework.blobs import blob, digest
from framework.clients import (
    SHOUTER,
    Terminal,
    client,
    exists,
    free_port,
    listening,
    shout,
    shouter,
)

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

VM = "reef"
BIG_MB = 200
SMALL_MB = 20


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def vm(atoll: Atoll) -> AsyncIterator[str]:
    """One VM for the whole module, with a service on its own loopback."""
    await atoll.ssh("new", "--name", VM)
    await atoll.ssh("cat > shouter.py", user=VM, stdin=SHOUTER.encode())
    await atoll.ssh("systemd-run --user --unit shouter python3 shouter.py", user=VM)
    yield VM
    await atoll.ssh("rm", VM)


def line(atoll: Atoll, *arguments: str, target: str = f"{VM}@127.0.0.1") -> list[str]:
    """The client's argument vector; options come before the target."""
    return ["ssh", *atoll.ssh_options(), *arguments, target]


async def files(atoll: Atoll, *argv: str, seconds: float = 120) -> Finished:
    """scp or sftp: the same options, with the port as -P."""
    options = ["-P" if word == "-p" else word for word in atoll.ssh_options()]
    return await run([argv[0], *options, *argv[1:]], seconds=seconds, check=False)


# --- sessions


async def test_a_shell_on_a_terminal_with_window_changes(atoll: Atoll, vm: str) -> None:
    with Terminal(line(atoll, "-tt"), columns=101, rows=37) as term:
        await term.until(rb"\$ ")
        term.type("stty size; tty; hostname\n")
        await term.until(rb"37 101\r\n/dev/pts/[0-9]+\r\nreef\r\n")
        term.resize(columns=77, rows=21)
        term.type("stty size\n")
        await term.until(rb"21 77\r\n")
        term.type("sleep 600\n")
        await term.until(rb"sleep 600\r\n")
        term.type("\x03")  # the interrupt ends the sleep inside, not the client
        await term.until(rb"\$ ")
        term.type("exit 9\n")
        assert await term.ended() == 9


async def test_exec_keeps_streams_and_status_apart(atoll: Atoll, vm: str) -> None:
    done = await atoll.ssh("cat; echo out; echo err >&2; exit 7", user=vm, stdin=b"in\0\xff\n",
                           check=False)  # fmt: skip
    assert (done.code, done.out, done.err) == (7, b"in\0\xff\nout\n", b"err\n")


async def test_a_signal_is_told_as_one(atoll: Atoll, vm: str) -> None:
    done = await run([*line(atoll, "-v"), "kill -TERM $$"], seconds=60, check=False)
    assert done.code == 255
    assert b"exit-signal" in done.err


async def test_environment_arrives(atoll: Atoll, vm: str) -> None:
    done = await run([*line(atoll, "-o", "SetEnv=FLAVOUR=sea"), "echo $FLAVOUR"], seconds=60)
    assert done.out == b"sea\n"


async def test_a_killed_client_leaves_no_process_inside(atoll: Atoll, vm: str) -> None:
    async with client([*line(atoll, "-tt"), "echo here; exec sleep 4711"]) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"here\r\n"
        process.send_signal(signal.SIGKILL)
    gone = "for _ in $(seq 100); do pgrep -f '[s]leep 4711' || exit 0; sleep 0.1; done; exit 1"
    assert (await atoll.ssh(gone, user=vm, check=False)).code == 0


# --- files


@pytest.mark.parametrize(("mode", "size_mb"), [("-s", BIG_MB), ("-O", SMALL_MB)])
async def test_scp_both_ways(
    atoll: Atoll, vm: str, tmp_path: Path, mode: str, size_mb: int
) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    sent = blob(there, size_mb)
    up = await files(atoll, "scp", "-q", mode, str(there), f"{vm}@127.0.0.1:blob")
    assert up.code == 0, up.err
    inside = await atoll.ssh("sha256sum < blob", user=vm)
    assert inside.out.split()[0].decode() == sent
    down = await files(atoll, "scp", "-q", mode, f"{vm}@127.0.0.1:blob", str(back))
    assert down.code == 0, down.err
    assert digest(back) == sent
    await atoll.ssh("rm blob", user=vm)


async def test_sftp(atoll: Atoll, vm: str, tmp_path: Path) -> None:
    sent = blob(tmp_path / "note", 1)
    batch = tmp_path / "batch"
    batch.write_text(
        f"mkdir sea\nput {tmp_path}/note sea/1\nchmod 600 sea/1\nrename sea/1 sea/2\n"
        f"ls -l sea\nget sea/2 {tmp_path}/back\nrm sea/2\nrmdir sea\n"
    )
    done = await files(atoll, "sftp", "-b", str(batch), f"{vm}@127.0.0.1")
    assert done.code == 0, done.err
    assert b"-rw------- " in done.out
    assert digest(tmp_path / "back") == sent


async def test_rsync(atoll: Atoll, vm: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(40):
        file = tree / f"d{number % 5}" / f"f{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(number * 1000))
    shell = " ".join(["ssh", *atoll.ssh_options()])
    argv = ["rsync", "-a", "--stats", "-e", shell, f"{tree}/", f"{vm}@127.0.0.1:tree/"]
    await run(argv, seconds=60)
    again = await run(argv, seconds=60)
    assert b"Number of regular files transferred: 0" in again.out
    back = tmp_path / "back"
    await run(["rsync", "-a", "-e", shell, f"{vm}@127.0.0.1:tree/", f"{back}/"], seconds=60)
    assert (await run(["diff", "-r", str(tree), str(back)], seconds=20)).out == b""


# --- forwards


async def test_local_forward_to_the_vms_loopback(atoll: Atoll, vm: str) -> None:
    port = free_port()
    async with client(line(atoll, "-N", "-L", f"{port}:127.0.0.1:7000")):
        await listening(port)
        assert await shout(port, b"over the reef") == b"OVER THE REEF"


async def test_remote_forward_and_its_cancel(atoll: Atoll, vm: str, tmp_path: Path) -> None:
    control = tmp_path / "ctl"
    ask = "import socket,sys; s=socket.create_connection(('127.0.0.1',int(sys.argv[1]))); \
s.sendall(b'inward'); s.shutdown(1); print(s.makefile().read())"
    async with shouter() as port, client(line(atoll, "-N", "-M", "-S", str(control))):
        await exists(control)
        via, forward = ("-S", str(control)), f"0:127.0.0.1:{port}"
        asked = await run(line(atoll, *via, "-O", "forward", "-R", forward), seconds=30)
        inside = f'python3 -c "{ask}" {int(asked.out)}'
        assert (await run([*line(atoll, *via), inside], seconds=30)).out == b"INWARD\n"
        await run(line(atoll, *via, "-O", "cancel", "-R", forward), seconds=30)
        after = await run([*line(atoll, *via), inside], seconds=30, check=False)
        assert b"ConnectionRefusedError" in after.err


async def test_socks(atoll: Atoll, vm: str) -> None:
    await atoll.ssh("systemd-run --user --unit inner python3 -m http.server -b 127.0.0.1 7001",
                    user=vm)  # fmt: skip
    port = free_port()
    async with client(line(atoll, "-N", "-D", str(port))):
        await listening(port)
        argv = ["curl", "-sS", "--retry", "20", "--retry-delay", "1", "--retry-all-errors",
                "--socks5-hostname", f"127.0.0.1:{port}"]  # fmt: skip
        page = await run([*argv, "http://127.0.0.1:7001/shouter.py"], seconds=60)
        assert page.out.decode() == SHOUTER
        page = await run([*argv, "http://localhost:7001/shouter.py"], seconds=60)
        assert page.out.decode() == SHOUTER


async def test_agent_forwarding(atoll: Atoll, vm: str, tmp_path: Path) -> None:
    key, socket = tmp_path / "spare", tmp_path / "agent"
    await run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], seconds=20)
    async with client(["ssh-agent", "-D", "-a", str(socket)]):
        await exists(socket)
        env = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
        await run(["ssh-add", "-q", str(key)], seconds=10, env=env)
        argv = line(atoll, "-A", "-o", f"IdentityAgent={socket}")
        done = await run([*argv, "ssh-add -l"], seconds=30)
    fingerprint = (await run(["ssh-keygen", "-lf", f"{key}.pub"], seconds=10)).out.split()[1]
    assert fingerprint in done.out
    without = await atoll.ssh("ssh-add -l", user=vm, check=False)
    assert without.code == 2, "no agent was offered, so there is none inside"


async def test_many_sessions_on_one_long_lived_connection(
    atoll: Atoll, vm: str, tmp_path: Path
) -> None:
    """What an editor does: a server process that stays, short commands, forwards and files."""
    control = tmp_path / "ctl"
    via = ("-S", str(control))
    async with (
        client(line(atoll, "-N", "-M", *via)) as master,
        client([*line(atoll, *via), "while read word; do echo got $word; done"]) as server,
    ):
        await exists(control)
        assert server.stdin is not None
        assert server.stdout is not None
        for lap in range(3):
            server.stdin.write(b"%d\n" % lap)
            assert await server.stdout.readline() == b"got %d\n" % lap
            jobs = [
                run([*line(atoll, *via), f"head -c {n}00000 /dev/zero | wc -c; exit {n}"],
                    seconds=60, check=False)
                for n in range(1, 9)
            ]  # fmt: skip
            for number, done in enumerate(await together(*jobs), start=1):
                assert (done.code, done.out) == (number, b"%d00000\n" % number)
        port = free_port()
        await run(line(atoll, *via, "-O", "forward", "-L", f"{port}:127.0.0.1:7000"), seconds=30)
        assert await shout(port, b"editor") == b"EDITOR"
        server.stdin.write_eof()
        assert await server.wait() == 0
        assert master.returncode is None

        async def connections() -> bool | None:
            count = [*line(atoll, *via), "pgrep -c -f '[s]shd.*@notty'"]
            return True if (await run(count, seconds=30)).out == b"1\n" else None

        await poll(connections, seconds=15, what="one connection at the VM for all of it")


# --- straight to the VM's own sshd


@pytest.fixture
async def printed(atoll: Atoll, vm: str, tmp_path: Path) -> Path:
    """What `atoll ssh-config` prints, with the key to use and nothing trusted beyond it."""
    text = (await atoll.cli("ssh-config")).out.decode()
    path = tmp_path / "config"
    path.write_text(
        f"{text}\nHost *\n    IdentityFile {atoll.key}\n    IdentitiesOnly yes\n"
        "    StrictHostKeyChecking yes\n    UserKnownHostsFile none\n    GlobalKnownHostsFile none\n"
        "    BatchMode yes\n"
    )
    return path


async def test_short_names_end_in_the_vm_itself(atoll: Atoll, vm: str, printed: Path) -> None:
    short = atoll.config.https.domain.partition(".")[0]
    for name in (f"{vm}.{short}", f"{vm}.{atoll.config.https.domain}"):
        done = await run(["ssh", "-v", "-F", str(printed), name, "hostname; exit 3"], seconds=60,
                         check=False)  # fmt: skip
        assert (done.code, done.out) == (3, b"reef\n"), done.err
        assert b"Server host certificate" in done.err, "the VM proved itself to the client"
    lobby = await run(["ssh", "-F", str(printed), short, "ls", "--json"], seconds=60)
    assert b'"reef"' in lobby.out
    relayed = await run(["ssh", "-F", str(printed), f"{vm}@{short}", "hostname"], seconds=60)
    assert relayed.out == b"reef\n"


async def test_jump_by_hand_and_a_wrong_authority(atoll: Atoll, vm: str, tmp_path: Path) -> None:
    port, domain = atoll.config.ssh.port, atoll.config.https.domain
    ca = (atoll.config.control_state / "keys" / "host_ca.pub").read_text().strip()
    gateway = (atoll.config.control_state / "keys" / "host_key.pub").read_text().strip()
    other = tmp_path / "other"
    await run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], seconds=20)
    config = tmp_path / "config"
    argv = ["ssh", "-F", str(config), "-J", f"127.0.0.1:{port}", f"atoll@{vm}.{domain}", "id -un"]

    async def jump(authority: str) -> Finished:
        known = tmp_path / "known"
        known.write_text(f"[127.0.0.1]:{port} {gateway}\n@cert-authority *.{domain} {authority}\n")
        config.write_text(
            f"Host *\n    UserKnownHostsFile {known}\n    GlobalKnownHostsFile none\n"
            f"    StrictHostKeyChecking yes\n    BatchMode yes\n    IdentityFile {atoll.key}\n"
            "    IdentitiesOnly yes\n"
        )
        return await run(argv, seconds=60, check=False)

    done = await jump(ca)
    assert (done.code, done.out) == (0, b"atoll\n"), done.err
    done = await jump(Path(f"{other}.pub").read_text().strip())
    assert (done.code, done.out) == (255, b"")
    assert b"Host key verification failed" in done.err


async def test_scp_by_the_short_name(atoll: Atoll, vm: str, tmp_path: Path, printed: Path) -> None:
    name = f"{vm}.{atoll.config.https.domain.partition('.')[0]}"
    sent = blob(tmp_path / "there", SMALL_MB)
    await run(
        ["scp", "-q", "-F", str(printed), str(tmp_path / "there"), f"{name}:blob"], seconds=120
    )
    await run(
        ["scp", "-q", "-F", str(printed), f"{name}:blob", str(tmp_path / "back")], seconds=120
    )
    assert digest(tmp_path / "back") == sent


# --- the lobby and strangers


async def test_the_lobby_runs_a_command_in_the_vm(atoll: Atoll, vm: str) -> None:
    done = await atoll.ssh(f"ssh {vm} 'cat; hostname; exit 4'", stdin=b"through\xff\n", check=False)
    assert (done.code, done.out) == (4, b"through\xff\nreef\n")


async def test_a_shell_by_way_of_the_prompt(atoll: Atoll, vm: str) -> None:
    with Terminal(line(atoll, "-tt", target="127.0.0.1"), columns=90, rows=30) as term:
        await term.until(rb"atoll> ")
        term.type(f"ssh {vm}\n")
        await term.until(rb"\$ ")
        term.type("hostname; stty size; exit\n")
        await term.until(rb"reef\r\n30 90\r\n")
        await term.until(rb"atoll> ")
        term.type("whoami\n")
        await term.until(rb"owner@example.com\r\n")
        term.type("\x04")
        assert await term.ended() == 0


async def test_an_unknown_key_gets_one_clear_line(atoll: Atoll, vm: str, tmp_path: Path) -> None:
    key = tmp_path / "stranger"
    await run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], seconds=20)
    fingerprint = (await run(["ssh-keygen", "-lf", f"{key}.pub"], seconds=10)).out.split()[1]
    argv = ["ssh", "-F", "none", "-i", str(key), "-p", str(atoll.config.ssh.port)]
    for option in ("IdentitiesOnly=yes", "StrictHostKeyChecking=yes",
                   f"UserKnownHostsFile={atoll.folder}/known_hosts"):  # fmt: skip
        argv += ["-o", option]
    for target in ("127.0.0.1", f"{vm}@127.0.0.1"):
        done = await run([*argv, target, "ls"], seconds=60, check=False)
        assert done.code == 1
        assert done.out == b""
        assert done.err.count(b"\n") == 1
        assert b"key " + fingerprint + b" is not known here" in done.err
        assert b"ssh-key add" in done.err
        batch = await run([*argv, "-o", "BatchMode=yes", target, "ls"], seconds=60, check=False)
        assert (batch.code, batch.out, batch.err.count(b"\n")) == (255, b"", 1)
        assert b"unknown-key-" + fingerprint in batch.err
