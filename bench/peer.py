"""OpenSSH's sshd as the measure of our doors, with nothing slow of this machine in it.

`bash` under sshd sources ~/.bashrc. One that takes its time (a version chooser does, 0.1 s) would be in
the direct way and make ours look fast, so everything started `WITHOUT_BASHRC` has an empty one: a bind
mount in a mount namespace of its own, gone with the process.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HIDE = 'test ! -e ~/.bashrc || mount --bind /dev/null ~/.bashrc; exec "$@"'
WITHOUT_BASHRC = ("unshare", "--mount", "sh", "-c", _HIDE, "sh")


@contextmanager
def sshd(folder: Path, public_key: bytes) -> Iterator[int]:
    """Serve root's shell to the holder of `public_key`; yields the port on loopback."""
    host_key, config = folder / "host_key", folder / "sshd_config"
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)]
    subprocess.run(argv, check=True, timeout=20)
    (folder / "authorized_keys").write_bytes(public_key)
    port = _free_port()
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {host_key}\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPermitRootLogin yes\nUseDNS no\nPidFile none\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*WITHOUT_BASHRC, "/usr/sbin/sshd", "-D", "-e", "-f", str(config)], stderr=log
        )
    try:
        _wait_for(port)
        yield port
    finally:
        server.terminate()
        server.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise RuntimeError("sshd does not listen")
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
