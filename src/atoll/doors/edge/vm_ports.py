"""`https://<vm>.<domain>:3000-9999`: one rule hands that range to the edge's one listener. Pure.

Seven thousand listeners would cost start-up time, and HAProxy refuses to start when one port of the
range is taken. nft's `tproxy` gives a connection to the transparent listener without changing its
address; before that, `socket` finds whether a program of this machine listens on the port, which
then keeps it, whenever it starts. Connections from and to VMs are left alone: they have rules of their
own.
"""

from __future__ import annotations

from ipaddress import ip_address

from atoll.config import Config


def table(config: Config) -> str:
    """The nft table, this Atoll's own."""
    return f"{config.network.instance}edge"


def render(config: Config) -> str:
    """The nft script that sets the table up anew, or removes it without `https.vm_ports`."""
    https = config.https
    if not (https.vm_ports and https.takes_ipv4):
        return render_removal(config)
    to_us = "fib daddr type local"
    if not ip_address(https.listen).is_unspecified:
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
