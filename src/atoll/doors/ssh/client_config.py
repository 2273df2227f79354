"""What a user adds to `~/.ssh/config` so that `ssh atoll ls` and `ssh web.atoll` work. Pure text.

`ssh web.atoll` jumps through the lobby straight to the VM's own sshd: encryption ends in the VM, and
the VM proves who it is by its host certificate. Both keys travel in the text (KnownHostsCommand), so
nothing is trusted on first use and there is no second file. OpenSSH before 8.5 ignores that option
and needs the lines of `known_hosts` in its file of that name.
"""

from __future__ import annotations

# What jumps to a VM is encrypted twice on the client; AES-GCM is the cheapest by far.
JUMP_CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"


def client_config(
    *,
    ssh_host: str,
    ssh_port: int,
    domain: str,
    gateway_key: str,
    host_ca: str,
    login_user: str = "atoll",
) -> str:
    """The configuration; `gateway_key` and `host_ca` are public key lines (type and base64).

    The short names end in the first label of `domain`: with `atoll.localhost`, `ssh web.atoll`.
    """
    short, _, rest = domain.partition(".")
    expand = f"Host *.{short}\n    HostName %h.{rest}\n\n" if rest else ""
    patterns = f"*.{short} *.{domain}" if rest else f"*.{short}"
    return (
        f"# Atoll: `ssh {short} ls`, `ssh web@{short}`, `ssh web.{short}`\n"
        f"IgnoreUnknown KnownHostsCommand\n\n"
        f"Host {short}\n"
        f"    HostName {ssh_host}\n"
        f"    Port {ssh_port}\n"
        f"    User lobby\n"
        f"    KnownHostsCommand /bin/echo {_known_name(ssh_host, ssh_port)} {_key(gateway_key)}\n\n"
        f"{expand}"
        f"Host {patterns}\n"
        f"    User {login_user}\n"
        f"    ProxyJump {short}\n"
        f"    KnownHostsCommand /bin/echo @cert-authority *.{domain} {_key(host_ca)}\n"
        f"    Ciphers {JUMP_CIPHERS}\n"
    )


def known_hosts(
    *, ssh_host: str, ssh_port: int, domain: str, gateway_key: str, host_ca: str
) -> str:
    """The same two keys as lines of a known_hosts file."""
    return (
        f"{_known_name(ssh_host, ssh_port)} {_key(gateway_key)}\n"
        f"@cert-authority *.{domain} {_key(host_ca)}\n"
    )


def _known_name(host: str, port: int) -> str:
    return host if port == 22 else f"[{host}]:{port}"


def _key(line: str) -> str:
    """Type and base64, without the comment."""
    return " ".join(line.split()[:2])
