"""`https://<vm>.<domain>:3000-9999`: one rule hands that range to the edge's one listener. Pure.

Seven thousand listeners would cost start-up time, and HAProxy refuses to start when one port of the
range is taken. nft's `tproxy` gives a connection to the transparent listener without changing its
address; before that, `socket` finds whether a program of this machine listens on the port, which
then keeps it, whenever it starts. Connections from and to VMs are left alone: they have rules of their
own.
"""

from __future__ import annotations

import socket

from atoll.config import Config

# Linux, include/uapi/linux/in.h; Python has the name since 3.13 only
IP_TRANSPARENT: int = getattr(socket, "IP_TRANSPARENT", 19)


def table(config: Config) -> str:
    """The nft table, this Atoll's own."""
    return f"{config.network.instance}edge"


def render(config: Config) -> str:
    """The nft script that sets the table up anew, or removes it without `https.vm_ports`."""
    https = config.https
    if not https.vm_ports:
        return render_removal(config)
    to_us = "fib daddr type local"
    if https.listen not in ("0.0.0.0", "::"):
        to_us = f"ip daddr {https.listen}"
    ports = f"tcp dport {https.vm_port_first}-{https.vm_port_last}"
    return f"""\
{render_removal(config)}table ip {table(config)} {{
    chain ports {{
        type filter hook prerouting priority mangle; policy accept;
        iifname "{config.network.instance}h*" accept
        ip daddr {config.network.block} accept
        {to_us} {ports} socket wildcard {{ 0, 1 }} accept
        {to_us} {ports} tproxy to :{https.port} accept
    }}
}}
"""


def render_removal(config: Config) -> str:
    """The nft script that removes the table, also when there is none."""
    return f"table ip {table(config)}\ndelete table ip {table(config)}\n"
